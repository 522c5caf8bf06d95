"""Mean-field Gaussian."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..facts import Fact
from ..tree import Layout, default_float, replaced
from .base import PLAIN, UNSIZED, AbstractPlain
from .gaussian import (
    check_scale,
    expected_log_normal,
    gaussian_entropy,
    log_normal_from_noise,
    sized,
    start_log_scale,
    start_scale,
)
from .noise import StandardNormal, Uniform
from .weak import normal, one_by_one

_BY_COORDINATE = {Fact.INDEPENDENT_COORDINATES, Fact.WEAK_DERIVATIVE}


class MeanField(AbstractPlain):
    """Mean-field (diagonal) Gaussian.

    Definition: q(z) = prod_d N(z_d; mu_d, sigma_d^2).
    Arguments:  shape: the latents' shape or tree of shapes; left out, it is the model's.
                loc: starting means, a tree like the latents (default 0).   scale: starting sd, > 0 (default 0.1), a number or a
                tree like the latents.
    Cost:       O(D) a draw.
    Reference:  Jordan et al. (1999); Kucukelbir et al. (2017), section 2.4.  [kucukelbir2017advi]
    """

    loc: Float[Array, " D"]
    log_scale: Float[Array, " D"]
    layout: Layout = eqx.field(static=True)
    start: float = eqx.field(static=True)
    facts: ClassVar = PLAIN | {Fact.REPARAMETERISED, Fact.ENTROPY, Fact.MOMENTS, Fact.MOMENT_LOG_PROB} | _BY_COORDINATE

    def __init__(self, shape: PyTree = None, *, loc: PyTree = None, scale: PyTree = 0.1):
        check_scale("MeanField", scale)
        if shape is None and loc is not None:
            shape = jnp.shape(loc) if not isinstance(loc, dict) else {k: jnp.shape(v) for k, v in loc.items()}
        self.start = start_scale(scale)
        self.layout = UNSIZED if shape is None else Layout(shape)
        self.loc = self.log_scale = UNSIZED
        if self.layout is not None:
            dtype = default_float()
            self.loc = jnp.zeros(self.layout.size, dtype) if loc is None else self.layout.ravel(loc).astype(dtype)
            self.log_scale = start_log_scale(self.layout, scale, dtype)

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        layout = sized("MeanField", self.layout, latents)
        return self if self.layout else replaced(self, **vars(MeanField(layout.shape_tree(), scale=self.start)))

    def noise_law(self):
        return StandardNormal(self.loc.shape)

    def transform(self, noise):
        return self.layout.unravel(self.loc + jnp.exp(self.log_scale) * noise)

    def transform_and_log_ratio(self, noise):
        return self.transform(noise), log_normal_from_noise(noise, self.log_scale)

    def log_prob(self, draw):
        eps = (self.layout.ravel(draw) - self.loc) * jnp.exp(-self.log_scale)
        return log_normal_from_noise(eps, self.log_scale)

    def weak_noise_law(self):
        return Uniform((2, self.loc.shape[0]))

    def weak_derivatives(self, draw, noise):
        flat = self.layout.ravel(draw)
        new, weights = normal(flat, self.loc, self.log_scale, noise)
        return jax.vmap(self.layout.unravel)(one_by_one(flat, new)), weights.reshape(-1)

    def entropy(self):
        return gaussian_entropy(self.log_scale)

    def moments(self):
        return self.layout.unravel(self.loc), self.layout.unravel(jnp.exp(2 * self.log_scale))

    def expected_log_prob(self, mean, variance):
        """E log q(z) for z with these marginal moments: what makes it a prior with a closed-form KL."""
        ravel = self.layout.ravel
        return expected_log_normal(ravel(mean), ravel(variance), self.loc, self.log_scale)
