"""Gaussian processes, whose density has a factorisation, and effects of neighbouring areas."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import expit

from benchmarks.posteriors.priced.base import add, single

JITTER = 1e-4


# ---- kernels, with their hyperparameters -----------------------------------------------------------------------------
def _squares(x, length):
    """Squared distances of the rows of x, each column in units of its length."""
    x = x / length
    return ((x[:, None] - x) ** 2).sum(-1)


def _rbf(x):
    """A length for all columns."""
    length = numpyro.sample("length", dist.InverseGamma(5.0, 5.0))
    return numpyro.sample("amplitude", dist.HalfNormal(2.0)) ** 2 * jnp.exp(-0.5 * _squares(x, length))


def _matern(x):
    """Of smoothness 3/2."""
    length = numpyro.sample("length", dist.InverseGamma(5.0, 5.0))
    far = jnp.sqrt(3.0 * _squares(x, length) + 1e-12)
    return numpyro.sample("amplitude", dist.HalfNormal(2.0)) ** 2 * (1.0 + far) * jnp.exp(-far)


def _ard(x):
    """A length for each column."""
    with numpyro.plate("columns", x.shape[1]):
        length = numpyro.sample("length", dist.LogNormal(0.5, 1.0))
    return numpyro.sample("amplitude", dist.HalfNormal(2.0)) ** 2 * jnp.exp(-0.5 * _squares(x, length))


def _seasonal(x):
    """A trend, and what recurs with a period of about one."""
    trend = numpyro.sample("trend", dist.HalfNormal(2.0)) ** 2
    slow = trend * jnp.exp(-0.5 * _squares(x, numpyro.sample("trend_length", dist.InverseGamma(5.0, 15.0))))
    period = numpyro.sample("period", dist.LogNormal(0.0, 0.05))
    sine = jnp.sin(jnp.pi * (x[:, None, 0] - x[:, 0]) / period) / numpyro.sample("shape", dist.LogNormal(0.0, 0.5))
    return slow + numpyro.sample("season", dist.HalfNormal(1.0)) ** 2 * jnp.exp(-2.0 * sine**2)


# ---- regression: the values are integrated out -----------------------------------------------------------------------
def gp_regression(x, y, *, kernel: Callable):
    """Normal noise; the density of y is that of one multivariate normal."""
    covariance = kernel(x)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    n = x.shape[0]
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(n), covariance + (noise**2 + JITTER) * jnp.eye(n)), obs=y)


def _smooth(rng, x):
    """A function of each column, the later ones of less weight."""
    phase = rng.uniform(0.0, 2 * np.pi, x.shape[1])
    return (np.sin(x * np.linspace(1.6, 0.4, x.shape[1]) + phase) * np.linspace(1.2, 0.2, x.shape[1])).sum(1)


def rbf_by_bases(x, y, *, bases: int, edge: float):
    """The same for `_rbf` and one column, to rounding: the kernel's eigenfunctions on an interval much wider than x."""
    length = numpyro.sample("length", dist.InverseGamma(5.0, 5.0))
    amplitude = numpyro.sample("amplitude", dist.HalfNormal(2.0))
    variance = numpyro.sample("noise", dist.HalfNormal(1.0)) ** 2 + JITTER
    x, y = np.asarray(x[:, 0], float), np.asarray(y, float)
    frequency = np.arange(1, bases + 1) * np.pi / (2 * edge)
    phi = np.sin(frequency * (x[:, None] - x.mean() + edge)) / np.sqrt(edge)
    scale = amplitude * jnp.sqrt(jnp.sqrt(2 * jnp.pi) * length) * jnp.exp(-0.25 * (length * frequency) ** 2)
    root = jnp.linalg.cholesky(variance * jnp.eye(bases) + scale[:, None] * (phi.T @ phi) * scale)
    part = jax.scipy.linalg.solve_triangular(root, scale * (phi.T @ y), lower=True)
    log_det = 2 * jnp.log(jnp.diag(root)).sum() + (len(x) - bases) * jnp.log(variance)
    numpyro.factor("y", -0.5 * (log_det + (y @ y - part @ part) / variance + len(x) * jnp.log(2 * jnp.pi)))


