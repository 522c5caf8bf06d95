"""Regressions of many rows, or of many columns."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from scipy.special import digamma, expit, polygamma, softmax

from benchmarks.posteriors.densities import Density
from benchmarks.posteriors.priced.base import add, generator, single


def _normal(scale, *size: int):
    return dist.Normal(0.0, scale).expand(list(size)).to_event(len(size))


def _rows(distribution, y):
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", distribution, obs=y)


# ---- one linear predictor --------------------------------------------------------------------------------------------
LAWS: dict[str, Callable] = {
    "bernoulli": lambda eta: dist.Bernoulli(logits=eta),
    "poisson": lambda eta: dist.Poisson(jnp.exp(eta)),
    "negative binomial": lambda eta: dist.NegativeBinomial2(
        jnp.exp(eta), numpyro.sample("concentration", dist.HalfCauchy(5.0))
    ),
    "student": lambda eta: dist.StudentT(
        numpyro.sample("nu", dist.Gamma(2.0, 0.1)), eta, numpyro.sample("sigma", dist.HalfNormal(2.0))
    ),
}


def regression(x, y, *, law: str, scale: float):
    """An intercept, and coefficients of a normal prior."""
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    beta = numpyro.sample("beta", _normal(scale, x.shape[1]))
    _rows(LAWS[law](intercept + x @ beta), y)


def regression_of_counts(x, y, *, law: str, scale: float):
    """The same for counts, what depends on y alone being left out, or summed over its values: for the reference."""
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    beta = numpyro.sample("beta", _normal(scale, x.shape[1]))
    eta, y = intercept + x @ beta, np.asarray(y)
    linear = intercept * y.sum() + (y @ np.asarray(x, float)) @ beta
    if law == "poisson":
        numpyro.factor("y", linear - jnp.exp(eta).sum())
        return
    c = numpyro.sample("concentration", dist.HalfCauchy(5.0))
    values, times = np.unique(y, return_counts=True)
    own = (times * (gammaln(values + c) - gammaln(c) + c * jnp.log(c))).sum()
    numpyro.factor("y", own + linear - ((y + c) * jnp.log(jnp.exp(eta) + c)).sum())


def _answers(rng: np.random.Generator, law: str, eta: np.ndarray) -> np.ndarray:
    if law == "bernoulli":
        return rng.random(len(eta)) < expit(eta)
    if law == "student":
        return eta + 0.7 * rng.standard_t(4.0, len(eta))
    return rng.poisson(np.exp(eta) * (1.0 if law == "poisson" else rng.gamma(3.0, 1 / 3, len(eta))))


def _regression(name: str, law: str, n: int, k: int, scale: float = 2.0, **settings) -> None:
    def data(rng):
        x = rng.standard_normal((n, k))
        x[:, 1::2] = 0.8 * x[:, 1::2] + 0.6 * x[:, ::2]  # pairs of columns go together
        beta = rng.normal(0.0, min(scale, 0.7 / np.sqrt(k)), k)
        return single(x, _answers(rng, law, 0.3 + x @ beta))

    model = functools.partial(regression, law=law, scale=scale)
    cheap = functools.partial(regression_of_counts, law=law, scale=scale)
    add(name, model, data, whiten=cheap if law in ("poisson", "negative binomial") else model, **settings)


_regression("logit_100000_rows", "bernoulli", 100_000, 30)
_regression("poisson_200000_rows", "poisson", 200_000, 20, n_warmup=100, n_chunk=600)
_regression("counts_50000_rows", "negative binomial", 50_000, 10)
_regression("robust_100000_rows", "student", 100_000, 20)
_regression("logit_1000_columns", "bernoulli", 2_000, 1_000, scale=0.2)


# ---- a million rows, known exactly -----------------------------------------------------------------------------------
def conjugate(x, y):
    """Coefficients whose prior has the scale of the noise."""
    variance = numpyro.sample("variance", dist.InverseGamma(2.0, 1.0))
    beta = numpyro.sample("beta", _normal(10.0 * jnp.sqrt(variance), x.shape[1]))
    _rows(dist.Normal(x @ beta, jnp.sqrt(variance)), y)


def _million(rng):
    x = rng.standard_normal((1_000_000, 10), np.float32)
    x[:, 0], x[:, 2] = 1.0, 0.9 * x[:, 1] + 0.4 * x[:, 2]
    return single(x, x @ rng.normal(0.0, 0.5, 10) + 1.5 * rng.standard_normal(len(x)))


@functools.cache
def conjugate_density() -> Density:
    """Of (beta, log variance): the variance is inverse gamma, and beta normal given it."""
    x, y = (a.astype(float) for a in _million(generator("linear_1000000_rows")))
    k = x.shape[1]
    precision = x.T @ x + np.eye(k) / 100.0
    mean = np.linalg.solve(precision, x.T @ y)
    shape = 2.0 + 0.5 * len(y)
    rate = 1.0 + 0.5 * (y @ y - mean @ precision @ mean)
    inverse = np.linalg.inv(precision)
    root = np.linalg.cholesky(inverse)
    center = np.r_[mean, np.log(rate) - digamma(shape)]
    sd = np.sqrt(np.diag(inverse) * rate / (shape - 1))
    whiten = np.linalg.inv(root) / np.sqrt(rate / shape)

    def log_density(z):
        u = z[k] - np.log(rate / shape)  # near zero, so that nothing large is subtracted
        squares = ((whiten @ (z[:k] - mean)) ** 2).sum()
        return -shape * (u + jnp.expm1(-u)) - 0.5 * k * u - 0.5 * jnp.exp(-u) * squares

    def draws(rng, n):
        variance = rate / rng.gamma(shape, size=n)
        beta = mean + np.sqrt(variance)[:, None] * (rng.standard_normal((n, k)) @ root.T)
        return np.column_stack([beta, np.log(variance)])

    reported = np.r_[mean, rate / (shape - 1)], np.r_[sd, rate / (shape - 1) / np.sqrt(shape - 2)]
    return Density(k + 1, log_density, center, np.r_[sd, np.sqrt(polygamma(1, shape))], draws, moments=reported)


DENSITIES = {"conjugate_density": conjugate_density}
add("linear_1000000_rows", conjugate, _million, exact="conjugate_density")


# ---- answers in order, and of several kinds --------------------------------------------------------------------------
def ordered(x, y, *, answers: int):
    """Ordered answers with ordered cut points."""
    beta = numpyro.sample("beta", _normal(2.0, x.shape[1]))
    cuts = dist.TransformedDistribution(_normal(2.0, answers - 1), dist.transforms.OrderedTransform())
    _rows(dist.OrderedLogistic(x @ beta, numpyro.sample("cuts", cuts)), y)


def _ordered_data(rng):
    x = rng.standard_normal((50_000, 8))
    latent = x @ rng.normal(0.0, 0.5, 8) + rng.logistic(size=len(x))
    return single(x, np.digitize(latent, [-2.0, -0.5, 0.5, 1.5]))


def multinomial(x, y, *, classes: int):
    """Coefficients for each class but the last."""
    intercept = numpyro.sample("intercept", _normal(5.0, classes - 1))
    beta = numpyro.sample("beta", _normal(2.0, x.shape[1], classes - 1))
    logits = jnp.pad(intercept + x @ beta, ((0, 0), (0, 1)))
    _rows(dist.Categorical(logits=logits), y)


def _multinomial_data(rng):
    x = rng.standard_normal((20_000, 8))
    p = softmax(x @ rng.normal(0.0, 0.6, (8, 4)) + np.r_[0.5, 0.0, -0.5, 0.0], axis=1)
    return single(x, (rng.random((len(x), 1)) > p.cumsum(1)[:, :-1]).sum(1))


_five = functools.partial(ordered, answers=5)
_four = functools.partial(multinomial, classes=4)
add("ordered_50000_rows", _five, _ordered_data, whiten=_five)
add("multinomial_20000_rows", _four, _multinomial_data, whiten=_four)


# ---- few coefficients that matter ------------------------------------------------------------------------------------
def regularised_horseshoe(x, y):
    """A scale for all and one of each coefficient, which end in a slab (Piironen and Vehtari 2017), non-centred."""
    n, k = x.shape
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0 / (k - 5.0) / jnp.sqrt(n)))
    slab = numpyro.sample("slab", dist.InverseGamma(2.0, 8.0))
    with numpyro.plate("coefficients", k):
        local = numpyro.sample("local", dist.HalfCauchy(1.0))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    scale = tau * jnp.sqrt(slab) * local / jnp.sqrt(slab + tau**2 * local**2)
    _rows(dist.Normal(x @ (z * scale), sigma), y)


def _few_matter(n: int, k: int):
    def data(rng):
        x = rng.standard_normal((n, k))
        return single(x, x @ np.r_[2.0, -1.5, 1.0, 0.7, -0.5, np.zeros(k - 5)] + rng.standard_normal(n))

    return data


def spike_and_slab(x, y):
    """Each coefficient is of a narrow normal or of a wide one; which one is summed over."""
    share = numpyro.sample("share", dist.Beta(1.0, 4.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    which = dist.Categorical(probs=jnp.stack([1.0 - share, share]))
    with numpyro.plate("coefficients", x.shape[1]):
        beta = numpyro.sample("beta", dist.MixtureSameFamily(which, dist.Normal(0.0, jnp.array([0.05, 2.0]))))
    _rows(dist.Normal(x @ beta, sigma), y)


def two_lines(x, y):
    """Rows of one line or of the other, whose names may be exchanged."""
    weight = numpyro.sample("weight", dist.Beta(2.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("lines", 2):
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 3.0))
        slope = numpyro.sample("slope", dist.Normal(0.0, 3.0))
    which = dist.Categorical(probs=jnp.stack([weight, 1.0 - weight]))
    _rows(dist.MixtureSameFamily(which, dist.Normal(intercept + slope * x[:, None], sigma)), y)


def _lines_data(rng):
    x, first = rng.uniform(-2.0, 2.0, 2_000), rng.random(2_000) < 0.5
    return single(x, np.where(first, 0.5 + x, -0.5 - 0.3 * x) + 0.6 * rng.standard_normal(2_000))


def _exchanged(draws):
    """Both names of the lines alike often: each draw's lines in order of slope, or the other way round."""
    slope = np.asarray(draws["slope"])
    other = np.random.default_rng(0).random(slope.shape[:2]) < 0.5
    swap = (slope[..., 0] > slope[..., 1]) ^ other
    pairs = {name: np.asarray(draws[name]) for name in ("intercept", "slope")}
    turned = {name: np.where(swap[..., None], value[..., ::-1], value) for name, value in pairs.items()}
    weight = np.asarray(draws["weight"])
    return turned | {"weight": np.where(swap, 1 - weight, weight), "sigma": draws["sigma"]}


add(
    "horseshoe_100_columns", regularised_horseshoe, _few_matter(200, 100), n_warmup=1000, n_chunk=2500,
    target_accept=0.95,
)  # fmt: skip
add("spike_and_slab_50", spike_and_slab, _few_matter(200, 50), n_warmup=1000, n_chunk=2000)
add("two_lines_2000_rows", two_lines, _lines_data, convert=_exchanged, n_warmup=500, n_chunk=1000, dense_mass=True)
