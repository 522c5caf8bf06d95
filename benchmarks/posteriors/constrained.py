"""Sixty posteriors whose means and sds are known exactly in the user's coordinates: what `fit.summary()` prints of them."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import transforms
from scipy import special, stats

Exact = dict[str, tuple[Any, Any]]  # site -> mean, sd; inf or NaN where it does not exist
POSTERIORS: dict[str, Callable[[], tuple[Callable, Exact]]] = {}


def _prior(name: str, law: Any, mean: Any, sd: Any) -> None:
    """One site, without data."""

    def model():
        numpyro.sample("x", law)

    POSTERIORS[name] = lambda: (model, {"x": (mean, sd)})


def posterior(make: Callable[[], tuple[Callable, Exact]]) -> Callable:
    POSTERIORS[make.__name__] = make
    return make


def _scipy(law: Any) -> tuple[float, float]:
    return float(law.mean()), float(law.std())


def quadrature(x: np.ndarray, log_p: np.ndarray, *values: np.ndarray) -> list[tuple[float, float]]:
    """(mean, sd) of x and of other functions of it, given as (conditional mean, conditional variance), by the trapezium rule on
    a grid in any coordinate: `log_p` is the density of the grid's own coordinate, of which x is a function."""
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    found = []
    for mean, variance in ((x, np.zeros_like(x)), *values):
        m = float(w @ mean)
        found.append((m, math.sqrt(w @ (variance + (mean - m) ** 2))))
    return found


# ---- priors -----------------------------------------------------------------------------------------------------------
for _s in (0.25, 0.5, 1.0, 2.0, 3.0):
    _e = math.exp(_s**2)
    _prior(
        f"log_normal_{_s:g}",
        dist.LogNormal(0.3, _s),
        math.exp(0.3 + _s**2 / 2),
        math.exp(0.3) * math.sqrt(_e * (_e - 1)),
    )
for _a in (1.5, 2.5, 3.0, 6.0):
    _prior(
        f"inverse_gamma_{_a:g}",
        dist.InverseGamma(_a, 2.0),
        2 / (_a - 1),
        2 / (_a - 1) / math.sqrt(_a - 2) if _a > 2 else math.inf,
    )
_prior("cauchy", dist.Cauchy(3.0, 2.0), math.nan, math.inf)
_prior("half_cauchy", dist.HalfCauchy(2.5), math.inf, math.inf)
_prior("cauchy_5", dist.Cauchy(0.0, 1.0).expand([5]).to_event(1), np.full(5, math.nan), np.full(5, math.inf))
for _df in (1.5, 2.5, 3.0, 5.0, 10.0):
    _prior(
        f"student_t_{_df:g}", dist.StudentT(_df, 1.0, 3.0), 1.0, 3 * math.sqrt(_df / (_df - 2)) if _df > 2 else math.inf
    )
for _c in ((0.5, 0.5, 0.5), (1.0, 2.0, 3.0, 4.0), (0.2, 5.0, 20.0), (30.0, 40.0, 50.0, 60.0, 70.0)):
    _v = np.array(_c)
    _m = _v / _v.sum()
    _prior(f"dirichlet_{len(_c)}_{_c[0]:g}", dist.Dirichlet(jnp.array(_c)), _m, np.sqrt(_m * (1 - _m) / (_v.sum() + 1)))
for _d, _c in ((2, 1.0), (3, 1.0), (4, 2.0), (3, 20.0)):
    _off = 1 / math.sqrt(2 * (_c + (_d - 2) / 2) + 1)
    _prior(f"correlations_{_d}_{_c:g}", dist.LKJ(_d, _c), np.eye(_d), _off * (1 - np.eye(_d)))
_r = stats.beta(1.5, 1.5, -1, 2)
_root = _r.expect(lambda r: np.sqrt(1 - r * r))
_prior("correlation_root", dist.LKJCholesky(2, 1.5), np.array([[1, 0], [0, _root]]),
       np.array([[0, 0], [_r.std(), math.sqrt(1 - _r.var() - _root**2)]]))  # fmt: skip
