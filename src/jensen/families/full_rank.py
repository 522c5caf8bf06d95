"""Full-rank Gaussian."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..facts import Fact
from ..tree import Layout, default_float, replaced
from .base import PLAIN, UNSIZED, AbstractPlain
from .gaussian import check_scale, gaussian_entropy, log_normal_from_noise, sized, start_log_scale, start_scale
from .noise import StandardNormal


class FullRank(AbstractPlain):
    """Gaussian with a full covariance, by its Cholesky factor.

    Definition: q(z) = N(z; mu, L L^T), L = diag(e^s) (I + strictly lower part of `lower`).
    Arguments:  shape, loc, scale: as for `MeanField`; the starting covariance is scale^2 I.
    Cost:       O(D^2) a draw and D (D + 3) / 2 parameters: use `LowRank` above a few hundred latents.
    Reference:  Titsias and Lazaro-Gredilla (2014); Kucukelbir et al. (2017).  [kucukelbir2017advi]
    """

    loc: Float[Array, " D"]
    log_scale: Float[Array, " D"]
    lower: Float[Array, "D D"]
    layout: Layout = eqx.field(static=True)
    start: float = eqx.field(static=True)
    facts: ClassVar = PLAIN | {Fact.REPARAMETERISED, Fact.ENTROPY, Fact.MOMENTS}

    def __init__(self, shape: PyTree = None, *, loc: PyTree = None, scale: PyTree = 0.1):
        check_scale("FullRank", scale)
        self.start = start_scale(scale)
        self.layout = UNSIZED if shape is None else Layout(shape)
        self.loc = self.log_scale = self.lower = UNSIZED
        if self.layout is not None:
            dtype, n = default_float(), self.layout.size
            self.loc = jnp.zeros(n, dtype) if loc is None else self.layout.ravel(loc).astype(dtype)
            self.log_scale = start_log_scale(self.layout, scale, dtype)
            self.lower = jnp.zeros((n, n), dtype)

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        layout = sized("FullRank", self.layout, latents)
        return self if self.layout else replaced(self, **vars(FullRank(layout.shape_tree(), scale=self.start)))

    def _apply(self, eps):
        """L eps, with the row scale outside so that one step size suits rows of any scale."""
        return jnp.exp(self.log_scale) * (eps + jnp.tril(self.lower, -1) @ eps)

    def cholesky(self) -> Float[Array, "D D"]:
        """L."""
        return jnp.exp(self.log_scale)[:, None] * (jnp.eye(self.log_scale.shape[0]) + jnp.tril(self.lower, -1))

    def noise_law(self):
        return StandardNormal(self.loc.shape)

    def transform(self, noise):
        return self.layout.unravel(self.loc + self._apply(noise))

    def transform_and_log_ratio(self, noise):
        return self.transform(noise), log_normal_from_noise(noise, self.log_scale)

    def log_prob(self, draw):
        centred = (self.layout.ravel(draw) - self.loc) * jnp.exp(-self.log_scale)
        unit = jnp.eye(self.log_scale.shape[0], dtype=centred.dtype) + jnp.tril(self.lower, -1)
        eps = jax.scipy.linalg.solve_triangular(unit, centred, lower=True, unit_diagonal=True)
        return log_normal_from_noise(eps, self.log_scale)

    def entropy(self):
        return gaussian_entropy(self.log_scale)

    def moments(self):
        return self.layout.unravel(self.loc), self.layout.unravel((self.cholesky() ** 2).sum(1))
