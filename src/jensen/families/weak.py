"""Weak derivatives of one-dimensional laws: d q / d theta as a difference of two laws, coupled.

Each function gives new values of each coordinate, (m, D), and weights, (m, D), with
grad E f(z) = E sum (f(z with one new value) - f(z)) grad weight. Where one of the two laws is q itself, it is the draw.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float


def one_by_one(flat: Float[Array, "D ..."], new: Float[Array, "m D ..."]) -> Float[Array, "mD D ..."]:
    """The vector (of numbers, or of one-hot rows) with coordinate d replaced by new[i, d], for all i and d."""
    n = flat.shape[0]
    here = jnp.eye(n, dtype=bool).reshape((1, n, n, *(1,) * (flat.ndim - 1)))
    return jnp.where(here, new[:, None], flat).reshape((-1, *flat.shape))


def normal(z: Array, loc: Array, log_scale: Array, u: Float[Array, "2 D"]) -> tuple[Array, Array]:
    """N(mu, sigma^2).

    Mean: (1 / (sigma sqrt(2 pi))) (law of mu + sigma r - law of mu - sigma r), r ~ Rayleigh: one r for both.
    Scale: (1 / sigma) (double-sided Maxwell - N). A Maxwell m times a uniform is normal; so given the draw's eps,
    m = sign(eps) sqrt(eps^2 + 2 Exp(1)).
    """
    scale = stop_gradient(jnp.exp(log_scale))
    r, extra = jnp.sqrt(-2 * jnp.log(u[0])), -2 * jnp.log(u[1])
    eps = (z - stop_gradient(loc)) / scale
    maxwell = jnp.where(eps < 0, -1.0, 1.0) * jnp.sqrt(eps**2 + extra)
    rate = loc / (scale * math.sqrt(2 * math.pi))
    new = stop_gradient(loc) + scale * jnp.stack([r, -r, maxwell])
    return new, jnp.stack([rate, -rate, log_scale])


def poisson(z: Array, u: Array, rate: Array) -> tuple[Array, Array]:
    """Poisson(rate + d) is Poisson(rate) and, with probability d, one more."""
    return (z + 1)[None], rate[None]


def exponential(z: Array, u: Float[Array, "1 D"], rate: Array) -> tuple[Array, Array]:
    """(1 / rate) (Exp - Gamma(2, rate)); the Gamma is the draw and another exponential."""
    fixed = stop_gradient(rate)
    return (z - jnp.log(u[0]) / fixed)[None], (-rate / fixed)[None]


def gamma(z: Array, u: Float[Array, "3 D"], concentration: Array, rate: Array) -> tuple[Array, Array]:
    """Gamma(a, rate).

    Rate: (a / rate) (Gamma(a, rate) - Gamma(a + 1, rate)), as for the exponential.
    Concentration: the Mellin transform E z^s is Gamma(a + s) / Gamma(a) up to rate^-s; its derivative multiplies it by
    psi(a + s) - psi(a) = sum_k (1 / (a + k)) (1 - (a + k) / (a + k + s)), and (a + k) / (a + k + s) is the transform of
    v^(1 / (a + k)), v uniform: d Gamma(a) / da = sum_k (1 / (a + k)) (law of z - law of z v^(1 / (a + k))).
    One term is drawn, with probability a / ((a + k) (a + k + 1)): P(k or later) = a / (a + k).
    """
    a, b = stop_gradient(concentration), stop_gradient(rate)
    k = jnp.floor(jnp.minimum(a * (1 / u[1] - 1), 1e9))
    shrunk = z * jnp.exp(jnp.log(u[2]) / (a + k))
    weights = jnp.stack([-rate * a / b, -concentration * (a + k + 1) / a])
    return jnp.stack([z - jnp.log(u[0]) / b, shrunk]), weights


# by name: how many uniforms a coordinate, and the function of (draw, uniforms, **parameters)
WEAK: dict[str, tuple[int, Callable]] = {"Poisson": (1, poisson), "Exponential": (1, exponential), "Gamma": (3, gamma)}
