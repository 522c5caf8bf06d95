"""Units of a Boltzmann machine: what one layer can be, as an exponential family in its field."""

import abc
import math
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from ..errors import DataError, OptionError, explain
from ..tree import default_float

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

RATE = 1e-2  # the least share of a state in the data from which a bias starts


@jax.custom_jvp
def softplus(f: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(1 + e^f); its derivative needs no logarithm, so that a gradient alone costs one exponential."""
    return jnp.maximum(f, 0) + jnp.log1p(jnp.exp(-jnp.abs(f)))


softplus.defjvps(lambda df, _, f: jax.nn.sigmoid(f) * df)


class AbstractUnits(eqx.Module):
    """A layer of units, independent given their field f: log p(x | f) = t(x) . f - base(x) - log_partition(f).

    Definition: t is the statistic by which a layer acts on its neighbours: a layer's field is its bias plus the sum of
                t(neighbour) W. Every method takes rows, (n, size).
    size:       columns.   group: columns of one variable.   states: of one variable; None: not countable.
    """

    size: AbstractVar[int]
    group: AbstractVar[int]
    states: AbstractVar[int | None]

    @abc.abstractmethod
    def statistic(self, x: Float[Array, "n d"]) -> Float[Array, "n d"]: ...

    @abc.abstractmethod
    def base(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Minus what the log weight has beside t(x) . f, nats."""

    @abc.abstractmethod
    def log_partition(self, field: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Whose sum over the last axis normalises the layer, nats."""

    @abc.abstractmethod
    def mean(self, field: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """E[x | f]."""

    @abc.abstractmethod
    def draw(self, key: Array, mean: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """x given its mean."""

    @abc.abstractmethod
    def bias_of(self, mean: Float[np.ndarray, " d"]) -> Float[Array, " d"]:
        """The bias at which units without neighbours have that mean; shares of 0 or 1 are kept off the ends."""

    @abc.abstractmethod
    def entropy(self, mean: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Of the layer with those means, nats."""

    @abc.abstractmethod
    def check(self, x: Float[np.ndarray, "n d"], asked: str) -> None:
        """Raises: DataError where rows cannot be values of these units."""


class Binary(AbstractUnits):
    """Units 0 or 1: p(x = 1 | f) = sigmoid(f)."""

    size: int = eqx.field(static=True)
    group: ClassVar = 1
    states: ClassVar = 2

    def statistic(self, x):
        return x

    def base(self, x):
        return jnp.zeros(x.shape[:-1], x.dtype)

    def log_partition(self, field):
        return softplus(field)

    def mean(self, field):
        return jax.nn.sigmoid(field)

    def draw(self, key, mean):
        return (jr.uniform(key, mean.shape, mean.dtype) < mean).astype(mean.dtype)

    def bias_of(self, mean):
        p = np.clip(mean, RATE, 1 - RATE)
        return jnp.asarray(np.log(p / (1 - p)), default_float())

    def entropy(self, mean):
        return -(jax.scipy.special.xlogy(mean, mean) + jax.scipy.special.xlog1py(1 - mean, -mean)).sum(-1)

    def check(self, x, asked):
        if x.min() < 0 or x.max() > 1:
            wrong = f"the data have values from {float(x.min()):g} to {float(x.max()):g}"
            because = "these units are 0 or 1 (a value between is a probability)"
            raise DataError(explain(asked, wrong, because, 'data scaled to [0, 1], or visible="gaussian"'))


class Softmax(AbstractUnits):
    """Groups of columns of which exactly one is 1: p(x_j = 1 | f) = softmax(f)_j in each group ("softmax units")."""

    size: int = eqx.field(static=True)
    group: int = eqx.field(static=True)

    def __init__(self, size: int, n_categories: int):
        if n_categories < 2 or size % n_categories:
            asked, wrong = f"{size} columns in groups of {n_categories}", "the columns do not divide into such groups"
            raise OptionError(explain(asked, wrong, "a group of columns codes one variable", "n_categories >= 2"))
        self.size, self.group = size, n_categories

    @property
    def states(self):
        return self.group

    def _grouped(self, x):
        return x.reshape(*x.shape[:-1], -1, self.group)

    def statistic(self, x):
        return x

    def base(self, x):
        return jnp.zeros(x.shape[:-1], x.dtype)

    def log_partition(self, field):
        return jax.nn.logsumexp(self._grouped(field), axis=-1)

    def mean(self, field):
        return jax.nn.softmax(self._grouped(field), axis=-1).reshape(field.shape)

    def draw(self, key, mean):
        p = self._grouped(mean)
        index = (jr.uniform(key, (*p.shape[:-1], 1), p.dtype) * p.sum(-1, keepdims=True) >= jnp.cumsum(p, -1)).sum(-1)
        return jax.nn.one_hot(jnp.minimum(index, self.group - 1), self.group, dtype=p.dtype).reshape(mean.shape)

    def bias_of(self, mean):
        p = np.maximum(mean.reshape(-1, self.group), RATE / self.group)
        return jnp.asarray(np.log(p / p.sum(1, keepdims=True)).reshape(-1), default_float())

    def entropy(self, mean):
        return -jax.scipy.special.xlogy(mean, mean).sum(-1)

    def check(self, x, asked):
        total = x.reshape(len(x), -1, self.group).sum(-1)
        if x.min() < 0 or not np.allclose(total, 1, atol=1e-4):
            wrong = f"a group of {self.group} columns sums to {float(total.min()):g} to {float(total.max()):g}, not 1"
            raise DataError(explain(asked, wrong, "each group is one category, one-hot", "one-hot columns"))


class Gaussian(AbstractUnits):
    """Real units of learned variances: x | f ~ N(f, sigma^2); t(x) = x / sigma^2, base(x) = x^2 / 2 sigma^2.

    Reference:  Cho, Ilin and Raiko (2011), the parametrisation by log sigma^2.  [cho2011improved]
    """

    size: int = eqx.field(static=True)
    log_variance: Float[Array, " d"]
    group: ClassVar = 1
    states: ClassVar = None

    def __init__(self, size: int, variance: Float[np.ndarray, " d"] | None = None):
        self.size = size
        v = np.ones(size) if variance is None else np.maximum(np.asarray(variance, np.float64), 1e-6)
        self.log_variance = jnp.asarray(np.log(v), default_float())

    def statistic(self, x):
        return x * jnp.exp(-self.log_variance)

    def base(self, x):
        return 0.5 * (x * x * jnp.exp(-self.log_variance)).sum(-1)

    def log_partition(self, field):
        return 0.5 * (field * field * jnp.exp(-self.log_variance) + self.log_variance + math.log(2 * math.pi))

    def mean(self, field):
        return field

    def draw(self, key, mean):
        return mean + jnp.exp(0.5 * self.log_variance) * jr.normal(key, mean.shape, mean.dtype)

    def bias_of(self, mean):
        return jnp.asarray(mean, default_float())

    def entropy(self, mean):
        return jnp.broadcast_to(0.5 * (self.log_variance + math.log(2 * math.pi) + 1).sum(), mean.shape[:-1])

    def check(self, x, asked):
        pass


def units_of(visible: str | AbstractUnits, size: int, n_categories: int | None) -> AbstractUnits:
    """Visible units by name.  Raises: OptionError."""
    if isinstance(visible, AbstractUnits):
        return visible
    if visible == "bernoulli":
        return Binary(size)
    if visible == "gaussian":
        return Gaussian(size)
    if visible == "categorical" and n_categories is not None:
        return Softmax(size, n_categories)
    because, instead = "the name is looked up", '"bernoulli", "gaussian", or "categorical" with n_categories=k'
    raise OptionError(explain(f"visible={visible!r}", "there are no such units", because, instead))
