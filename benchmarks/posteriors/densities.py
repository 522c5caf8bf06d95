"""Hard densities whose moments are known exactly, as `jensen.models.LogDensity` over an unconstrained vector `z`.

Each entry of `DENSITIES` gives the model, its exact centre and spread in each coordinate, and exact draws (for checks).
The centre and the spread are mean and standard deviation, except for the funnel, whose tails are so heavy that 4,000
exact draws would miss the standard deviation by far more than 10 %: there they are the median and half the width of the
central 68.27 % interval, which for a normal are the same two numbers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

ONE_SIGMA = 0.841344746068543  # Phi(1)


@dataclass(frozen=True)
class Density:
    """A density known exactly.

    log_density: `z` of shape (dim,) -> nats, normalised or not.   center, spread: exact, one a coordinate.
    draws: (generator, n) -> (n, dim) exact independent draws.   measure: "moments" or "quantiles".
    smooth: whether it vanishes smoothly where its support ends.
    moments: mean and sd of what is reported, NaN or infinite where they do not exist, if centre and spread are not these.
    """

    dim: int
    log_density: Callable
    center: np.ndarray
    spread: np.ndarray
    draws: Callable[[np.random.Generator, int], np.ndarray]
    held_out: bool | None = None
    measure: str = "moments"
    smooth: bool = True
    moments: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def mean_and_sd(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Exact, in the reported coordinates, where they are known."""
        return self.moments or ((self.center, self.spread) if self.measure == "moments" else None)

    def model(self):
        """The jensen model."""
        from jensen.models import LogDensity

        return LogDensity(self.log_density, (self.dim,))


def funnel_quantile(scale: float, probability: float = ONE_SIGMA) -> float:
    """The quantile of x ~ N(0, exp(v / 2)) with v ~ N(0, scale), by bisection on a fine grid over v."""
    from scipy.special import ndtr

    v = np.linspace(-12, 12, 20_001)
    weight = np.exp(-0.5 * v**2)
    weight /= weight.sum()
    low, high = 0.0, 1e6
    while high - low > 1e-12 * max(high, 1.0):
        middle = 0.5 * (low + high)
        below = weight @ ndtr(middle * np.exp(-0.5 * scale * v))
        low, high = (middle, high) if below < probability else (low, middle)
    return low


def _funnel(dim: int = 10, scale: float = 3.0) -> Density:
    """Neal (2003): v ~ N(0, 3), x_i ~ N(0, exp(v / 2)); v is the first coordinate."""

    def log_density(z):
        return norm.logpdf(z[0], 0.0, scale) + norm.logpdf(z[1:], 0.0, jnp.exp(0.5 * z[0])).sum()

    def draws(rng, n):
        v = scale * rng.standard_normal((n, 1))
        return np.concatenate([v, np.exp(0.5 * v) * rng.standard_normal((n, dim - 1))], axis=1)

    spread = np.r_[scale, np.full(dim - 1, funnel_quantile(scale))]
    moments = np.zeros(dim), np.r_[scale, np.full(dim - 1, math.exp(0.25 * scale**2))]
    return Density(dim, log_density, np.zeros(dim), spread, draws, measure="quantiles", moments=moments)


def _banana() -> Density:
    """(z1, z2 + z1^2 + 1) ~ N(0, [[1, .9], [.9, 1]]); so E z2 = -2 and Var z2 = 1 + Var z1^2 = 3."""
    correlation = 0.9

    def log_density(z):
        a, b = z[0], z[1] + z[0] ** 2 + 1.0
        return -0.5 * (a**2 - 2 * correlation * a * b + b**2) / (1 - correlation**2)

    def draws(rng, n):
        a, e = rng.standard_normal((2, n))
        b = correlation * a + math.sqrt(1 - correlation**2) * e
        return np.column_stack([a, b - a**2 - 1.0])

    return Density(2, log_density, np.array([0.0, -2.0]), np.array([1.0, math.sqrt(3.0)]), draws)


