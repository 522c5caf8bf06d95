"""Relaxed discrete variables: z is real and reparameterised, hard(z) is the variable, soft(z, temperature) near it.

Two kinds: Bernoulli logits, and categorical logits with the categories on the last axis. Everything is elementwise in
the variables and takes z to its own scale: z = logits + logistic noise, or log-probabilities + Gumbel noise.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..errors import OptionError, explain
from ..facts import Fact
from .noise import Uniform


class AbstractRelaxation(eqx.Module):
    """Arrays are of the logits' shape, noise too; every function is differentiable in the logits.

    Reference:  Maddison, Mnih and Teh (2017); Jang, Gu and Poole (2017); Tucker et al. (2017), appendix C.
    """

    def law(self, shape: tuple[int, ...]) -> Uniform:
        """The noise of one draw (or of one conditional draw)."""
        return Uniform(shape)

    @abc.abstractmethod
    def mean(self, logits: Array) -> Array:
        """E hard(z)."""

    @abc.abstractmethod
    def reparameterise(self, logits: Array, u: Array) -> Array:
        """z of the noise u."""

    @abc.abstractmethod
    def hard(self, z: Array) -> Array:
        """The discrete variable, in float."""

    @abc.abstractmethod
    def soft(self, z: Array, temperature: Array | float) -> Array:
        """The relaxed variable: hard(z) as the temperature goes to 0."""

    @abc.abstractmethod
    def given(self, logits: Array, b: Array, v: Array) -> Array:
        """A draw of z | hard(z) = b of the noise v, differentiable in the logits at fixed b and v."""

    @abc.abstractmethod
    def noise_given(self, logits: Array, z: Array) -> Array:
        """The v with given(logits, hard(z), v) = z: uniform, and independent of hard(z)."""

    @abc.abstractmethod
    def pull(self, logits: Array, z: Array, g: Array) -> Array:
        """(dz/dlogits - d given/dlogits)' g, both at their fixed noises, where given(logits, hard(z), v) = z."""


class Binary(AbstractRelaxation):
    """b = 1[z > 0], z = logits + log u/(1-u), soft = sigmoid(z / temperature)."""

    def mean(self, logits):
        return jax.nn.sigmoid(logits)

    def reparameterise(self, logits, u):
        return logits + jnp.log(u) - jnp.log1p(-u)

    def hard(self, z):
        return (z > 0).astype(z.dtype)

    def soft(self, z, temperature):
        return jax.nn.sigmoid(z / temperature)

    def given(self, logits, b, v):
        """u | b = 1 is 1 - p + v p; then log u/(1-u) + logits = log1p(v e^logits) - log1p(-v). b = 0 is its mirror."""
        s = 2 * b - 1
        return s * (jax.nn.softplus(s * logits + jnp.log(v)) - jnp.log1p(-v))

    def noise_given(self, logits, z):
        """v = (e^|z| - 1) / (e^|z| + e^{+-logits})."""
        s, a = jnp.where(z > 0, logits, -logits), jnp.abs(z)
        return -jnp.expm1(-a) / (1 + jnp.exp(s - a))

    def pull(self, logits, z, g):
        """d given/dlogits = sigmoid(+-logits + log v) = P(b) (1 - e^-|z|), with the v of `noise_given`; dz/dlogits = 1."""
        return g * (1 + jax.nn.sigmoid(jnp.where(z > 0, logits, -logits)) * jnp.expm1(-jnp.abs(z)))


class OneHot(AbstractRelaxation):
    """b = one-hot of argmax z, z = log softmax(logits) + Gumbel noise, soft = softmax(z / temperature)."""

    def mean(self, logits):
        return jax.nn.softmax(logits)

    def reparameterise(self, logits, u):
        return jax.nn.log_softmax(logits) - jnp.log(-jnp.log(u))

    def hard(self, z):
        return jax.nn.one_hot(jnp.argmax(z, -1), z.shape[-1], dtype=z.dtype)

    def soft(self, z, temperature):
        return jax.nn.softmax(z / temperature)

    def given(self, logits, b, v):
        """The largest is a Gumbel of its own, -t_k; the others are Gumbels below it: -log(e^{t_i} / p_i + e^{t_k})."""
        t = jnp.log(-jnp.log(v))
        top = (b * t).sum(-1, keepdims=True)
        return jnp.where(b > 0.5, -top, -jnp.logaddexp(t - jax.nn.log_softmax(logits), top))

    def noise_given(self, logits, z):
        k = self.hard(z) > 0.5
        gap = jnp.where(k, -1.0, z - z.max(-1, keepdims=True))
        below = jax.nn.log_softmax(logits) + jnp.log(-jnp.expm1(gap))
        return jnp.exp(-jnp.exp(jnp.where(k, 0.0, below) - z))

    def pull(self, logits, z, g):
        """d given_i / dlog p_i = 1 - e^{z_i - z_k} where dz_i / dlog p_i = 1; then through log p = log softmax(logits)."""
        h = g * jnp.exp(z - z.max(-1, keepdims=True))
        return h - jax.nn.softmax(logits) * h.sum(-1, keepdims=True)


def relaxation_of(q: Any) -> AbstractRelaxation:
    """Of a distribution with LAYERS."""
    return Binary() if Fact.BINARY in q.facts else OneHot()


def mean_field_pass(q: Any) -> tuple[Array, ...]:
    """The means of the layers of a distribution with LAYERS, each computed from the means before it."""
    kind, means = relaxation_of(q), ()
    for _ in range(q.n_layers):
        means = (*means, kind.mean(q.next_logits(means)))
    return means


def check_temperature(asked: str, temperature: float, hard: str) -> float:
    """The temperature as a float; OptionError, with `hard` as what to write for a temperature of 0."""
    if isinstance(temperature, (int, float)) and math.isfinite(temperature) and temperature > 0:
        return float(temperature)
    if temperature == 0:
        wrong, instead = (
            "a temperature of 0 is the hard threshold, which has no derivative",
            f"{hard} or temperature=0.5",
        )
    else:
        wrong, instead = "it is not a positive, finite number", "temperature=0.5"
    because = "soft(z) = sigmoid(z / temperature): the smaller, the closer to 0 and 1, and the steeper"
    raise OptionError(explain(asked, wrong, because, instead))