for _a in (0.3, 0.5, 2.0):
    _prior(f"gamma_{_a:g}", dist.Gamma(_a, 2.0), _a / 2, math.sqrt(_a) / 2)
_prior("exponential", dist.Exponential(0.1), 10.0, 10.0)
_prior("half_normal", dist.HalfNormal(4.0), *_scipy(stats.halfnorm(0, 4)))
_prior("weibull", dist.Weibull(2.0, 0.7), *_scipy(stats.weibull_min(0.7, 0, 2.0)))
_prior("pareto", dist.Pareto(1.0, 3.5), *_scipy(stats.pareto(3.5)))
_prior("beta_edges", dist.Beta(0.2, 0.3), *_scipy(stats.beta(0.2, 0.3)))
_prior("beta", dist.Beta(2.0, 5.0), *_scipy(stats.beta(2, 5)))
_prior("uniform", dist.Uniform(-3.0, 10.0), 3.5, 13 / math.sqrt(12))
_prior("truncated_normal", dist.TruncatedNormal(0.0, 1.0, low=-1.0, high=2.5), *_scipy(stats.truncnorm(-1, 2.5)))
_prior("log_uniform", dist.LogUniform(0.01, 100.0), *_scipy(stats.loguniform(0.01, 100)))
_prior("gumbel", dist.Gumbel(1.0, 2.0), *_scipy(stats.gumbel_r(1, 2)))
_prior("laplace", dist.Laplace(0.0, 2.0), 0.0, 2 * math.sqrt(2))
_prior("normal", dist.Normal(100.0, 3.0), 100.0, 3.0)
_v = math.e**1 * (math.e**1 - 1)
_prior("ordered", dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([3]).to_event(1), transforms.OrderedTransform()),
       math.exp(0.5) * np.arange(3), np.sqrt(1 + np.arange(3) * _v))  # fmt: skip
_s = np.array([0.2, 0.5, 0.8, 1.1, 1.4])
_prior(
    "log_normals",
    dist.LogNormal(0.0, jnp.array(_s)).to_event(1),
    np.exp(_s**2 / 2),
    np.sqrt(np.exp(_s**2) * np.expm1(_s**2)),
)
_z = np.linspace(-30, 30, 200_001)
_prior("logit_normal", dist.TransformedDistribution(dist.Normal(0.5, 2.5), transforms.SigmoidTransform()),
       *quadrature(special.expit(_z), -0.5 * ((_z - 0.5) / 2.5) ** 2)[0])  # fmt: skip


# ---- conjugate posteriors ------------------------------------------------------------------------------------------------
@posterior
def variance_of_few():
    y = np.array([0.5, -1.2, 2.1])

    def model():
        variance = numpyro.sample("variance", dist.InverseGamma(2.0, 1.0))
        numpyro.sample("y", dist.Normal(0, jnp.sqrt(variance)).expand([3]).to_event(1), obs=jnp.array(y))

    return model, {"variance": _scipy(stats.invgamma(3.5, 0, 1 + 0.5 * (y**2).sum()))}


@posterior
def precision_of_few():
    y = np.array([0.5, -1.2])

    def model():
        precision = numpyro.sample("precision", dist.Gamma(0.5, 0.5))
        numpyro.sample("y", dist.Normal(0, precision**-0.5).expand([2]).to_event(1), obs=jnp.array(y))

    return model, {"precision": _scipy(stats.gamma(1.5, 0, 1 / (0.5 + 0.5 * (y**2).sum())))}


@posterior
def rate_of_no_counts():
    def model():
        rate = numpyro.sample("rate", dist.Gamma(0.5, 0.1))
        numpyro.sample("y", dist.Poisson(rate).expand([3]).to_event(1), obs=jnp.zeros(3))

    return model, {"rate": (0.5 / 3.1, math.sqrt(0.5) / 3.1)}


