"""Sinh-arcsinh normals: skewed, and with tails lighter or heavier than a normal's."""

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..facts import Fact
from ..tree import Layout, default_float, replaced
from .base import PLAIN, UNSIZED, AbstractPlain
from .gaussian import LOG_2PI, check_scale, sized, start_log_scale, start_scale
from .noise import StandardNormal


class SinhArcsinh(AbstractPlain):
    """Independent sinh-arcsinh normals.

    Definition: z_d = loc_d + scale_d sinh((asinh(eps_d) + skew_d) / tail_d), eps ~ N(0, I); skew = 0, tail = 1 is a normal,
                skew > 0 leans to the right, tail < 1 has heavier tails.
    Arguments:  shape: the latents' shape or tree of shapes; left out, the model's.   scale: starting value, > 0.
    Facts:      REPARAMETERISED, NORMAL_SCORES: it may be a marginal of `GaussianCopula`.
    Cost:       O(D) a draw.
    Reference:  Jones and Pewsey (2009).  [jones2009sinh]
    """

    loc: Float[Array, " D"]
    log_scale: Float[Array, " D"]
    skew: Float[Array, " D"]
    log_tail: Float[Array, " D"]
    layout: Layout = eqx.field(static=True)
    start: float = eqx.field(static=True)
    facts: ClassVar = PLAIN | {Fact.REPARAMETERISED, Fact.INDEPENDENT_COORDINATES, Fact.NORMAL_SCORES}

    def __init__(self, shape: PyTree = None, *, scale: PyTree = 0.1):
        check_scale("SinhArcsinh", scale)
        self.start, self.layout = start_scale(scale), UNSIZED if shape is None else Layout(shape)
        self.loc = self.log_scale = self.skew = self.log_tail = UNSIZED
        if self.layout is not None:
            dtype = default_float()
            self.loc = self.skew = self.log_tail = jnp.zeros(self.layout.size, dtype)
            self.log_scale = start_log_scale(self.layout, scale, dtype)

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        layout = sized("SinhArcsinh", self.layout, latents)
        return self if self.layout else replaced(self, **vars(SinhArcsinh(layout.shape_tree(), scale=self.start)))

    def noise_law(self):
        return StandardNormal(self.loc.shape)

    def transform(self, noise):
        return self.from_normal(noise)

    def from_normal(self, scores: Array) -> PyTree:
        w = (jnp.arcsinh(jnp.ravel(scores)) + self.skew) * jnp.exp(-self.log_tail)
        return self.layout.unravel(self.loc + jnp.exp(self.log_scale) * jnp.sinh(w))

    def to_normal(self, draw: PyTree) -> Float[Array, " D"]:
        return jnp.sinh(jnp.exp(self.log_tail) * self._bent(draw) - self.skew)

    def _bent(self, draw: PyTree) -> Float[Array, " D"]:
        return jnp.arcsinh((self.layout.ravel(draw) - self.loc) * jnp.exp(-self.log_scale))

    def log_probs(self, draw: PyTree) -> Float[Array, " D"]:
        """log N(eps) + log d eps / dz; d eps / dw = tail cosh(tail w - skew), dw / dz = 1 / (scale cosh w)."""
        w = self._bent(draw)
        inner = jnp.exp(self.log_tail) * w - self.skew
        log_slope = self.log_tail + _log_cosh(inner) - _log_cosh(w) - self.log_scale
        return -0.5 * jnp.sinh(inner) ** 2 - 0.5 * LOG_2PI + log_slope

    def log_prob(self, draw):
        return self.log_probs(draw).sum()


def _log_cosh(a: Array) -> Array:
    return jnp.logaddexp(a, -a) - math.log(2)
