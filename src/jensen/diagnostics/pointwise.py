"""log p(y_i | z) of each observation under each draw, in blocks that fit in memory."""

import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PyTree

from ..compiled import compiled
from ..errors import ModelError, explain
from ..function import Static

HELD = 2**25  # log-likelihoods held at once: 256 MiB
MADE = 2**22  # log-likelihoods computed in one call


def in_precision_of(draws: PyTree) -> Any:
    """The context in which draws are as precise as they were made: `with in_precision_of(fit.draws): ...`."""
    return jax.enable_x64(any(np.asarray(a).dtype == np.float64 for a in jax.tree.leaves(draws)))


def is_of_sites(model: Any) -> bool:
    """Has the model named observed sites (NumPyro), rather than rows?"""
    return hasattr(model, "observed")


class Pointwise:
    """The pointwise log-likelihood of a fit's draws.

    Arguments:  fit: of a NumPyro model (every element of every observed site is an observation, but those under a
                mask), or of a log density with `log_likelihood=`.
    Raises:     ModelError where the model has no pointwise likelihood.
    Cost:       the log-likelihood of all draws; over again for each 2^25 of them where the model gives all at once.
    """

    def __init__(self, fit: Any):
        self.model, self.rows = _supported(fit), None
        with in_precision_of(fit.draws):
            self.draws = jax.tree.map(jnp.asarray, fit.draws)
        self.n_draws = len(fit.log_p)
        self.of_sites = is_of_sites(self.model)
        if self.of_sites:
            self.counts = _counts(self.model)
        else:
            self.rows = fit.rows
            self.counts = np.ones(len(jax.tree.leaves(self.rows)[0]), bool)

    @property
    def n(self) -> int:
        """The number of observations."""
        return int(self.counts.sum())

    def blocks(self) -> Iterator[tuple[slice, Float[np.ndarray, "n S"]]]:
        """(which observations, their log-likelihood under each draw, float64), until all have been seen."""
        step = max(1, HELD // self.n_draws)
        if self.of_sites:
            where = np.flatnonzero(self.counts)
            for a in range(0, self.n, step):
                yield slice(a, min(a + step, self.n)), self._evaluate(None, where[a : a + step], self.counts.size)
            return
        step = min(step, MADE)
        for a in range(0, self.n, step):
            rows = jax.tree.map(lambda r, a=a: r[a : a + step], self.rows)
            n = len(jax.tree.leaves(rows)[0])
            yield slice(a, a + n), self._evaluate(rows, np.arange(n), n)

    def _evaluate(self, rows: PyTree, columns: np.ndarray, n: int) -> np.ndarray:
        """(observations, draws); the draws in blocks of a power of two, so that the last one has their shape too."""
        arrays, static = eqx.partition(self.model, eqx.is_array)
        static, many = Static(static), 2 ** int(math.log2(max(1, min(self.n_draws, MADE // n))))
        out = np.empty((columns.size, self.n_draws))
        with in_precision_of(self.draws):
            for a in range(0, self.n_draws, many):
                z = jax.tree.map(lambda v, a=a: v[a : a + many], self.draws)
                out[:, a : a + many] = np.asarray(_log_likelihood(static, arrays, z, rows))[:, columns].T
        return out


@compiled(0)
def _log_likelihood(static: Static, arrays: Any, z: PyTree, rows: PyTree) -> jax.Array:
    model = eqx.combine(arrays, static.tree)

    def one(z):
        if rows is not None:
            return model.log_likelihood_per_row(z, rows)
        return jnp.concatenate([a.reshape(-1) for a in _sites(model.log_likelihood(z))])

    return jax.vmap(one)(z)


def _sites(values: dict[str, Any]) -> list:
    """In the order of their names: compiled code returns dictionaries sorted."""
    return [values[n] for n in sorted(values)]


def observed_of(model: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Observed site -> (its value, which of its elements are observations rather than masked)."""
    if isinstance(model.observed, dict):
        return {n: (np.asarray(a), np.asarray(True)) for n, a in model.observed.items()}
    from ..models.adapters.numpyro_simulate import observed_values

    return {n: (o.value, o.counts) for n, o in observed_values(model).items()}


def _counts(model: Any) -> Bool[np.ndarray, " N"]:
    """Which elements of the observed sites are observations."""
    z = model.init_z() if hasattr(model, "init_z") else model.latents
    shapes, seen = jax.eval_shape(model.log_likelihood, z), observed_of(model)
    return np.concatenate(_sites({n: np.broadcast_to(seen[n][1], a.shape).ravel() for n, a in shapes.items()}))


def _supported(fit: Any) -> Any:
    model, because = fit.model, "each observation is left out in turn, by its own term log p(y_i | z)"
    instead = "a NumPyro model, or LogDensity(prior, shape, log_likelihood=fn(z, row)) fitted to rows"
    if model is None:
        wrong, instead = "this fit was loaded without its model", "load(folder, model=...)"
    elif fit.draws is None:
        wrong, instead = "the draws were not kept", "a fit of its own, not a loaded one"
    elif fit.plated:
        wrong = "every row has a latent of its own, so leaving a row out leaves nothing of its latent"
        instead = "fit.log_evidence: with the model's parameters fixed, the rows are independent"
    elif hasattr(model, "log_likelihood_per_row") and getattr(model, "log_likelihood", None) is None:
        wrong = "its log density is one function of all data"
    elif hasattr(model, "log_likelihood_per_row") and fit.rows is None:
        wrong, instead = "this fit was loaded without its data", "load(folder, model=..., data=...)"
    elif not getattr(model, "log_likelihood", None):
        wrong = f"a {type(model).__name__} has no log_likelihood"
    elif hasattr(model, "observed") and not model.observed:
        wrong = "it observes no site; factors are not observations"
    else:
        return model
    raise ModelError(explain("the pointwise log-likelihood", wrong, because, instead))
