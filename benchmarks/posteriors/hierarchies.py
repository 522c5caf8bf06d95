"""Forty hierarchies as people write them in NumPyro, with simulated data; every other one is held out.

Each constructor takes `centred`: whether effects are sampled around their mean at their scale, or standardised. References
come from the standardised form, which reaches the neck where a scale is near zero; there the effects are deterministic
sites of the same names.
"""

import functools
import zlib
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import expit

from benchmarks.posteriors.hard import Entry, linear_recurrence

SCALES = {
    "half-Cauchy": lambda: dist.HalfCauchy(1.0),
    "half-normal": lambda: dist.HalfNormal(1.0),
    "exponential": lambda: dist.Exponential(1.0),
    "inverse-gamma": lambda: dist.InverseGamma(2.0, 0.5),  # of the variance
}
CAREFUL = {"target_accept": 0.95, "n_warmup": 1000}
ENTRIES: dict[str, Entry] = {}


# ---- the parts that models are written from --------------------------------------------------------------------------
def _scale(name: str, prior: str):
    found = numpyro.sample(name, SCALES[prior]())
    return jnp.sqrt(found) if prior == "inverse-gamma" else found


def _normal(name: str, loc, scale, size, centred: bool):
    """Effects, of a last axis `size`."""
    if centred:
        return numpyro.sample(name, dist.Normal(loc, scale).expand([size]).to_event(1))
    return numpyro.deterministic(
        name, loc + scale * numpyro.sample(f"{name}_z", dist.Normal().expand([size]).to_event(1))
    )


def _half_cauchies(name: str, size: int, centred: bool):
    """Standard ones; else each as a half-normal times the root of an inverse gamma, which has lighter tails to sample."""
    if centred:
        return numpyro.sample(name, dist.HalfCauchy(1.0).expand([size]).to_event(1))
    normal = numpyro.sample(f"{name}_normal", dist.HalfNormal(1.0).expand([size]).to_event(1))
    mix = numpyro.sample(f"{name}_mix", dist.InverseGamma(0.5, 0.5).expand([size]).to_event(1))
    return numpyro.deterministic(name, normal * jnp.sqrt(mix))


def _fixed(name: str, scale: float, size: int):
    return numpyro.sample(name, dist.Normal(0.0, scale).expand([size]).to_event(1))


def _observe(law: str, eta, trials, y):
    """The likelihood, with what it has of its own."""
    if law == "normal":
        likelihood = dist.Normal(eta, numpyro.sample("sigma", dist.HalfNormal(1.0)))
    elif law == "binomial":
        likelihood = dist.Binomial(trials, logits=eta)
    elif law == "poisson":
        likelihood = dist.Poisson(jnp.exp(eta))
    else:
        likelihood = dist.NegativeBinomial2(jnp.exp(eta), numpyro.sample("concentration", dist.HalfCauchy(5.0)))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", likelihood, obs=y)


