"""Planar and radial flows: layers with so few parameters that an encoder can compute them."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..tree import default_float
from .composite import Composite, over_minus_one, solve_tanh, square
from .full_rank import FullRank
from .mean_field import MeanField
from .warped import FLOW, AbstractFlow, start_arrays, start_base


class PlanarArrays(eqx.Module):
    """Of all layers."""

    u: Float[Array, "L D"]
    w: Float[Array, "L D"]
    b: Float[Array, " L"]


class Planar(AbstractFlow):
    """Planar flow.

    Definition: z = mu + L T(eps); T of `n_layers` layers x -> x + v tanh(w.x + b), v = u + (m(w.u) - w.u) w / |w|^2 with
                m > -1, so that w.v = m(w.u) > -1: each layer is invertible, and the identity at u = 0.
                log det = log(1 + (1 - tanh^2) w.v).
    Arguments:  shape: the latents' shape or tree of shapes (at least 2 coordinates); left out, it is the model's.
                n_layers.   loc, scale, cholesky, diagonal: of the Gaussian, as for `RealNVP`.
    Facts:      under `Amortised` an encoder computes u, w, b of every layer: 2 D + 1 numbers each.
    Cost:       O(D) a layer for a draw with its log q. The density of a given draw: one scalar equation a layer, solved by
                bisection.
    Reference:  Rezende and Mohamed (2015), section 4.1 and appendix A.  [rezende2015flows]
    """

    base: FullRank | MeanField
    arrays: PlanarArrays
    n_layers: int = eqx.field(static=True)
    facts: ClassVar = FLOW

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 8, loc: PyTree = None, scale: PyTree = 0.1,
        cholesky: Array | None = None, diagonal: bool = False,
    ):  # fmt: skip
        check_layers("Planar", n_layers)
        self.n_layers = n_layers
        self.base = start_base("Planar", shape, loc, scale, cholesky, diagonal)
        self.arrays = start_arrays(self)

    def begin(self, key, dim):
        dtype, n = default_float(), self.n_layers
        w = jr.normal(key, (n, dim), dtype) / dim**0.5
        return PlanarArrays(jnp.zeros((n, dim), dtype), w, jnp.zeros(n, dtype))

    def map(self):
        u, w, b = self.arrays.u, self.arrays.w, self.arrays.b
        now = (u * w).sum(-1)
        slope = over_minus_one(now)
        v = u + ((slope - now) / square(w))[:, None] * w
        return Composite((v, w, b, slope), _planar, _planar_back)


def _planar(layer, x):
    v, w, b, slope = layer
    h = jnp.tanh(w @ x + b)
    return x + v * h, jnp.log1p((1 - h * h) * slope)


def _planar_back(layer, y):
    """w.y = a + w.v tanh(a + b) for a = w.x."""
    v, w, b, slope = layer
    a = solve_tanh(slope, jnp.ones_like(b), b, w @ y)
    return y - v * jnp.tanh(a + b)


class RadialArrays(eqx.Module):
    """Of all layers."""

    centre: Float[Array, "L D"]
    log_width: Float[Array, " L"]
    strength: Float[Array, " L"]


class Radial(AbstractFlow):
    """Radial flow.

    Definition: as `Planar`, with layers x -> x + beta (x - c) / (alpha + r), r = |x - c|, alpha = e^log_width,
                beta = alpha m(strength) > -alpha: each layer is invertible, and the identity at strength = 0.
                log det = (D - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2).
    Arguments:  as for `Planar`.
    Facts:      under `Amortised` an encoder computes D + 2 numbers a layer.
    Cost:       O(D) a layer, either way: the inverse is in closed form.
    Reference:  Rezende and Mohamed (2015), section 4.1 and appendix A.  [rezende2015flows]
    """

    base: FullRank | MeanField
    arrays: RadialArrays
    n_layers: int = eqx.field(static=True)
    facts: ClassVar = FLOW

    def __init__(
        self, shape: PyTree = None, *, n_layers: int = 8, loc: PyTree = None, scale: PyTree = 0.1,
        cholesky: Array | None = None, diagonal: bool = False,
    ):  # fmt: skip
        check_layers("Radial", n_layers)
        self.n_layers = n_layers
        self.base = start_base("Radial", shape, loc, scale, cholesky, diagonal)
        self.arrays = start_arrays(self)

    def begin(self, key, dim):
        dtype, n = default_float(), self.n_layers
        return RadialArrays(jr.normal(key, (n, dim), dtype), jnp.zeros(n, dtype), jnp.zeros(n, dtype))

    def map(self):
        a = self.arrays
        alpha = jnp.exp(a.log_width)
        return Composite((a.centre, alpha, alpha * over_minus_one(a.strength)), _radial, _radial_back)


def _radial(layer, x):
    centre, alpha, beta = layer
    offset = x - centre
    near = 1 / (alpha + _norm(offset))
    log_det = (x.size - 1) * jnp.log1p(beta * near) + jnp.log1p(alpha * beta * near**2)
    return x + beta * near * offset, log_det


def _radial_back(layer, y):
    """|y - c| = r (1 + beta / (alpha + r)): a quadratic for r, of whose roots one is positive. Without cancellation: the
    form of it where no two terms of opposite sign are added."""
    centre, alpha, beta = layer
    offset = y - centre
    R = _norm(offset)
    p = alpha + beta - R  # r^2 + p r - alpha R = 0
    q = jnp.sqrt(p * p + 4 * alpha * R)
    r = jnp.where(p > 0, 2 * alpha * R / (q + jnp.abs(p)), 0.5 * (q - p))
    return centre + offset / (1 + beta / (alpha + r))


def _norm(v: Array) -> Array:
    """|v|, with derivative 0 at 0."""
    return jnp.sqrt(jnp.maximum((v * v).sum(), jnp.finfo(v.dtype).tiny))


def check_layers(name: str, n_layers: int) -> None:
    """Raises: OptionError for fewer than one layer."""
    if n_layers < 1:
        asked = f"`{name}(n_layers={n_layers})`"
        raise OptionError(explain(asked, "it is below 1", "it is a count", "n_layers=1 or more"))
