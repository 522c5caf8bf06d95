"""What the shapes are made of: independent laws of one dimension, linear maps of them, and radii."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy import stats as jstats
from scipy import stats

from benchmarks.posteriors.densities import ONE_SIGMA, Density
from benchmarks.posteriors.moments import located

N_MEASURED = 10**6


@dataclass(frozen=True)
class Shape:
    """A density to be made. kind: one of ten.   held_out: True where nothing may be tuned on it."""

    kind: str
    held_out: bool
    make: Callable[[], Density]


SHAPES: dict[str, Shape] = {}


def add(kind: str, name: str, make: Callable[..., Density], *arguments: Any, **options: Any) -> None:
    """Registers a shape; the second, fourth, ... of its kind are held out."""
    before = sum(s.kind == kind for s in SHAPES.values())
    SHAPES[name] = Shape(kind, before % 2 == 1, partial(make, *arguments, **options))


@dataclass(frozen=True)
class Law:
    """A law of one coordinate. logpdf: in JAX, -inf outside of its support.   ppf: quantiles; draws are those of uniforms."""

    logpdf: Callable
    ppf: Callable[[np.ndarray], np.ndarray]
    mean: float
    sd: float

    @property
    def quantiles(self) -> tuple[float, float]:
        """The median and half the width of the central 68.27 %."""
        low, middle, high = self.ppf(np.array([1 - ONE_SIGMA, 0.5, ONE_SIGMA]))
        return float(middle), float(0.5 * (high - low))


def law(frozen: Any, logpdf: Callable) -> Law:
    """Of one of SciPy's, with its log density in JAX, normalised or not."""
    return Law(logpdf, frozen.ppf, float(frozen.mean()), float(frozen.std()))


def within(logpdf: Callable, low: float, high: float = np.inf) -> Callable:
    """The log density, -inf outside; outside, it is evaluated inside, so that its gradient there is not NaN."""

    middle = 0.5 * (low + high) if high < np.inf else low + 1.0

    def cut(x):
        inside = (x > low) & (x < high)
        return jnp.where(inside, logpdf(jnp.where(inside, x, middle)), -jnp.inf)

    return cut


def normal(mean: float = 0.0, sd: float = 1.0) -> Law:
    return law(stats.norm(mean, sd), lambda x: -0.5 * ((x - mean) / sd) ** 2)


def uniform(low: float, high: float) -> Law:
    return law(stats.uniform(low, high - low), within(jnp.zeros_like, low, high))


def truncated(mean: float, low: float, high: float = np.inf) -> Law:
    """A standard normal about `mean`, cut."""
    return law(stats.truncnorm(low - mean, high - mean, mean), within(lambda x: -0.5 * (x - mean) ** 2, low, high))


def exponential(scale: float = 1.0) -> Law:
    return law(stats.expon(0, scale), within(lambda x: -x / scale, 0.0))


def beta(a: float, b: float) -> Law:
    return law(stats.beta(a, b), within(lambda x: (a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x), 0.0, 1.0))


def student(freedom: float, scale: float = 1.0) -> Law:
    return law(stats.t(freedom, 0, scale), lambda x: -0.5 * (freedom + 1) * jnp.log1p((x / scale) ** 2 / freedom))


def on_grid(logpdf: Callable, low: float, high: float, n: int = 400_001) -> Law:
    """By quadrature on a grid in float64; draws by the inverse of its distribution function."""
    x = np.linspace(low, high, n)
    log_p = np.asarray(logpdf(x), np.float64)
    w = np.exp(log_p - log_p.max())
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (w[1:] + w[:-1]))])
    w = w / w.sum()
    mean = float(w @ x)
    return Law(logpdf, lambda u: np.interp(u, cdf / cdf[-1], x), mean, float(np.sqrt(w @ (x - mean) ** 2)))


def product(laws: Sequence[Law], matrix: Any = None, measure: str = "moments", smooth: bool = True) -> Density:
    """z = matrix y (default: y), the coordinates of y independent. By quantiles without a matrix only."""
    dim, groups = len(laws), {}
    for i, one in enumerate(laws):
        groups.setdefault(one, []).append(i)
    solve = None if matrix is None else np.linalg.inv(matrix)

    def log_density(z):
        y = z if solve is None else jnp.asarray(solve) @ z
        return sum(one.logpdf(y[np.array(at)]).sum() for one, at in groups.items())

    def draws(rng, n):
        y = np.column_stack([one.ppf(rng.random(n)) for one in laws])
        return y if matrix is None else y @ np.asarray(matrix).T

    mean, variance = np.array([one.mean for one in laws]), np.array([one.sd**2 for one in laws])
    if measure == "quantiles":
        center, spread = (np.array(a) for a in zip(*(one.quantiles for one in laws), strict=True))
        return Density(dim, log_density, center, spread, draws, None, measure, smooth, (mean, np.sqrt(variance)))
    if matrix is not None:
        mean, variance = matrix @ mean, np.asarray(matrix) ** 2 @ variance
    return Density(dim, log_density, mean, np.sqrt(variance), draws, smooth=smooth)


def rotation(dim: int, seed: int = 0) -> np.ndarray:
    """A random one."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def radial(
    dim: int, log_radial: Callable, furthest: float, axes: Any = 1.0, center: Any = 0.0, smooth: bool = True
) -> Density:
    """z = center + axes * y, the density of y a function of |y|, which is at most about `furthest`."""
    r = on_grid(lambda r: log_radial(r) + (dim - 1) * np.log(np.maximum(r, 1e-300)), 0.0, furthest)
    axes, center = np.broadcast_to(axes, dim).astype(float), np.broadcast_to(center, dim).astype(float)

    def log_density(z):
        return log_radial(jnp.sqrt((((z - center) / axes) ** 2).sum() + 1e-12))

    def draws(rng, n):
        direction = rng.standard_normal((n, dim))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        return center + axes * r.ppf(rng.random((n, 1))) * direction

    spread = axes * np.sqrt((r.mean**2 + r.sd**2) / dim)
    return Density(dim, log_density, center, spread, draws, smooth=smooth)


def measured(
    dim: int, log_density: Callable, draws: Callable, measure: str = "moments", moments: Any = None
) -> Density:
    """Centre and spread from a million exact draws with a fixed seed: standard errors of about 0.1 %."""
    center, spread = located(draws(np.random.default_rng(0), N_MEASURED), measure)
    return Density(dim, log_density, center, spread, draws, measure=measure, moments=moments)


def log_normal(x, mean, sd):
    """The normal log density, in JAX."""
    return jstats.norm.logpdf(x, mean, sd)