def _simulated(rng: np.random.Generator, law: str, eta: np.ndarray, most: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """(trials, y)."""
    trials = rng.integers(1, most + 1, len(eta)) if law == "binomial" else np.ones(len(eta), int)
    if law == "normal":
        return trials, eta + 0.7 * rng.standard_normal(len(eta))
    if law == "binomial":
        return trials, rng.binomial(trials, expit(eta))
    rate = np.exp(eta)
    return trials, rng.poisson(rate if law == "poisson" else rate * rng.gamma(2.0, 0.5, len(eta)))


def _add(
    name: str, constructor: Callable, centred: bool, data: Callable[[np.random.Generator], tuple], **settings
) -> None:
    """The model, whose reference is sampled from the standardised form."""
    seeded = lambda root: data(np.random.default_rng(zlib.crc32(name.encode())))
    sampler = functools.partial(constructor, centred=False) if centred else None
    model = functools.partial(constructor, centred=centred)
    ENTRIES[name] = Entry(model, seeded, len(ENTRIES) % 2 == 1, settings=CAREFUL | settings, sampler=sampler)


# ---- generalised linear mixed models: groups, crossed or nested ------------------------------------------------------
def mixed(x, level, trials, y, *, law: str, sizes: Sequence[int], prior: str, centred: bool):
    """Coefficients of x; for each grouping a scale, and a normal effect of each of its levels. The first has the mean."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.5))
    eta = x @ _fixed("beta", 2.5, x.shape[1])
    for k, size in enumerate(sizes):
        effect = _normal(f"effect{k}", 0.0 if k else mean, _scale(f"tau{k}", prior), size, centred)
        eta = eta + effect[level[:, k]]
    _observe(law, eta, trials, y)


def _mixed(
    name: str, law: str, sizes: Sequence[int], repeats: int, prior: str, centred: bool, truth: Sequence[float],
    nested: bool = False,
) -> None:  # fmt: skip
    """sizes: levels of each grouping; each cell (nested: each level of the last) is seen `repeats` times."""

    def data(rng):
        if nested:
            last = np.arange(sizes[-1])
            cells = np.column_stack([last * size // sizes[-1] for size in sizes])
        else:
            cells = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))
        level = np.repeat(cells, repeats, 0)
        x = rng.standard_normal((len(level), 2))
        eta = 0.5 + x @ np.r_[0.5, -0.3]
        for k, (size, tau) in enumerate(zip(sizes, truth, strict=True)):
            eta += tau * rng.standard_normal(size)[level[:, k]]
        return x, level, *_simulated(rng, law, eta)

    _add(name, functools.partial(mixed, law=law, sizes=sizes, prior=prior), centred, data)


_mixed("groups_normal", "normal", [8], 4, "half-Cauchy", True, [0.5])
_mixed("groups_normal_standardised", "normal", [20], 6, "half-normal", False, [0.8])
_mixed("groups_binomial", "binomial", [12], 1, "half-Cauchy", True, [0.6])
_mixed("groups_binomial_standardised", "binomial", [30], 2, "exponential", False, [0.7])
_mixed("groups_poisson", "poisson", [15], 3, "inverse-gamma", True, [0.5])
_mixed("groups_poisson_standardised", "poisson", [50], 2, "half-Cauchy", False, [0.4])
_mixed("groups_counts", "negative binomial", [10], 8, "exponential", True, [0.6])
_mixed("groups_counts_standardised", "negative binomial", [25], 4, "half-normal", False, [0.8])
_mixed("crossed_normal", "normal", [20, 10], 1, "half-Cauchy", True, [0.6, 0.3])
_mixed("crossed_normal_standardised", "normal", [8, 5], 1, "exponential", False, [0.5, 0.3])
_mixed("crossed_binomial", "binomial", [12, 6], 1, "exponential", True, [0.5, 0.8])
_mixed("crossed_poisson_standardised", "poisson", [15, 8], 1, "half-normal", False, [0.3, 0.5])
_mixed("crossed_counts", "negative binomial", [10, 6], 2, "half-Cauchy", True, [0.5, 0.2])
_mixed("crossed_three_ways", "poisson", [6, 5, 4], 1, "half-normal", True, [0.4, 0.2, 0.1])
_mixed("nested_normal", "normal", [6, 24], 4, "half-Cauchy", True, [0.6, 0.3], nested=True)
_mixed("nested_binomial_standardised", "binomial", [5, 20], 3, "half-normal", False, [0.6, 0.4], nested=True)
_mixed("nested_poisson", "poisson", [6, 18], 3, "exponential", True, [0.4, 0.3], nested=True)
_mixed("nested_counts", "negative binomial", [4, 16], 4, "half-normal", True, [0.5, 0.3], nested=True)
_mixed("no_scale_normal", "normal", [10], 3, "half-Cauchy", True, [0.0])
_mixed("no_scale_binomial", "binomial", [21], 1, "half-Cauchy", True, [0.05])
_mixed("no_scale_poisson_standardised", "poisson", [5], 3, "exponential", False, [0.0])
_mixed("one_scale_of_two", "normal", [8, 6], 1, "half-normal", True, [0.7, 0.0])


# ---- varying slopes, their correlation with an LKJ prior -------------------------------------------------------------
def slopes(x, group, trials, y, *, law: str, size: int, prior: str, centred: bool):
    """Correlated coefficients of each group."""
    k = x.shape[1]
    mean = _fixed("mean", 2.0, k)
    tau = numpyro.sample("tau", SCALES[prior]().expand([k]).to_event(1))
    root = tau[:, None] * numpyro.sample("root", dist.LKJCholesky(k, 2.0))
    if centred:
        with numpyro.plate("groups", size):
            beta = numpyro.sample("beta", dist.MultivariateNormal(mean, scale_tril=root))
    else:
        z = numpyro.sample("z", dist.Normal().expand([size, k]).to_event(2))
        beta = numpyro.deterministic("beta", mean + z @ root.T)
    _observe(law, (x * beta[group]).sum(1), trials, y)


def _slopes(name: str, law: str, size: int, k: int, repeats: int, prior: str, centred: bool) -> None:
    def data(rng):
        group = np.repeat(np.arange(size), repeats)
        x = np.column_stack([np.ones(len(group)), rng.standard_normal((len(group), k - 1))])
        mixing = np.linalg.cholesky(0.5 * np.eye(k) + 0.5) * np.geomspace(0.6, 0.2, k)[:, None]
        beta = np.r_[0.7, np.full(k - 1, -0.4)] + rng.standard_normal((size, k)) @ mixing.T
        return x, group, *_simulated(rng, law, (x * beta[group]).sum(1))

    _add(name, functools.partial(slopes, law=law, size=size, prior=prior), centred, data)


_slopes("slopes_normal", "normal", 10, 2, 6, "half-Cauchy", True)
_slopes("slopes_normal_standardised", "normal", 20, 3, 6, "exponential", False)
_slopes("slopes_poisson", "poisson", 12, 2, 4, "exponential", True)
_slopes("slopes_of_few", "normal", 5, 3, 8, "half-normal", True)


# ---- covariates that are measured with error -------------------------------------------------------------------------
def measured(seen, error, trials, y, *, law: str, centred: bool):
    """A regression on the true values, which are only seen with an error of known size."""
    alpha, slope = numpyro.sample("alpha", dist.Normal(0.0, 2.0)), numpyro.sample("slope", dist.Normal(0.0, 2.0))
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    true = _normal("true", mu, numpyro.sample("tau", dist.HalfCauchy(1.0)), len(seen), centred)
    numpyro.sample("seen", dist.Normal(true, error).to_event(1), obs=seen)
    _observe(law, alpha + slope * true, trials, y)


def _measured(name: str, law: str, n: int, centred: bool) -> None:
    def data(rng):
        true, error = 1.0 + 0.8 * rng.standard_normal(n), rng.uniform(0.2, 0.8, n)
        seen = true + error * rng.standard_normal(n)
        return seen, error, *_simulated(rng, law, -0.2 + 0.9 * true)

    _add(name, functools.partial(measured, law=law), centred, data)


_measured("measured_normal", "normal", 30, True)
_measured("measured_poisson", "poisson", 25, True)


# ---- series: a local level, an autoregression ------------------------------------------------------------------------
def level(trials, y, *, law: str, prior: str, persistent: bool, centred: bool):
    """A random walk from 0 about a mean; or, not persistent, an autoregression of order one from its stationary law."""
    mean, sigma, n = numpyro.sample("mean", dist.Normal(0.0, 2.0)), _scale("step", prior), len(y)
    if persistent:
        walk = lambda: numpyro.sample("path", dist.GaussianRandomWalk(sigma, num_steps=n))
        path = walk() if centred else numpyro.deterministic("path", jnp.cumsum(sigma * _fixed("z", 1.0, n)))
    else:
        phi = numpyro.sample("phi", dist.Beta(8.0, 2.0))
        first = jnp.sqrt(1 - phi**2)
        if centred:
            path = numpyro.sample("path", dist.ImproperUniform(dist.constraints.real, (), (n,)))
            numpyro.factor("first", dist.Normal(0.0, sigma / first).log_prob(path[0]))
            numpyro.factor("later", dist.Normal(phi * path[:-1], sigma).log_prob(path[1:]).sum())
        else:
            shocks = sigma * _fixed("z", 1.0, n)
            path = numpyro.deterministic("path", linear_recurrence(phi, shocks.at[0].divide(first)))
    _observe(law, mean + path, trials, y)


def _level(name: str, law: str, n: int, prior: str, persistent: bool, truth: float, **settings) -> None:
    def data(rng):
        path = np.zeros(n)
        for t in range(n):
            path[t] = (1.0 if persistent else 0.8) * path[t - 1] + truth * rng.standard_normal()
        return _simulated(rng, law, 0.5 + path)

    _add(name, functools.partial(level, law=law, prior=prior, persistent=persistent), True, data, **settings)


_level("level_normal", "normal", 24, "half-Cauchy", True, 0.4, dense_mass=True, target_accept=0.98)
_level("level_poisson", "poisson", 30, "exponential", True, 0.3)
_level("autoregression_binomial", "binomial", 20, "half-normal", False, 0.5, dense_mass=True)


# ---- item response ---------------------------------------------------------------------------------------------------
def answers(y, *, discriminating: bool, centred: bool):
    """Abilities, and difficulties around a mean, of unknown spread; or abilities of spread 1, and discriminations."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    difficulty = _normal("difficulty", mu, numpyro.sample("spread", dist.HalfCauchy(1.0)), y.shape[1], centred)
    if discriminating:
        ability = _fixed("ability", 1.0, y.shape[0])
        log = _normal("log_slope", 0.0, numpyro.sample("slope_spread", dist.HalfNormal(0.5)), y.shape[1], centred)
        logits = jnp.exp(log) * (ability[:, None] - difficulty)
    else:
        ability = _normal("ability", 0.0, numpyro.sample("tau", dist.HalfNormal(1.0)), y.shape[0], centred)
        logits = ability[:, None] - difficulty
    numpyro.sample("y", dist.Bernoulli(logits=logits).to_event(2), obs=y)


def _answers(name: str, people: int, items: int, discriminating: bool) -> None:
    def data(rng):
        ability, difficulty = rng.standard_normal((people, 1)), rng.standard_normal(items)
        slope = np.exp(0.3 * rng.standard_normal(items)) if discriminating else 1.0
        return ((rng.random((people, items)) < expit(slope * (ability - difficulty))).astype(np.int32),)

    _add(name, functools.partial(answers, discriminating=discriminating), True, data)


_answers("answers_1pl", 30, 8, False)
_answers("answers_2pl", 24, 8, True)


# ---- coefficients most of which are near zero ------------------------------------------------------------------------
def sparse(x, trials, y, *, law: str, prior: str, centred: bool):
    """Coefficients of a scale for all and one of each: Laplace's, or a horseshoe that ends in a slab."""
    k = x.shape[1]
    if prior == "laplace":
        tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
        scale = tau * jnp.sqrt(numpyro.sample("mix", dist.Exponential(0.5).expand([k]).to_event(1)))
    else:
        scale = _half_cauchies("tau", 1, centred)[0] * _half_cauchies("local", k, centred)
        slab = numpyro.sample("slab", dist.InverseGamma(3.0, 6.0))
        scale = scale * jnp.sqrt(slab / (slab + scale**2))
    _observe(law, x @ _normal("beta", 0.0, scale, k, centred), trials, y)


def _sparse(name: str, law: str, n: int, k: int, prior: str, centred: bool, **settings) -> None:
    def data(rng):
        x = rng.standard_normal((n, k))
        return x, *_simulated(rng, law, x @ np.r_[1.5, -0.8, np.zeros(k - 2)], most=4)

    _add(name, functools.partial(sparse, law=law, prior=prior), centred, data, **settings)


_sparse("bayesian_lasso_binomial", "binomial", 60, 6, "laplace", True)
_sparse("horseshoe_slab", "normal", 60, 8, "slab", True, target_accept=0.98)
_sparse("bayesian_lasso", "normal", 50, 8, "laplace", True)


# ---- meta-analysis ---------------------------------------------------------------------------------------------------
def studies(estimate, error, *, prior: str, centred: bool):
    """Effects of studies about a mean effect, each estimated with a known standard error."""
    mu, tau = numpyro.sample("mu", dist.Normal(0.0, 2.0)), _scale("tau", prior)
    theta = _normal("theta", mu, tau, len(estimate), centred)
    numpyro.sample("estimate", dist.Normal(theta, error).to_event(1), obs=estimate)


def arms(size, events, *, centred: bool):
    """Events in the two arms of each trial: a baseline and a log odds ratio for each."""
    n = size.shape[1]
    mean, mu = numpyro.sample("mean", dist.Normal(0.0, 2.0)), numpyro.sample("mu", dist.Normal(0.0, 1.0))
    baseline = _normal("baseline", mean, numpyro.sample("spread", dist.HalfNormal(1.0)), n, centred)
    effect = _normal("effect", mu, numpyro.sample("tau", dist.HalfCauchy(0.5)), n, centred)
    logits = jnp.stack([baseline, baseline + effect])
    numpyro.sample("events", dist.Binomial(size, logits=logits).to_event(2), obs=events)


def _studies(name: str, n: int, prior: str, centred: bool, truth: float) -> None:
    def data(rng):
        error = rng.uniform(0.1, 0.6, n)
        return 0.4 + np.hypot(truth, error) * rng.standard_normal(n), error

    _add(name, functools.partial(studies, prior=prior), centred, data)


def _arms_data(rng):
    size, baseline = rng.integers(15, 80, (2, 10)), -1.0 + 0.6 * rng.standard_normal(10)
    return size, rng.binomial(size, expit(np.stack([baseline, baseline + 0.5 + 0.2 * rng.standard_normal(10)])))


_studies("studies_half_cauchy", 12, "half-Cauchy", True, 0.2)
_studies("studies_inverse_gamma", 6, "inverse-gamma", True, 0.3)
_studies("studies_of_no_scale", 20, "half-normal", True, 0.0)
_add("studies_with_arms", arms, True, _arms_data)
