"""The path of densities from a mixture of Gaussians to the posterior, as a model."""

import copy
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PyTree
from scipy.linalg import solve_triangular

from ..algorithms.gaussian import LOG_2PI, Gaussian, Mixture, safe_cholesky
from ..algorithms.low_rank import DENSE
from ..algorithms.target import Target
from ..models.base import AbstractModel

WIDER = 2.0  # sd of the start, in those of q, in few dimensions


class Tempered(AbstractModel):
    """log g(u) (1 - t) + log p(u) t, g a mixture of Gaussians.

    means: (K, D).   whites: inverse roots, (K, D, D) lower triangular or (K, D).   log_weights: (K,), with -log |root|.
    """

    model: AbstractModel
    means: Float[Array, "K D"]
    whites: Float[Array, "..."]
    log_weights: Float[Array, " K"]
    t: Float[Array, ""]

    @property
    def facts(self):
        return self.model.facts

    @property
    def plated(self):
        return self.model.plated

    @property
    def latents(self):
        return self.model.latents

    def log_density(self, z, x):
        centred = ravel_pytree(z)[0] - self.means
        white = centred * self.whites if self.whites.ndim == 2 else jnp.einsum("kij,kj->ki", self.whites, centred)
        base = logsumexp(self.log_weights - 0.5 * (white**2).sum(1))
        return self.t * self.model.log_density(z, x) + (1 - self.t) * base

    def constrain(self, z: PyTree) -> PyTree:
        return self.model.constrain(z)


def widened(q: Any, seed: int) -> Mixture:
    """q with every component wider in all directions; light components weigh more, so that none is lost by chance."""
    if isinstance(q, Mixture):
        parts, weights = [_plain(c, seed) for c in q.components], (q.weights + 1 / len(q.weights)) / 2
    else:
        parts, weights = [_plain(q, seed)], np.ones(1)
    # in many dimensions every bit of width costs temperatures
    wider = 1 + (WIDER - 1) * min(1.0, math.sqrt(5 / q.dim))
    return Mixture(tuple(Gaussian(c.mean, c.root * wider) for c in parts), weights)


def _plain(q: Any, seed: int) -> Gaussian:
    """The Gaussian with q's moments: diagonal in many dimensions."""
    if isinstance(q, Gaussian):
        return q
    if hasattr(q, "mean") and hasattr(q, "sd"):
        return Gaussian(q.mean, q.sd if q.dim > DENSE else q.root)
    u = q.sample(np.random.default_rng([seed, 42]), max(4096, 8 * q.dim))
    return Gaussian(u.mean(0), u.std(0) if q.dim > DENSE else safe_cholesky(np.atleast_2d(np.cov(u.T))))


def mean_root(base: Mixture) -> np.ndarray:
    """Root of the mean of the components' covariances: the width of one of them."""
    if any(q.diagonal for q in base.components):
        return np.sqrt(sum(w * q.sd**2 for w, q in zip(base.weights, base.components, strict=True)))
    return safe_cholesky(
        np.asarray(sum(w * q.root @ q.root.T for w, q in zip(base.weights, base.components, strict=True)))
    )


def on_path(target: Target, base: Mixture) -> Target:
    """A target whose density is g^(1 - t) p^t, g the mixture; it shares the budget of `target`. Begins at t = 0."""
    view = copy.copy(target)
    parts = (
        np.array([q.mean for q in base.components]),
        np.array([_inverse(q) for q in base.components]),
        np.array([np.log(w) - q.log_det - 0.5 * q.dim * LOG_2PI for w, q in zip(base.weights, base.components, strict=True)]),
        np.array(0.0),
    )  # fmt: skip
    view.model = view.traced = Tempered(target.traced, *(jnp.asarray(p, float) for p in parts))
    return view


def set_temperature(view: Target, t: float) -> None:
    """Moves a target of `on_path` to temperature t; compiles nothing."""
    view.model = view.traced = eqx.tree_at(lambda m: m.t, view.traced, jnp.asarray(t, float))


def _inverse(q: Gaussian) -> np.ndarray:
    return 1 / q.root if q.diagonal else solve_triangular(q.root, np.eye(q.dim), lower=True)