def matern_by_filter(x, y):
    """The same for `_matern` and one sorted column: the process and its derivative are a state, seen one by one."""
    rate = jnp.sqrt(3.0) / numpyro.sample("length", dist.InverseGamma(5.0, 5.0))
    amplitude = numpyro.sample("amplitude", dist.HalfNormal(2.0))
    variance = numpyro.sample("noise", dist.HalfNormal(1.0)) ** 2 + JITTER
    stationary = amplitude**2 * jnp.diag(jnp.stack([jnp.ones_like(rate), rate**2]))

    def update(carry, seen):
        mean, covariance = carry
        gap, value = seen
        far = rate * gap
        move = jnp.exp(-far) * jnp.stack([jnp.stack([1 + far, gap]), jnp.stack([-rate * far, 1 - far])])
        mean, covariance = move @ mean, stationary + move @ (covariance - stationary) @ move.T
        total = covariance[0, 0] + variance
        gain, off = covariance[:, 0] / total, value - mean[0]
        log_p = -0.5 * (off**2 / total + jnp.log(2 * jnp.pi * total))
        return (mean + gain * off, covariance - jnp.outer(gain, gain) * total), log_p

    x, y = np.asarray(x[:, 0], float), np.asarray(y, float)
    seen = jnp.asarray(np.diff(x, prepend=x[0])), jnp.asarray(y)
    numpyro.factor("y", jax.lax.scan(update, (jnp.zeros_like(stationary[0]), stationary), seen)[1].sum())


def _gp(
    name: str, kernel: Callable, n: int, columns: int = 1, seasonal: bool = False, cheap: Callable | None = None, **settings
) -> None:  # fmt: skip
    def data(rng):
        x = np.sort(rng.uniform(0.0, 10.0 if columns == 1 else 4.0, (n, columns)), axis=0 if columns == 1 else 1)
        x = x if columns == 1 else rng.permuted(x, axis=1)
        f = 0.15 * (x[:, 0] - 5.0) + 0.8 * np.sin(2 * np.pi * x[:, 0]) if seasonal else _smooth(rng, x)
        return single(x, f + 0.3 * rng.standard_normal(n))

    model = functools.partial(gp_regression, kernel=kernel)
    add(name, model, data, whiten=cheap or model, **settings)


_bases = functools.partial(rbf_by_bases, bases=64, edge=10.0)
_gp("gp_rbf_300", _rbf, 300, cheap=_bases)
_gp("gp_matern_500", _matern, 500, cheap=matern_by_filter)
_gp("gp_rbf_1000", _rbf, 1_000, cheap=_bases)
_gp("gp_ard_300", _ard, 300, columns=4, n_warmup=100, n_chunk=500)
_gp("gp_seasonal_300", _seasonal, 300, seasonal=True, n_warmup=100, n_chunk=500)


# ---- latent values, standardised -------------------------------------------------------------------------------------
def _values(covariance):
    """Of a normal of this covariance."""
    n = covariance.shape[0]
    with numpyro.plate("points", n):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    return numpyro.deterministic("f", jnp.linalg.cholesky(covariance + JITTER * jnp.eye(n)) @ z)


def gp_counts(x, y, *, kernel: Callable):
    """Counts with a process as log rate, about a mean."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    f = _values(kernel(x))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Poisson(jnp.exp(mean + f)), obs=y)


def gp_classes(x, y):
    """Two classes with a process as logit."""
    f = _values(_rbf(x))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=f), obs=y)


def cox(cells, area, y):
    """A log-Gaussian Cox process on the cells of a grid."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    f = _values(_matern(cells))
    with numpyro.plate("cells", y.shape[0]):
        numpyro.sample("y", dist.Poisson(area * jnp.exp(mean + f)), obs=y)


def _counts_data(rng):
    x = np.sort(rng.uniform(0.0, 10.0, (100, 1)), axis=0)
    return single(x, rng.poisson(np.exp(1.0 + _smooth(rng, x))))


def _classes_data(rng):
    x = rng.uniform(0.0, 4.0, (100, 2))
    return single(x, rng.random(100) < expit(2.5 * _smooth(rng, x)))


def _grid(side: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)


def _cox_data(rng):
    cells = 4.0 * (_grid(12) + 0.5) / 12
    area = np.full(144, 16.0 / 144)
    return single(cells, area, rng.poisson(area * np.exp(3.0 + _smooth(rng, cells))))


LATENT = {"target_accept": 0.85, "n_warmup": 400, "n_chunk": 1000}
_matern_counts = functools.partial(gp_counts, kernel=_matern)
add("gp_counts_100", _matern_counts, _counts_data, whiten=_matern_counts, **LATENT)
add("gp_classes_100", gp_classes, _classes_data, whiten=gp_classes, **LATENT)
add("cox_grid_144", cox, _cox_data, whiten=cox, **LATENT)


