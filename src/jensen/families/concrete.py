"""Relaxed Bernoullis and categoricals with a density: a relaxed model has a bound of its own."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import ModelError, explain
from ..facts import Fact
from ..tree import default_float
from .base import PLAIN, UNSIZED, AbstractDistribution, AbstractPlain, same_law
from .discrete import Bernoulli, Categorical, _fits, _one_array
from .noise import Uniform
from .relaxation import Binary, OneHot, check_temperature


class Concrete(AbstractPlain):
    """Concrete distribution: the relaxed Bernoulli on (0, 1), or with `categories` the relaxed categorical on the simplex.

    Definition: y = sigmoid(t), t = (logits + logistic noise) / T: p(y) = T a (y (1-y))^{-T-1} / (a y^{-T} + (1-y)^{-T})^2,
                a = e^logits; or y = softmax((logits + Gumbel noise) / T).
                A DRAW IS t, the log-odds of y; with categories log y. `values(t)` is y. Near 1 single precision has no
                room for y (at T = 0.1 one draw in six would round to 1). log p and log q of a model both belong to t, and
                their ratio is that of y: the bound is the relaxed model's in y.
    Arguments:  logits: any shape, categories on the last axis; left out, zeros of the model's shape.
                temperature: > 0.   categories: the simplex instead of (0, 1).
                train_temperature: learn it as a parameter of q: the bound, which holds for each, is its loss.
    To relax a model: a relaxed prior and a decoder that reads y,
                `LatentVariable(relaxed(Bernoulli(logits)), OnRelaxed(decoder), ...)`; q is a `Concrete` too. For relaxed
                values in the discrete objective, which is no bound: `gradients.GumbelSoftmax`.
    Cost:       O(D) a draw.
    Reference:  Maddison, Mnih and Teh (2017), appendices B and C.3.  [maddison2017concrete]
    """

    logits: Float[Array, "..."]
    log_temperature: Float[Array, ""] | None  # where it is learned
    start: float = eqx.field(static=True)
    categories: bool = eqx.field(static=True)
    facts: ClassVar = PLAIN | {Fact.REPARAMETERISED}

    def __init__(
        self,
        logits: Any = None,
        temperature: float = 0.5,
        *,
        categories: bool = False,
        train_temperature: bool = False,
    ):
        checked = check_temperature(f"`Concrete(temperature={temperature!r})`", temperature, "Bernoulli(),")
        self.start = checked
        self.log_temperature = jnp.asarray(math.log(checked), default_float()) if train_temperature else None
        self.logits = UNSIZED if logits is None else jnp.asarray(logits, default_float())
        self.categories = categories
        if categories and self.logits is not None and self.logits.ndim == 0:
            asked = "`Concrete(logits, categories=True)` with a scalar"
            raise ModelError(
                explain(asked, "there is no category axis", "the last axis lists the categories", "Concrete(logits)")
            )

    @property
    def temperature(self) -> Float[Array, ""] | float:
        return self.start if self.log_temperature is None else jnp.exp(self.log_temperature)

    def kind_of(self, site):
        return "relaxed category" if self.categories else "relaxed"

    def bind(self, latents, rows, key):
        shape = _one_array("Concrete", latents)
        _fits("Concrete", self.logits, shape)
        logits = jnp.zeros(shape, default_float())
        return self if self.logits is not None else eqx.tree_at(_LOGITS, self, logits, is_leaf=lambda a: a is None)

    def noise_law(self):
        return Uniform(self.logits.shape)

    def transform(self, noise):
        if not self.categories:
            return Binary().reparameterise(self.logits, noise) / self.temperature
        return jax.nn.log_softmax(OneHot().reparameterise(self.logits, noise) / self.temperature)

    def values(self, draw: Array) -> Array:
        """y of a draw: in (0, 1), or on the simplex."""
        return values(draw, self.categories)

    def log_prob(self, draw):
        """Of t: log T + s - 2 log(1 + e^s), s = logits - T t. Of log y: equation 23, log (C-1)! T^{C-1} prod_c e^{s_c} /
        (sum_c e^{s_c})^C, s_c = logits_c - T log y_c, which is p(y) prod_c y_c."""
        s, log_t = self.logits - self.temperature * draw, jnp.log(self.temperature)
        if not self.categories:
            return (log_t + s - 2 * jax.nn.softplus(s)).sum()
        c = s.shape[-1]
        return (math.lgamma(c) + (c - 1) * log_t + (s - jax.nn.logsumexp(s, -1, keepdims=True)).sum(-1)).sum()


_LOGITS = lambda q: q.logits


def values(draw: Array, categories: bool = False) -> Array:
    """The relaxed variable y of a draw of `Concrete`."""
    return jnp.exp(draw) if categories else jax.nn.sigmoid(draw)


def relaxed(prior: AbstractDistribution, temperature: float = 0.5) -> Concrete:
    """The relaxed prior with the logits of a Bernoulli or a categorical one.

    Raises:     ModelError for any other distribution.
    """
    if not (same_law(prior, Bernoulli) or same_law(prior, Categorical)):
        asked = f"`relaxed({type(prior).__name__})`"
        because = "the relaxed prior is made of the logits of independent variables"
        instead = "Bernoulli(logits) or Categorical(logits); or gradients.GumbelSoftmax() with the prior as it is"
        raise ModelError(explain(asked, "it is neither a Bernoulli nor a categorical", because, instead))
    return Concrete(prior.logits, temperature, categories=isinstance(prior, Categorical))


class OnRelaxed(eqx.Module):
    """A decoder of discrete variables that is given draws of `Concrete`: decoder(y)."""

    decoder: Callable
    categories: bool = eqx.field(static=True, default=False)

    def __call__(self, draw: Array) -> Any:
        return self.decoder(values(draw, self.categories))
