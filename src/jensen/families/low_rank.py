"""Low-rank-plus-diagonal Gaussian."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..facts import Fact
from ..tree import Layout, default_float, replaced
from .base import PLAIN, UNSIZED, AbstractPlain
from .gaussian import LOG_2PI, check_scale, sized, start_log_scale, start_scale
from .noise import StandardNormal


class LowRank(AbstractPlain):
    """Gaussian whose covariance is diagonal plus low rank.

    Definition: q(z) = N(z; mu, S (I + F F^T) S), S = diag(sigma), F of shape (D, rank).
    Arguments:  shape, loc, scale: as for `MeanField`.   rank: columns of F, 1 to D (default: about sqrt(D)).
    Cost:       O(D rank^2) a draw.
    Reference:  Ong, Nott and Smith (2018).  [ong2018factor]
    """

    loc: Float[Array, " D"]
    log_scale: Float[Array, " D"]
    factor: Float[Array, "D R"]
    layout: Layout = eqx.field(static=True)
    start: float = eqx.field(static=True)
    rank: int | None = eqx.field(static=True)
    facts: ClassVar = PLAIN | {Fact.REPARAMETERISED, Fact.ENTROPY, Fact.MOMENTS}

    def __init__(self, shape: PyTree = None, *, rank: int | None = None, loc: PyTree = None, scale: PyTree = 0.1):
        check_scale("LowRank", scale)
        if rank is not None and rank < 1:
            asked = f"`LowRank(rank={rank})`"
            raise OptionError(explain(asked, "the rank is below 1", "F needs a column", "MeanField(), or rank=1"))
        self.start, self.rank = start_scale(scale), rank
        self.layout = UNSIZED if shape is None else Layout(shape)
        self.loc = self.log_scale = self.factor = UNSIZED
        if self.layout is not None:
            dtype, n = default_float(), self.layout.size
            self.rank = min(n, rank if rank is not None else max(1, round(n**0.5)))
            self.loc = jnp.zeros(n, dtype) if loc is None else self.layout.ravel(loc).astype(dtype)
            self.log_scale = start_log_scale(self.layout, scale, dtype)
            # exactly zero is a saddle of the bound: start with small fixed values
            self.factor = 0.01 * jr.normal(jr.key(0), (n, self.rank), dtype)

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        layout = sized("LowRank", self.layout, latents)
        if self.layout is not None:
            return self
        return replaced(self, **vars(LowRank(layout.shape_tree(), rank=self.rank, scale=self.start)))

    def _capacity(self):
        """C = I + F^T F, by which |I + F F^T| = |C| and (I + F F^T)^-1 = I - F C^-1 F^T (Woodbury)."""
        return jnp.eye(self.factor.shape[1], dtype=self.factor.dtype) + self.factor.T @ self.factor

    def _log_det(self, chol):
        return self.log_scale.sum() + jnp.log(jnp.diagonal(chol)).sum()

    def noise_law(self):
        return StandardNormal(self.loc.shape), StandardNormal(self.factor.shape[1:])

    def transform(self, noise):
        own, shared = noise
        return self.layout.unravel(self.loc + jnp.exp(self.log_scale) * (own + self.factor @ shared))

    def log_prob(self, draw):
        centred = (self.layout.ravel(draw) - self.loc) * jnp.exp(-self.log_scale)
        chol = jnp.linalg.cholesky(self._capacity())
        half = jax.scipy.linalg.solve_triangular(chol, self.factor.T @ centred, lower=True)
        quadratic = (centred**2).sum() - (half**2).sum()
        return -0.5 * quadratic - self._log_det(chol) - 0.5 * centred.size * LOG_2PI

    def entropy(self):
        return self._log_det(jnp.linalg.cholesky(self._capacity())) + 0.5 * self.loc.size * (1 + LOG_2PI)

    def moments(self):
        variance = jnp.exp(2 * self.log_scale) * (1 + (self.factor**2).sum(1))
        return self.layout.unravel(self.loc), self.layout.unravel(variance)
