"""Components of mixtures, and emissions of hidden Markov models: K distributions of a row, estimated from weighted rows."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Key, PyTree

from ..errors import DataError, OptionError, explain
from ..tree import replaced
from .em import HARDLY, listed, observed


class AbstractComponents(eqx.Module):
    """K distributions over rows of d numbers. `Mixture` and `HiddenMarkov` are made of them."""

    @property
    @abc.abstractmethod
    def may_fall(self) -> str:
        """As of `AbstractEM`."""

    @abc.abstractmethod
    def bound_to(self, rows: np.ndarray) -> "AbstractComponents":
        """For these rows (n, d), NaN where missing. Raises DataError where they are outside the support."""

    @abc.abstractmethod
    def chunk(self, d: int, n_components: int) -> int:
        """Rows worked on at once."""

    @abc.abstractmethod
    def start(self, key: Key[Array, ""], rows: Array, shares: Float[Array, "n K"]) -> PyTree:
        """Parameters from a first division of the rows; rows have NaN where missing."""

    @abc.abstractmethod
    def evaluate(self, params: PyTree, rows: Array) -> tuple[Float[Array, "n K"], Any]:
        """(log p(row | component), what `statistics` wants to know again)."""

    @abc.abstractmethod
    def statistics(self, params: PyTree, rows: Array, known: Any, shares: Float[Array, "n K"]) -> PyTree:
        """Sums over rows, weighted by `shares` (responsibility times the row's weight)."""

    @abc.abstractmethod
    def m_step(self, params: PyTree, statistics: PyTree) -> PyTree:
        """The maximum of the expected log-likelihood plus `log_prior`."""

    @abc.abstractmethod
    def rebased(self, statistics: PyTree, old: PyTree, new: PyTree) -> PyTree:
        """As of `AbstractEM`."""

    @abc.abstractmethod
    def log_prior(self, params: PyTree) -> Float[Array, ""]:
        """Nats."""

    @abc.abstractmethod
    def n_parameters(self, params: PyTree) -> int:
        """Free parameters."""

    @abc.abstractmethod
    def faults(self, params: PyTree, weights: np.ndarray) -> list[tuple[int, str]]:
        """As of `AbstractEM`; `weights`: the components' shares."""

    @property
    def several_optima(self) -> bool:
        """May one component alone have several?"""
        return False

    @abc.abstractmethod
    def seen(self, statistics: PyTree) -> Float[Array, "K d"]:
        """Rows' worth of values that each component saw in each column."""

    @property
    def has_prior(self) -> bool:
        """Does a prior say what the data do not?"""
        return getattr(self, "pseudo", 0.0) > 0

    def uninformed(self, statistics: PyTree, what: str) -> list[tuple[int, str]]:
        """As of `AbstractEM`, of components that hold rows; what: what they are called."""
        out = []
        for k, row in enumerate(np.asarray(self.seen(statistics), np.float64)):
            empty = np.flatnonzero(row < HARDLY)
            if 0 < len(empty) < len(row):
                by = "its prior" if self.has_prior else "its start"
                why = f"{what} {k} saw no value in columns {listed(empty)}: its parameters there are those of {by}"
                out.append((int(not self.has_prior), f"{why}, not learned."))
        return out

    def filled(self, params: PyTree, rows: Array, shares: Float[Array, "n K"]) -> Float[Array, "n d"]:
        """The rows, E[x | what is seen of it] where NaN, under these shares of the components."""
        return jnp.where(jnp.isnan(rows), shares @ self.mean(params), rows)

    @abc.abstractmethod
    def sample(self, params: PyTree, key: Key[Array, ""], which: Array) -> Array:
        """A row from component `which[i]` for each i."""

    @abc.abstractmethod
    def mean(self, params: PyTree) -> Float[Array, "K d"]:
        """Mean row of each component."""


class Rates(NamedTuple):
    """Sums of one row of numbers for each component: total (K, d) of what was seen, and count (K, d) of how often."""

    total: Array
    count: Array


class Bernoulli(AbstractComponents):
    """Independent bits: p(x | k) = prod_j p_kj^x_j (1 - p_kj)^(1 - x_j). Parameters: p, (K, d).

    Arguments:  pseudo: pseudo-counts of a 1 and of a 0 in every cell (a Beta(1 + pseudo, 1 + pseudo) prior); 0: maximum
                likelihood. Missing bits are left out, exactly.
    Raises:     DataError for values outside [0, 1].
    """

    pseudo: float = eqx.field(static=True, default=0.0)
    missing: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_pseudo("Bernoulli", self.pseudo)

    @property
    def may_fall(self) -> str:
        return ""

    def bound_to(self, rows: np.ndarray) -> "Bernoulli":
        refuse_outside("Bernoulli components", rows, 0, 1, "probabilities of bits", "bits, or a Gaussian model")
        return replaced(self, missing=bool(np.isnan(rows).any()))

    def chunk(self, d: int, n_components: int) -> int:
        return CHUNK

    def start(self, key, rows, shares):
        x, mask = observed(rows, True)
        smooth = replaced(self, pseudo=1.0, missing=True)  # away from 0 and 1, where a first step could not leave
        return smooth.m_step(None, rates(x, mask, shares))

    def evaluate(self, params, rows):
        x, mask = observed(rows, self.missing)
        off = 1 - x if mask is None else mask - x
        return x @ jnp.log(params).T + off @ jnp.log1p(-params).T, None

    def statistics(self, params, rows, known, shares):
        return rates(*observed(rows, self.missing), shares)

    def m_step(self, params, statistics):
        tiny = jnp.finfo(statistics.total.dtype).eps
        p = (statistics.total + self.pseudo) / jnp.maximum(statistics.count + 2 * self.pseudo, tiny)
        seen = statistics.count + self.pseudo > tiny
        return jnp.clip(jnp.where(seen, p, 0.5), tiny, 1 - tiny)

    def rebased(self, statistics, old, new):
        return statistics

    def log_prior(self, params):
        return self.pseudo * (jnp.log(params) + jnp.log1p(-params)).sum()

    def n_parameters(self, params):
        return params.size

    def seen(self, statistics):
        return statistics.count

    def faults(self, params, weights):
        return []

    def sample(self, params, key, which):
        return jr.bernoulli(key, params[which]).astype(params.dtype)

    def mean(self, params):
        return params


class Poisson(AbstractComponents):
    """Independent counts: p(x | k) = prod_j lambda_kj^x_j exp(-lambda_kj) / x_j!. Parameters: lambda, (K, d).

    Arguments:  pseudo: a Gamma(1 + pseudo, pseudo / mean_j) prior on each rate (mean_j of column j): `pseudo` more rows
                that hold the mean; 0: maximum likelihood.
    Raises:     DataError for negative or fractional values.
    """

    pseudo: float = eqx.field(static=True, default=0.0)
    missing: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_pseudo("Poisson", self.pseudo)

    @property
    def may_fall(self) -> str:
        return ""

    def bound_to(self, rows: np.ndarray) -> "Poisson":
        refuse_outside("Poisson components", rows, 0, np.inf, "counts", "counts, or a Gaussian model", whole=True)
        return replaced(self, missing=bool(np.isnan(rows).any()))

    def chunk(self, d: int, n_components: int) -> int:
        return CHUNK

    def start(self, key, rows, shares):
        x, mask = observed(rows, True)
        found = rates(x, mask, shares)
        typical = found.total.sum(0) / jnp.maximum(found.count.sum(0), 1.0)
        typical = jnp.maximum(typical, jnp.finfo(x.dtype).eps)
        smoothed = (found.total + typical) / (found.count + 1.0)
        return {"rate": smoothed, "typical": typical}

    def evaluate(self, params, rows):
        x, mask = observed(rows, self.missing)
        rate = params["rate"]
        seen = jnp.ones_like(x) if mask is None else mask.astype(x.dtype)
        return x @ jnp.log(rate).T - seen @ rate.T - gammaln(x + 1).sum(1)[:, None], None

    def statistics(self, params, rows, known, shares):
        return rates(*observed(rows, self.missing), shares)

    def m_step(self, params, statistics):
        eps = jnp.finfo(statistics.total.dtype).eps
        more = self.pseudo * params["typical"]
        rate = (statistics.total + more) / jnp.maximum(statistics.count + self.pseudo, eps)
        seen = statistics.count + self.pseudo > eps
        return {**params, "rate": jnp.maximum(jnp.where(seen, rate, params["typical"]), eps * params["typical"])}

    def rebased(self, statistics, old, new):
        return statistics

    def log_prior(self, params):
        rate, typical = params["rate"], params["typical"]
        return self.pseudo * (typical * jnp.log(rate) - rate).sum()

    def n_parameters(self, params):
        return params["rate"].size

    def seen(self, statistics):
        return statistics.count

    def faults(self, params, weights):
        return []

    def sample(self, params, key, which):
        return jr.poisson(key, params["rate"][which]).astype(params["rate"].dtype)

    def mean(self, params):
        return params["rate"]


class Categorical(AbstractComponents):
    """Independent codes 0, ..., C - 1 in each column. Parameters: probabilities, (K, d, C).

    Arguments:  n_codes: C; 0: one more than the largest code in the data.   pseudo: pseudo-counts of every code.
    Raises:     DataError for values that are not codes.
    """

    n_codes: int = eqx.field(static=True, default=0)
    pseudo: float = eqx.field(static=True, default=0.0)
    missing: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_pseudo("Categorical", self.pseudo)

    @property
    def may_fall(self) -> str:
        return ""

    def bound_to(self, rows: np.ndarray) -> "Categorical":
        top = self.n_codes - 1 if self.n_codes else np.inf
        refuse_outside("Categorical components", rows, 0, top, "codes of categories", "codes 0, 1, ...", whole=True)
        n_codes = self.n_codes or int(np.nanmax(rows)) + 1
        return replaced(self, n_codes=n_codes, missing=bool(np.isnan(rows).any()))

    def chunk(self, d: int, n_components: int) -> int:
        return max(1, CHUNK // max(1, self.n_codes // 16))

    def _codes(self, rows: Array) -> Array:
        """(n, d C): one-hot, all 0 where missing."""
        x = jnp.where(jnp.isnan(rows), -1.0, rows).astype(jnp.int32)
        return jax.nn.one_hot(x, self.n_codes, dtype=rows.dtype).reshape(len(rows), -1)

    def start(self, key, rows, shares):
        return replaced(self, pseudo=1.0).m_step(None, self.statistics(None, rows, None, shares))

    def evaluate(self, params, rows):
        return self._codes(rows) @ jnp.log(params).reshape(len(params), -1).T, None

    def statistics(self, params, rows, known, shares):
        return (shares.T @ self._codes(rows)).reshape(shares.shape[1], rows.shape[1], self.n_codes)

    def m_step(self, params, statistics):
        eps = jnp.finfo(statistics.dtype).eps
        p = jnp.maximum(statistics + self.pseudo, eps)
        return p / p.sum(-1, keepdims=True)

    def rebased(self, statistics, old, new):
        return statistics

    def log_prior(self, params):
        return self.pseudo * jnp.log(params).sum()

    def n_parameters(self, params):
        return params[..., 1:].size

    def seen(self, statistics):
        return statistics.sum(-1)

    def filled(self, params, rows, shares):
        """The most probable code where NaN."""
        best = jnp.einsum("nk,kdc->ndc", shares, params).argmax(-1).astype(rows.dtype)
        return jnp.where(jnp.isnan(rows), best, rows)

    def faults(self, params, weights):
        return []

    def sample(self, params, key, which):
        return jr.categorical(key, jnp.log(params[which]), axis=-1).astype(params.dtype)

    def mean(self, params):
        return (params * jnp.arange(params.shape[-1])).sum(-1)


CHUNK = 1000  # rows: measured, half the time of all rows at once


def rates(x: Array, mask: Array | None, shares: Array) -> Rates:
    """Totals and counts of each component and column."""
    total = shares.T @ x
    count = shares.sum(0)[:, None] * jnp.ones_like(total) if mask is None else shares.T @ mask.astype(x.dtype)
    return Rates(total, count)


def check_pseudo(name: str, pseudo: float) -> None:
    if not pseudo >= 0:
        because, instead = "pseudo-counts are counts", "pseudo=0.0 or more"
        raise OptionError(explain(f"`{name}(pseudo={pseudo!r})`", "it is negative", because, instead))


def refuse_outside(
    who: str, rows: np.ndarray, low: float, high: float, what: str, instead: str, whole: bool = False
) -> None:
    """DataError unless every value that is there is in [low, high] (and a whole number)."""
    with np.errstate(invalid="ignore"):
        bad = (rows < low) | (rows > high)
        if whole:
            bad |= (rows != np.floor(rows)) & ~np.isnan(rows)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        wrong = f"{int(bad.sum())} values are not {what}, the first, {rows[where]:g}, at {list(where)}"
        raise DataError(explain(f"{who} on data of shape {rows.shape}", wrong, "they have no density there", instead))
