"""What EM needs of a model: a start, an E-step whose statistics add over rows, and an M-step."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

HARDLY = 0.5  # rows' worth of evidence below which there was none


class Moments(NamedTuple):
    """Weighted moments of K components about a point a_k each.

    weight: sum_n r_nk, (K,).   first: sum_n r_nk (x_n - a_k), (K, d).
    second: sum_n r_nk (x_n - a_k)(x_n - a_k)', (K, d, d), or its diagonals, (K, d).
    seen: sum_n r_nk of the rows in which both entries of `second` are there, in its shape; None where all are.
    """

    weight: Array
    first: Array
    second: Array
    seen: Array | None = None

    def moved(self, step: Float[Array, "K d"]) -> "Moments":
        """The same sums about a_k + step_k: exact, without the rows."""
        weight = self.weight[:, None]
        if self.second.ndim == 2:
            second = self.second - 2 * self.first * step + weight * step**2
        else:
            cross = self.first[:, :, None] * step[:, None, :]
            second = self.second - cross - jnp.swapaxes(cross, 1, 2)
            second = second + weight[..., None] * step[:, :, None] * step[:, None, :]
        return Moments(self.weight, self.first - weight * step, second, self.seen)


class AbstractEM(eqx.Module):
    """A latent-variable model that is fitted by expectation maximisation (`jensen.em`).

    Definition: F(q, theta) = E_q[log p(x, z | theta)] + H(q) <= log p(x | theta). The E-step maximises F over q, and
                returns what of it the M-step needs: statistics that are sums over rows. The M-step maximises F over theta.
    How to implement one: write the methods below on plain arrays. `rows` are (n, ...), `weights` (n,), 0 on padding;
    missing entries are NaN. Nothing here loops over chunks, starts or iterations: that is the driver's.
    Reference:  Dempster, Laird and Rubin (1977); Neal and Hinton (1998) for F.  [dempster1977em; neal1998view]
    """

    default_method: ClassVar[str] = "em"

    @property
    @abc.abstractmethod
    def ndim(self) -> int:
        """Axes of the data: 2 for rows, 3 for sequences."""

    @property
    @abc.abstractmethod
    def several_optima(self) -> bool:
        """Whether one start may end at a poorer optimum than another."""

    @property
    @abc.abstractmethod
    def least_rows(self) -> int:
        """Rows (of sequences: steps) below which there is nothing to fit."""

    @property
    @abc.abstractmethod
    def may_fall(self) -> str:
        """Why an iteration may lower the objective, or "" where none may."""

    @abc.abstractmethod
    def bound_to(self, rows: np.ndarray) -> "AbstractEM":
        """The model for these rows: told whether values are missing. Raises DataError for rows it has no density for."""

    @abc.abstractmethod
    def chunk(self, shape: tuple[int, ...]) -> int:
        """Rows worked on at once, for data of this shape: what fits the processor's cache."""

    @abc.abstractmethod
    def collapsed(self, rows: Array, weights: Array) -> PyTree | None:
        """All that the E-step needs of the rows, with a leading axis of 1, where that is less than the rows."""

    @abc.abstractmethod
    def start(self, key: Key[Array, ""], rows: Array, random: Bool[Array, ""]) -> PyTree:
        """First parameters, from some rows: by k-means or the like, or at random."""

    def starts(self, keys: Key[Array, " S"], rows: Array, random: Bool[Array, " S"], before: Array) -> PyTree:
        """First parameters of S starts at once, after so many `before`; leaves lead with the starts."""
        return jax.vmap(lambda key, at_random: self.start(key, rows, at_random))(keys, random)

    @abc.abstractmethod
    def e_step(self, params: PyTree, rows: PyTree, weights: Array) -> tuple[Float[Array, ""], PyTree]:
        """(log p(rows | params), or a bound on it, in nats; the statistics): sums over rows, with these weights."""

    @abc.abstractmethod
    def m_step(self, params: PyTree, statistics: PyTree) -> PyTree:
        """Parameters that maximise F, given the statistics collected under `params`."""

    @abc.abstractmethod
    def rebased(self, statistics: PyTree, old: PyTree, new: PyTree) -> PyTree:
        """Statistics that were collected about `old` parameters, about `new` ones (stochastic EM mixes the two)."""

    @abc.abstractmethod
    def log_prior(self, params: PyTree) -> Float[Array, ""]:
        """What the M-step maximises besides the likelihood, nats; 0 for maximum likelihood."""

    @abc.abstractmethod
    def n_parameters(self, params: PyTree) -> int:
        """Free parameters: what BIC and AIC count."""

    @abc.abstractmethod
    def faults(self, params: PyTree) -> list[tuple[int, str]]:
        """What is wrong with fitted parameters: (1 doubtful or 2 unreliable, a sentence)."""

    def uninformed(self, params: PyTree, statistics: PyTree) -> list[tuple[int, str]]:
        """Parameters that the data said nothing of: (0 or 1: doubtful, a sentence that names them).

        statistics: of the last E-step, in rows (divided by the mean weight of one). A sum below `HARDLY` is none.
        """
        return []

    @abc.abstractmethod
    def log_prob(self, params: PyTree, rows: Array) -> Float[Array, " n"]:
        """log p(row | params) of each, nats."""

    @abc.abstractmethod
    def posterior(self, params: PyTree, rows: Array) -> Any:
        """What the latents of each row are, given the row."""

    @abc.abstractmethod
    def sample(self, params: PyTree, key: Key[Array, ""], n: int) -> Any:
        """(rows, latents) drawn from the model."""


def observed(rows: Array, missing: bool) -> tuple[Array, Array | None]:
    """(rows with 0 where NaN, mask of what is there); (rows, None) where nothing is missing."""
    if not missing:
        return rows, None
    mask = ~jnp.isnan(rows)
    return jnp.where(mask, rows, 0.0), mask


def listed(numbers: np.ndarray) -> str:
    """Up to five indices, in words."""
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


def column_moments(rows: Array) -> tuple[Array, Array, Array]:
    """(means, variances, rows with the means in place of NaN): columns that do not vary get variance 1."""
    mean = jnp.nan_to_num(jnp.nanmean(rows, 0))
    filled = jnp.where(jnp.isnan(rows), mean, rows)
    variance = jnp.nan_to_num(jnp.nanvar(rows, 0))
    eps = jnp.finfo(rows.dtype).eps
    return mean, jnp.where(variance > (eps * mean) ** 2, variance, 1.0), filled
