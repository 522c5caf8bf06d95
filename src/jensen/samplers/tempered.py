"""The path of densities from a mixture of Gaussians to the posterior, as a model."""

import copy

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, PyTree
from scipy.linalg import solve_triangular

from ..algorithms.gaussian import LOG_2PI, Gaussian, Mixture
from ..algorithms.target import Target
from ..models.base import AbstractModel


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


def on_path(target: Target, base: Mixture) -> Target:
    """A target whose density is g^(1 - t) p^t, g the mixture; it shares the budget of `target`. Begins at t = 0."""
    view = copy.copy(target)
    parts = (
        np.array([q.mean for q in base.components]),
        np.array([_inverse(q) for q in base.components]),
        np.array([np.log(w) - q.log_det - 0.5 * q.dim * LOG_2PI for w, q in zip(base.weights, base.components, strict=True)]),
        np.array(0.0),
    )  # fmt: skip
    view.model = Tempered(target.model, *(jnp.asarray(p, float) for p in parts))
    return view


def set_temperature(view: Target, t: float) -> None:
    """Moves a target of `on_path` to temperature t; compiles nothing."""
    view.model = eqx.tree_at(lambda m: m.t, view.model, jnp.asarray(t, float))


def _inverse(q: Gaussian) -> np.ndarray:
    return 1 / q.root if q.diagonal else solve_triangular(q.root, np.eye(q.dim), lower=True)
