"""Likelihoods of a decoder: what its outputs parametrise. Each is `n_outputs`, `log_prob`, `mean`, `sample`."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..families.gaussian import LOG_2PI
from ..kernels import bernoulli_log_prob
from ..tree import default_float

MEAN_RANGE = 0.01, 0.99  # a pixel that is never on must still be able to learn


class AbstractLikelihood(eqx.Module):
    """p(x | outputs) of one row x of shape `shape`; `outputs` is a vector."""

    shape: eqx.AbstractVar[tuple[int, ...]]

    @property
    @abc.abstractmethod
    def n_outputs(self) -> int: ...

    @abc.abstractmethod
    def log_prob(self, outputs: Float[Array, " O"], x: Array) -> Float[Array, ""]: ...

    @abc.abstractmethod
    def mean(self, outputs: Float[Array, " O"]) -> Array: ...

    @abc.abstractmethod
    def outputs_of(self, mean: Float[Array, " O"]) -> Float[Array, " O"]:
        """The outputs whose `mean` is (nearly) this one: where a decoder's biases start."""

    @abc.abstractmethod
    def sample(self, key: Array, outputs: Float[Array, " O"]) -> Array: ...

    def observed(self, rows: PyTree) -> Array | None:
        """What of the rows (leading axis N) is drawn by `sample`: the one array of its size; None, so that pictures show
        none, where there are several. Written anew where rows are a tree: `return rows["x"]`."""
        leaves, size = jax.tree.leaves(rows), math.prod(self.shape)
        fitting = [a for a in leaves if math.prod(a.shape[1:]) == size]
        if len(fitting) > 1:  # a mask of zeros and ones was not drawn from a continuous law, nor reals from one of bits
            drawn = jax.vmap(lambda key: self.sample(key, jnp.zeros(self.n_outputs)))(jr.split(jr.key(0), 4))
            fitting = [a for a in fitting if _bits(a) == _bits(drawn)]
        return fitting[0] if len(fitting) == 1 else None


def _bits(a: Array) -> bool:
    return bool(np.isin(np.asarray(a), (0, 1)).all())


class BernoulliLikelihood(AbstractLikelihood):
    """Outputs are logits. x in {0, 1}; values between count as expected log-likelihood of noisy bits."""

    shape: tuple[int, ...] = eqx.field(static=True)
    name: ClassVar = "bernoulli"

    @property
    def n_outputs(self):
        return math.prod(self.shape)

    def log_prob(self, outputs, x):
        return bernoulli_log_prob(outputs, jnp.ravel(x).astype(outputs.dtype)).sum()

    def mean(self, outputs):
        return jax.nn.sigmoid(outputs).reshape(self.shape)

    def outputs_of(self, mean):
        return jax.scipy.special.logit(jnp.clip(mean, *MEAN_RANGE)).astype(default_float())

    def sample(self, key, outputs):
        return jr.bernoulli(key, self.mean(outputs)).astype(outputs.dtype)


class GaussianLikelihood(AbstractLikelihood):
    """Outputs are means; one standard deviation a feature is a trained parameter, floored at `min_scale`."""

    shape: tuple[int, ...] = eqx.field(static=True)
    log_scale: Float[Array, " O"]
    min_scale: float = eqx.field(static=True)
    name: ClassVar = "gaussian"

    def __init__(self, shape: tuple[int, ...], scale: float = 1.0, min_scale: float = 1e-3):
        self.shape, self.min_scale = tuple(shape), min_scale
        self.log_scale = jnp.full(math.prod(shape), math.log(scale))

    @property
    def n_outputs(self):
        return math.prod(self.shape)

    def scale(self):
        return self.min_scale + jnp.exp(self.log_scale)

    def log_prob(self, outputs, x):
        z = (jnp.ravel(x).astype(outputs.dtype) - outputs) / self.scale()
        return (-0.5 * z**2 - jnp.log(self.scale()) - 0.5 * LOG_2PI).sum()

    def mean(self, outputs):
        return outputs.reshape(self.shape)

    def outputs_of(self, mean):
        return mean.astype(default_float())

    def sample(self, key, outputs):
        return (outputs + self.scale() * jr.normal(key, outputs.shape)).reshape(self.shape)


class PoissonLikelihood(AbstractLikelihood):
    """Outputs are log rates; x are counts."""

    shape: tuple[int, ...] = eqx.field(static=True)
    name: ClassVar = "poisson"

    @property
    def n_outputs(self):
        return math.prod(self.shape)

    def log_prob(self, outputs, x):
        x = jnp.ravel(x).astype(outputs.dtype)
        return (x * outputs - jnp.exp(outputs) - jax.lax.lgamma(x + 1)).sum()

    def mean(self, outputs):
        return jnp.exp(outputs).reshape(self.shape)

    def outputs_of(self, mean):
        return jnp.log(jnp.maximum(mean, MEAN_RANGE[0])).astype(default_float())

    def sample(self, key, outputs):
        return jr.poisson(key, self.mean(outputs)).astype(outputs.dtype)


LIKELIHOODS = {c.name: c for c in (BernoulliLikelihood, GaussianLikelihood, PoissonLikelihood)}
