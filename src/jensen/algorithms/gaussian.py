"""Gaussians and mixtures on the host: what the solvers pass to each other. float64, flat vectors."""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular
from scipy.special import gammaln, logsumexp, ndtri
from scipy.stats import qmc

LOG_2PI = math.log(2 * math.pi)
# SciPy reads a table at the first use, and goes on with zeros where it cannot: a process that gives up its rights after
# its imports (a service) would have no draws
qmc.Sobol(1)


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """N(mean, R R^T); `root` R is lower triangular (D, D), or (D,) for a diagonal one."""

    mean: Float[np.ndarray, " D"]
    root: Float[np.ndarray, "..."]

    @property
    def dim(self) -> int:
        return self.mean.size

    @property
    def diagonal(self) -> bool:
        return self.root.ndim == 1

    @property
    def log_det(self) -> float:
        """log |R|."""
        return float(np.log(self.root if self.diagonal else np.diagonal(self.root)).sum())

    @property
    def sd(self) -> Float[np.ndarray, " D"]:
        return self.root if self.diagonal else np.sqrt((self.root**2).sum(1))

    def apply(self, eps: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """mean + R eps."""
        return self.mean + (eps * self.root if self.diagonal else eps @ self.root.T)

    def whiten(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """R^-1 (u - mean)."""
        centred = u - self.mean
        if self.diagonal:
            return centred / self.root
        return solve_triangular(self.root, centred.T, lower=True, check_finite=False).T

    def pull(self, g: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """R^T g: a gradient in whitened coordinates."""
        return g * self.root if self.diagonal else g @ self.root

    def precise(self, x: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n D"]:
        """(R R^T)^-1 x."""
        if self.diagonal:
            return x / self.root**2
        z = solve_triangular(self.root, x.T, lower=True, check_finite=False)
        return solve_triangular(self.root, z, lower=True, trans="T", check_finite=False).T

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n D"]:
        return self.apply(rng.standard_normal((n, self.dim)))

    def log_prob(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        return -0.5 * (self.whiten(u) ** 2).sum(1) - self.log_det - 0.5 * self.dim * LOG_2PI

    def entropy(self) -> float:
        return self.log_det + 0.5 * self.dim * (1 + LOG_2PI)


@dataclasses.dataclass(frozen=True)
class StudentT:
    """Multivariate t with the location and scale root of a Gaussian."""

    base: Gaussian
    df: float

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n D"]:
        radius = np.sqrt(self.df / rng.chisquare(self.df, (n, 1)))
        return self.base.apply(radius * rng.standard_normal((n, self.base.dim)))

    def log_prob(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        d, df = self.base.dim, self.df
        square = (self.base.whiten(u) ** 2).sum(1)
        constant = gammaln((df + d) / 2) - gammaln(df / 2) - 0.5 * d * math.log(df * math.pi) - self.base.log_det
        return constant - 0.5 * (df + d) * np.log1p(square / df)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """sum_k w_k q_k; draws are stratified over the components, in random order."""

    components: tuple
    weights: Float[np.ndarray, " K"]

    @property
    def dim(self) -> int:
        return self.components[0].dim

    def sample(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n D"]:
        quota = self.weights * n
        counts = np.floor(quota).astype(int)
        rest = n - counts.sum()
        if rest:
            share = np.maximum(quota - counts, 0)
            counts += rng.multinomial(
                rest, share / share.sum() if share.sum() > 0 else self.weights / self.weights.sum()
            )
        draws = np.concatenate([q.sample(rng, c) for q, c in zip(self.components, counts, strict=True) if c])
        return draws[rng.permutation(n)]

    def log_prob(self, u: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        with np.errstate(divide="ignore"):
            terms = [np.log(w) + q.log_prob(u) for w, q in zip(self.weights, self.components, strict=True)]
            return np.asarray(logsumexp(terms, 0))


def defensive(q: Gaussian | Mixture, share: float = 0.25, df: float = 5.0) -> Mixture:
    """q with a share of heavy-tailed copies of its Gaussians, so that importance weights stay bounded further out."""
    parts = [(1.0, q)] if isinstance(q, Gaussian) else list(zip(q.weights, q.components, strict=True))
    components = tuple(c for _, g in parts for c in (g, StudentT(g, df)))
    weights = np.array([v for w, _ in parts for v in (w * (1 - share), w * share)])
    return Mixture(components, weights)


def one_gaussian(q: Gaussian | Mixture) -> Gaussian:
    """Itself, or the Gaussian with the moments of a mixture of Gaussians."""
    if isinstance(q, Gaussian):
        return q
    pairs = list(zip(q.weights, q.components, strict=True))
    mean = np.sum([w * c.mean for w, c in pairs], 0)
    if any(c.diagonal for _, c in pairs):
        return Gaussian(mean, np.sqrt(np.sum([w * (c.sd**2 + (c.mean - mean) ** 2) for w, c in pairs], 0)))
    second = [w * (c.root @ c.root.T + np.outer(c.mean - mean, c.mean - mean)) for w, c in pairs]
    return Gaussian(mean, safe_cholesky(np.sum(second, 0)))


def standardised_draws(n: int, dim: int, seed: int) -> Float[np.ndarray, "n D"]:
    """Quasi-random normal draws (scrambled Sobol) with mean exactly 0 and covariance exactly I. Of n <= dim draws, for which
    such a sequence is far from random: antithetic normal ones, of which the variances are exact."""
    if n <= dim:
        half = np.random.default_rng(seed).standard_normal((-(-n // 2), dim))
        eps = np.concatenate([half, -half])[:n]
        eps = eps - eps.mean(0)
        return eps / eps.std(0)
    sobol = qmc.Sobol(dim, rng=np.random.default_rng(seed)) if dim <= qmc.Sobol.MAXDIM else None
    if sobol is None:
        eps = np.random.default_rng(seed).standard_normal((n, dim))
    else:
        eps = ndtri(np.clip(sobol.random(1 << (n - 1).bit_length())[:n], 1e-9, 1 - 1e-9))
    eps = eps - eps.mean(0)
    root = np.linalg.cholesky(eps.T @ eps / n)
    return solve_triangular(root, eps.T, lower=True).T


def safe_cholesky(covariance: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """Lower root of a covariance that rounding may have left indefinite: scaled to unit diagonal, eigenvalues floored."""
    scale = np.sqrt(np.maximum(np.diagonal(covariance), 1e-300))
    unit = covariance / scale[:, None] / scale
    try:
        return scale[:, None] * np.linalg.cholesky(unit)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh((unit + unit.T) / 2)
        values = np.maximum(values, 1e-12 * values.max())
        upper: Any = np.linalg.qr((vectors * np.sqrt(values)).T, mode="r")
        lower = upper.T
        return scale[:, None] * lower * np.where(np.diagonal(lower) < 0, -1.0, 1.0)