def mixture(weights, means, covariances, held_out=None) -> Density:
    """A mixture of normals: weights (k,), means (k, dim), covariances (k, dim, dim)."""
    weights, means, covariances = (np.asarray(a, float) for a in (weights, means, covariances))
    choleskys = np.linalg.cholesky(covariances)
    whiten = np.linalg.inv(choleskys)
    constants = np.log(weights) - np.log(np.diagonal(choleskys, axis1=1, axis2=2)).sum(1)
    dim = means.shape[1]

    def log_density(z):
        standard = jnp.einsum("kij,kj->ki", whiten, z - means)
        return logsumexp(constants - 0.5 * (standard**2).sum(1)) - 0.5 * dim * math.log(2 * math.pi)

    def draws(rng, n):
        which = rng.choice(len(weights), n, p=weights)
        return means[which] + np.einsum("nij,nj->ni", choleskys[which], rng.standard_normal((n, dim)))

    center = weights @ means
    variance = weights @ (np.diagonal(covariances, axis1=1, axis2=2) + means**2) - center**2
    return Density(dim, log_density, center, np.sqrt(variance), draws, held_out)


def _two_modes(dim: int = 10) -> Density:
    """Modes at -3 and +3 in every coordinate, weights .3 and .7; both correlated, each in its own way."""
    distance = np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    covariances = [0.6**distance, 0.5 * np.eye(dim) + 0.3]
    return mixture([0.3, 0.7], [np.full(dim, -3.0), np.full(dim, 3.0)], covariances)


def _three_modes() -> Density:
    """Three modes in the plane, one of them small and narrow."""
    covariances = [[[1.0, 0.6], [0.6, 1.0]], [[0.3, 0.0], [0.0, 2.0]], [[0.15, -0.05], [-0.05, 0.15]]]
    return mixture([0.5, 0.3, 0.2], [[0.0, 0.0], [5.0, 3.0], [-4.0, 4.0]], covariances, held_out=True)


def _gaussian(dim: int = 100, condition: float = 1e6) -> Density:
    """A normal with a random rotation; variances fall from 1 to 1 / condition in equal ratios."""
    rng = np.random.default_rng(100)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    scale = np.sqrt(np.geomspace(1.0, 1.0 / condition, dim))
    mean = np.round(rng.standard_normal(dim), 6)
    whiten = (rotation / scale).T

    def log_density(z):
        return -0.5 * ((whiten @ (z - mean)) ** 2).sum()

    def draws(rng, n):
        return mean + (rng.standard_normal((n, dim)) * scale) @ rotation.T

    return Density(dim, log_density, mean, np.sqrt(((rotation * scale) ** 2).sum(1)), draws)


def _offset() -> Density:
    """Two independent normals, one of mean 1e4 and sd 1e-2: float32 resolves its values to a tenth of that sd."""
    mean, sd = np.array([1e4, 1.0]), np.array([1e-2, 1.0])

    def log_density(z):
        return -0.5 * (((z - mean) / sd) ** 2).sum()

    return Density(2, log_density, mean, sd, lambda rng, n: mean + sd * rng.standard_normal((n, 2)), held_out=False)


def multivariate_t(
    freedom: float, mean: np.ndarray, scale: np.ndarray, correlation: float
) -> tuple[Callable, Callable[[np.random.Generator, int], np.ndarray]]:
    """(log density, exact draws) of a multivariate Student t, all coordinates correlated alike."""
    dim = len(mean)
    cholesky = scale[:, None] * np.linalg.cholesky((1 - correlation) * np.eye(dim) + correlation)
    whiten = np.linalg.inv(cholesky)

    def log_density(z):
        return -0.5 * (freedom + dim) * jnp.log1p(((whiten @ (z - mean)) ** 2).sum() / freedom)

    def draws(rng, n):
        shrink = np.sqrt(freedom / rng.chisquare(freedom, (n, 1)))
        return mean + shrink * (rng.standard_normal((n, dim)) @ cholesky.T)

    return log_density, draws


def _heavy_tails(dim: int = 10, freedom: float = 7.0) -> Density:
    """A multivariate Student t with 7 degrees of freedom, correlated, of scales from 0.1 to 10."""
    scale, mean = np.geomspace(0.1, 10.0, dim), np.linspace(-5.0, 5.0, dim)
    log_density, draws = multivariate_t(freedom, mean, scale, 0.7)
    return Density(dim, log_density, mean, math.sqrt(freedom / (freedom - 2)) * scale, draws, held_out=True)


DENSITIES: dict[str, Callable[[], Density]] = {
    "funnel_density": _funnel,
    "banana": _banana,
    "two_modes": _two_modes,
    "ill_conditioned": _gaussian,
    "offset": _offset,
    "three_modes": _three_modes,
    "heavy_tails": _heavy_tails,
}