# ---- a process of thirty basis functions -----------------------------------------------------------------------------
def gp_hilbert(x, y, *, bases: int, edge: float):
    """The eigenfunctions of the Laplacian on [-edge, edge], weighted by the kernel's spectrum (Solin and Sarkka 2020)."""
    length = numpyro.sample("length", dist.InverseGamma(5.0, 5.0))
    amplitude = numpyro.sample("amplitude", dist.HalfNormal(2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    frequency = jnp.arange(1, bases + 1) * jnp.pi / (2 * edge)
    spectrum = amplitude * jnp.sqrt(jnp.sqrt(2 * jnp.pi) * length) * jnp.exp(-0.25 * (length * frequency) ** 2)
    with numpyro.plate("bases", bases):
        beta = numpyro.sample("beta", dist.Normal(0.0, 1.0))
    phi = jnp.sin(frequency * (x[:, None] + edge)) / jnp.sqrt(edge)
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(phi @ (spectrum * beta), noise), obs=y)


def _hilbert_data(rng):
    x = rng.uniform(-5.0, 5.0, 10_000)
    return single(x, np.sin(1.5 * x) + 0.5 * np.cos(3.1 * x) + 0.8 * rng.standard_normal(len(x)))


_thirty = functools.partial(gp_hilbert, bases=30, edge=7.0)
add("gp_hilbert_10000", _thirty, _hilbert_data, whiten=_thirty, n_warmup=400)


# ---- areas, each like its neighbours ---------------------------------------------------------------------------------
def neighbours(x, size, adjacent, y, *, law: str):
    """A proper conditional autoregression of the areas' effects."""
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    precision = numpyro.sample("precision", dist.Gamma(2.0, 0.5))
    correlation = numpyro.sample("correlation", dist.Uniform(0.0, 1.0))
    effect = numpyro.sample("effect", dist.CAR(0.0, correlation, precision, adjacent))
    eta = intercept + slope * x + effect
    with numpyro.plate("areas", y.shape[0]):
        if law == "poisson":
            numpyro.sample("y", dist.Poisson(size * jnp.exp(eta)), obs=y)
        else:
            numpyro.sample("y", dist.Binomial(size, logits=eta), obs=y)


def neighbours_by_eigenvalues(x, size, adjacent, y, *, law: str):
    """The same with the eigenvalues computed once, and effects standardised: what the reference is drawn from."""
    adjacent = np.asarray(adjacent, float)
    degree = adjacent.sum(1)
    eigenvalues = np.linalg.eigvalsh(adjacent / np.sqrt(np.outer(degree, degree)))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    precision = numpyro.sample("precision", dist.Gamma(2.0, 0.5))
    correlation = numpyro.sample("correlation", dist.Uniform(0.0, 1.0))
    z = numpyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), y.shape))
    numpyro.factor("z_prior", 0.5 * jnp.log1p(-correlation * eigenvalues).sum()
                   - 0.5 * (z @ (degree * z) - correlation * (z @ (adjacent @ z))))  # fmt: skip
    effect = numpyro.deterministic("effect", z / jnp.sqrt(precision))
    eta = intercept + slope * x + effect
    with numpyro.plate("areas", y.shape[0]):
        law = dist.Poisson(size * jnp.exp(eta)) if law == "poisson" else dist.Binomial(size, logits=eta)
        numpyro.sample("y", law, obs=y)


def _neighbours(name: str, law: str, side: int) -> None:
    def data(rng):
        cells = _grid(side)
        adjacent = (np.abs(cells[:, None] - cells).sum(-1) == 1).astype(float)
        root = np.linalg.cholesky(np.linalg.inv(2.5 * (np.diag(adjacent.sum(1)) - 0.9 * adjacent)))
        x, size = rng.standard_normal(side**2), rng.uniform(3.0, 20.0, side**2)
        eta = 0.2 + 0.3 * x + root @ rng.standard_normal(side**2)
        if law == "poisson":
            return single(x, size, adjacent, rng.poisson(size * np.exp(eta)))
        size = size.astype(int)
        return single(x, size, adjacent, rng.binomial(size, expit(eta)))

    model, sampler = (functools.partial(m, law=law) for m in (neighbours, neighbours_by_eigenvalues))
    add(name, model, data, whiten=sampler, **LATENT)


_neighbours("areas_counts_100", "poisson", 10)
_neighbours("areas_answers_196", "binomial", 14)
