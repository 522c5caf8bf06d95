"""The path of a von Mises draw: how an angle moves with the concentration."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e, i1e
from jaxtyping import Array

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_REACH = 9.0  # in units of 1 / sqrt(concentration): beyond it the density is below e^-40 of that at the angle


@jax.custom_jvp
def on_path(angle: Array, concentration: Array) -> Array:
    """A centred angle in [-pi, pi], moving with the concentration so that its CDF stays: d angle / d k = -(dF/dk) / p."""
    return angle


@on_path.defjvp
def _(primals, tangents):
    angle, k = primals
    return angle, tangents[0] + _slope(angle, k) * tangents[1]


def _slope(angle: Array, k: Array) -> Array:
    """-(dF/dk) / p at the angle, F the CDF of exp(k cos t) / (2 pi I_0(k)).

    dF/dk = int_0^angle p(t) (cos t - A) dt, A = I_1 / I_0 (F(0) = 1/2 for all k). The integrand changes sign once, where
    cos t = A, and its integral to pi is 0: integrated inwards before that angle and outwards after it, nothing cancels.
    """
    mean = i1e(k) / i0e(k)
    x = jnp.abs(angle)
    inner = jnp.cos(x) > mean
    low = jnp.where(inner, 0.0, x)
    high = jnp.where(inner, x, jnp.minimum(jnp.pi, x + _REACH / jnp.sqrt(k)))
    t = low[..., None] + (high - low)[..., None] * (1 + _NODES) / 2
    ratio = jnp.exp(k[..., None] * (jnp.cos(t) - jnp.cos(x)[..., None]))  # p(t) / p(angle)
    integral = 0.5 * (high - low) * (ratio * (jnp.cos(t) - mean[..., None]) * _WEIGHTS).sum(-1)
    return jnp.sign(angle) * jnp.where(inner, -integral, integral)