@posterior
def shares_with_an_empty_class():
    counts, prior = np.array([12.0, 0.0, 3.0, 1.0]), 0.5
    a = counts + prior
    mean = a / a.sum()

    def model():
        p = numpyro.sample("p", dist.Dirichlet(jnp.full(4, prior)))
        numpyro.sample("y", dist.Multinomial(16, p), obs=jnp.array(counts))

    return model, {"p": (mean, np.sqrt(mean * (1 - mean) / (a.sum() + 1)))}


@posterior
def proportion_of_few():
    def model():
        p = numpyro.sample("p", dist.Beta(1.0, 1.0))
        numpyro.sample("y", dist.Binomial(4, p), obs=jnp.array(0.0))

    return model, {"p": _scipy(stats.beta(1, 5))}


@posterior
def upper_bound():
    def model():
        bound = numpyro.sample("bound", dist.Pareto(1.0, 1.5))
        numpyro.sample("y", dist.Uniform(0.0, bound).expand([3]).to_event(1), obs=jnp.array([0.3, 0.9, 0.5]))

    return model, {"bound": _scipy(stats.pareto(4.5))}


def _normal_inverse_gamma(x: np.ndarray, y: np.ndarray, a: float, b: float, precision: float):
    """Coefficients with N(0, s2 / precision) each, s2 with InverseGamma(a, b): (mean, covariance scale, a, b) afterwards."""
    inverse = np.linalg.inv(x.T @ x + precision * np.eye(x.shape[1]))
    mean = inverse @ x.T @ y
    return mean, inverse, a + len(y) / 2, b + 0.5 * (y @ y - mean @ x.T @ y)


def _regression(x: np.ndarray, y: np.ndarray, a: float) -> tuple[Callable, Exact]:
    mean, inverse, shape, rate = _normal_inverse_gamma(x, y, a, 1.0, 0.1)

    def model():
        s2 = numpyro.sample("s2", dist.InverseGamma(a, 1.0))
        beta = numpyro.sample("beta", dist.Normal(0, jnp.sqrt(s2 / 0.1)).expand([x.shape[1]]).to_event(1))
        numpyro.sample("y", dist.Normal(jnp.array(x) @ beta, jnp.sqrt(s2)).to_event(1), obs=jnp.array(y))

    sd = np.sqrt(np.diag(inverse) * rate / (shape - 1))
    return model, {"beta": (mean, sd), "s2": _scipy(stats.invgamma(shape, 0, rate))}


@posterior
def mean_and_variance_of_four():
    return _regression(np.ones((4, 1)), np.array([1.3, 0.2, 2.9, -0.4]), 1.0)


@posterior
def regression_of_eight():
    rng = np.random.default_rng(5)
    x = np.column_stack([np.ones(8), rng.normal(size=(8, 2))])
    return _regression(x, x @ [1.0, 2.0, -1.0] + rng.normal(size=8), 0.5)


# ---- posteriors by one-dimensional quadrature -----------------------------------------------------------------------------
@posterior
def sd_of_three():
    y, t = np.array([1.0, -2.0, 0.7]), np.linspace(-12, 16, 400_001)
    s = np.exp(t)
    log_p = t - np.log1p((s / 5) ** 2) - 3 * t - 0.5 * (y**2).sum() / s**2

    def model():
        sd = numpyro.sample("sd", dist.HalfCauchy(5.0))
        numpyro.sample("y", dist.Normal(0, sd).expand([3]).to_event(1), obs=jnp.array(y))

    return model, {"sd": quadrature(s, log_p)[0]}


@posterior
def concentration_of_counts():
    y, t = np.array([0, 1, 9, 3, 0, 4, 2, 12]), np.linspace(-8, 14, 200_001)
    k, m = np.exp(t), 4.0
    log_p = t - 0.1 * k + sum(special.gammaln(i + k) - special.gammaln(k) for i in y)
    log_p = log_p + len(y) * k * np.log(k / (k + m)) - y.sum() * np.log(k + m)

    def model():
        k = numpyro.sample("k", dist.Exponential(0.1))
        numpyro.sample("y", dist.NegativeBinomial2(m, k).expand([8]).to_event(1), obs=jnp.array(y))

    return model, {"k": quadrature(k, log_p)[0]}


