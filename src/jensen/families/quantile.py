"""Univariate laws as increasing maps of a standard normal: z = F^-1(Phi(xi)), and back. What copulas are made of."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array

NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
BISECTIONS = 64
REACH = 85.0  # of the bracket: e^85 is a float32 still

Parameters = dict[str, Array]


def _student_cdf(x: Array, p: Parameters) -> Array:
    """1/2 + c int_0^atan(t / sqrt(df)) cos^(df - 1): smooth in df, which the incomplete beta function of JAX is not."""
    df = p["df"]
    end = jnp.arctan((x - p["loc"]) / p["scale"] / jnp.sqrt(df))
    angles = 0.5 * end[..., None] * (1 + jnp.asarray(NODES, end.dtype))
    whole = 0.5 * end * (jnp.cos(angles) ** (df - 1)[..., None] @ jnp.asarray(WEIGHTS, end.dtype))
    log_c = jax.lax.lgamma(0.5 * (df + 1)) - jax.lax.lgamma(0.5 * df) - 0.5 * math.log(math.pi)
    return 0.5 + jnp.exp(log_c) * whole


CDF: dict[str, Callable[[Array, Parameters], Array]] = {
    "Gamma": lambda x, p: jax.scipy.special.gammainc(p["concentration"], p["rate"] * x),
    "Chi2": lambda x, p: jax.scipy.special.gammainc(0.5 * p["df"], 0.5 * x),
    "InverseGamma": lambda x, p: jax.scipy.special.gammaincc(p["concentration"], p["rate"] / x),
    "Kumaraswamy": lambda x, p: -jnp.expm1(p["concentration0"] * jnp.log1p(-(x ** p["concentration1"]))),
    "StudentT": _student_cdf,
}
"""Those that NumPyro lacks, or cannot differentiate in all parameters."""

SOLVED: dict[str, Callable[[Array, Parameters], Array]] = {
    "Gamma": lambda t, p: jnp.exp(t),
    "Chi2": lambda t, p: jnp.exp(t),
    "InverseGamma": lambda t, p: jnp.exp(t),
    "StudentT": lambda t, p: p["loc"] + p["scale"] * jnp.sinh(t),
}
"""Laws whose CDF is inverted by bisection: an increasing map of the line onto the support."""

DIRECT: dict[str, tuple[Callable, Callable]] = {
    "Normal": (lambda xi, p: p["loc"] + p["scale"] * xi, lambda z, p: (z - p["loc"]) / p["scale"]),
    "LogNormal": (
        lambda xi, p: jnp.exp(p["loc"] + p["scale"] * xi),
        lambda z, p: (jnp.log(z) - p["loc"]) / p["scale"],
    ),
}
"""Laws that are simple maps of a normal."""


def quantile(name: str, u: Array, p: Parameters, log_prob: Callable) -> Array:
    """F^-1(u), differentiable in u and in the parameters."""
    return _solved(name, log_prob, u, p)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _solved(name: str, log_prob: Callable, u: Array, p: Parameters) -> Array:
    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        below = CDF[name](SOLVED[name](middle, p), p) < u
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    start = jnp.full(u.shape, -REACH, u.dtype), jnp.full(u.shape, REACH, u.dtype)
    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, start)
    return SOLVED[name](0.5 * (low + high), p)


@_solved.defjvp
def _(name, log_prob, primals, tangents):
    """F(x; theta) = u, so f dx + F_theta dtheta = du."""
    u, p = primals
    x = _solved(name, log_prob, u, p)
    moved = jax.jvp(lambda p: CDF[name](x, p), (p,), (tangents[1],))[1]
    return x, (tangents[0] - moved) * jnp.exp(-log_prob(x, p))


def inside(u: Array) -> Array:
    """Never exactly 0 or 1."""
    edge = float(jnp.finfo(u.dtype).eps)
    return jnp.clip(u, edge, 1 - edge)


def from_normal(xi: Array, name: str, p: Parameters, law: Any, icdf: Callable | None) -> Array:
    """F^-1(Phi(xi)); `icdf(u)` where it has a closed form."""
    if name in DIRECT:
        return DIRECT[name][0](xi, p)
    u = inside(ndtr(xi))
    return icdf(u) if icdf is not None else quantile(name, u, p, lambda x, p: law(**p).log_prob(x))


def to_normal(z: Array, name: str, p: Parameters, law: Any) -> Array:
    """Phi^-1(F(z))."""
    if name in DIRECT:
        return DIRECT[name][1](z, p)
    return ndtri(inside(CDF[name](z, p) if name in CDF else law(**p).cdf(z)))