@posterior
def shape_of_few():
    y, t = np.array([0.5, 1.5, 0.9]), np.linspace(-10, 10, 200_001)
    a = np.exp(t)
    log_p = t - 0.05 * a + len(y) * (a * np.log(a) - special.gammaln(a)) + (a - 1) * np.log(y).sum() - a * y.sum()

    def model():
        shape = numpyro.sample("shape", dist.Exponential(0.05))
        numpyro.sample("y", dist.Gamma(shape, shape).expand([3]).to_event(1), obs=jnp.array(y))

    return model, {"shape": quadrature(a, log_p)[0]}


@posterior
def degrees_of_freedom():
    y, t = np.random.default_rng(2).standard_t(4, 20), np.linspace(-6, 9, 100_001)
    nu = np.exp(t)
    log_p = 2 * t - 0.1 * nu + sum(stats.t.logpdf(v, nu) for v in y)

    def model():
        nu = numpyro.sample("nu", dist.Gamma(2.0, 0.1))
        numpyro.sample("y", dist.StudentT(nu, 0.0, 1.0).expand([20]).to_event(1), obs=jnp.array(y))

    return model, {"nu": quadrature(nu, log_p)[0]}


def _groups(y: np.ndarray, prior: Any, log_prior: Callable, from_log_precision: bool) -> tuple[Callable, Exact]:
    """Means of groups with a common scale, each seen once with error 1: the scale's marginal is one-dimensional."""
    t = np.linspace(-14, 10, 200_001)
    x = np.exp(t)
    variance = 1 / x if from_log_precision else x**2
    log_p = t + log_prior(x) - 0.5 * len(y) * np.log1p(variance) - 0.5 * (y**2).sum() / (1 + variance)
    shrink = variance / (1 + variance)
    scale, *means = quadrature(x, log_p, *((v * shrink, shrink) for v in y))

    def model():
        scale = numpyro.sample("scale", prior)
        with numpyro.plate("groups", len(y)):
            mean = numpyro.sample("mean", dist.Normal(0, scale**-0.5 if from_log_precision else scale))
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=jnp.array(y))

    return model, {"scale": scale, "mean": (np.array([m for m, _ in means]), np.array([s for _, s in means]))}


@posterior
def precision_of_groups():
    y = np.random.default_rng(3).normal(size=10) * 1.5
    return _groups(y, dist.Exponential(0.5), lambda x: -0.5 * x, True)


@posterior
def precision_of_four_groups():
    return _groups(np.array([1.1, -0.6, 2.0, 0.2]), dist.Gamma(1.0, 0.2), lambda x: -0.2 * x, True)


@posterior
def scale_of_groups():
    return _groups(
        np.array([3.0, 0.9, -0.5, 0.2, -1.1, 0.4]), dist.HalfNormal(5.0), lambda x: -0.5 * (x / 5) ** 2, False
    )


@posterior
def correlation_with_data():
    y = np.random.default_rng(4).multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], 6)
    r = np.tanh(np.linspace(-9, 9, 100_001))
    one = 1 - r * r
    square, cross = (y**2).sum(), 2 * y[:, 0] @ y[:, 1]
    log_p = np.log(one) - 3 * np.log(one) - 0.5 * (square - r * cross) / one
    (mean, sd), _ = quadrature(r, log_p, (r, np.zeros_like(r)))

    def model():
        c = numpyro.sample("c", dist.LKJ(2, 1.0))
        numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(2), c).expand([6]).to_event(1), obs=jnp.array(y))

    return model, {"c": (np.array([[1, mean], [mean, 1]]), np.array([[0, sd], [sd, 0]]))}
