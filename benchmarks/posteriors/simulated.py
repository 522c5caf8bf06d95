"""Everyday posteriors with simulated data, each with something that makes inference go wrong: other posteriors.

About half of them are held out: no default may be chosen by looking at those.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from scipy.special import expit

from benchmarks.posteriors.hard import Entry, linear_recurrence

SEED = 31415


def _rng(number):
    return np.random.default_rng(SEED + number)


def _normal(scale, size):
    return dist.Normal(0.0, scale).expand([size]).to_event(1)


def _rows(distribution, y):
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", distribution, obs=y)


def garch11(y):
    """GARCH(1, 1); beta1 is the share of what alpha1 leaves below 1."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    alpha0 = numpyro.sample("alpha0", dist.HalfNormal(5.0))
    alpha1 = numpyro.sample("alpha1", dist.Uniform(0.0, 1.0))
    share = numpyro.sample("share", dist.Uniform(0.0, 1.0))
    beta1 = share * (1.0 - alpha1)
    first = jnp.var(y)
    inputs = alpha0 + alpha1 * (y[:-1] - mu) ** 2
    inputs = inputs.at[0].add(beta1 * first)
    variance = jnp.concatenate([first[None], linear_recurrence(beta1, inputs)])
    _rows(dist.Normal(mu, jnp.sqrt(variance)), y)


def _garch_data(root):
    rng, y, variance = _rng(0), np.empty(200), 1.0
    for t in range(200):
        y[t] = 0.5 + np.sqrt(variance) * rng.standard_normal()
        variance = 0.3 + 0.35 * (y[t] - 0.5) ** 2 + 0.4 * variance
    return (y,)


def poisson_years(year, count):
    """Poisson regression on a cubic of the year, with wide uniform priors (Kery and Schaub 2012, chapter 3)."""
    alpha = numpyro.sample("alpha", dist.Uniform(-20.0, 20.0))
    beta = numpyro.sample("beta", dist.Uniform(-10.0, 10.0).expand([3]).to_event(1))
    log_rate = alpha + beta[0] * year + beta[1] * year**2 + beta[2] * year**3
    _rows(dist.Poisson(jnp.exp(log_rate)), count)


def _poisson_data(root):
    year = (np.arange(1, 41) - 20.5) / 20
    rate = np.exp(4.2 + 1.2 * year - 0.15 * year**2 - 0.25 * year**3)
    return year, _rng(1).poisson(rate)


def near_separation(x, y):
    """Logistic regression in which the first column all but separates the classes; wide prior, long tail."""
    beta = numpyro.sample("beta", _normal(10.0, x.shape[1]))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 10.0))
    _rows(dist.Bernoulli(logits=intercept + x @ beta), y)


def _separated_data(root):
    rng = _rng(2)
    x = rng.standard_normal((60, 4))
    y = (x[:, 0] > 0).astype(np.int32)
    nearest = np.argsort(np.abs(x[:, 0]))[0]
    y[nearest] = 1 - y[nearest]
    return x, y


def autoregression_drift(y):
    """AR(1) with a drift close to a unit root: drift and coefficient are nearly one parameter."""
    drift = numpyro.sample("drift", dist.Normal(0.0, 10.0))
    phi = numpyro.sample("phi", dist.Normal(0.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    _rows(dist.Normal(drift + phi * y[:-1], sigma), y[1:])


def _drift_data(root):
    rng, y = _rng(3), np.empty(80)
    y[0] = 40.0
    for t in range(1, 80):
        y[t] = 2.0 + 0.95 * y[t - 1] + 0.7 * rng.standard_normal()
    return (y,)


def unscaled_regression(x, y):
    """Linear regression with flat priors on correlated columns whose scales differ by a factor of 1e5."""
    beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real, (), (x.shape[1],)))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(10.0))
    _rows(dist.Normal(x @ beta, sigma), y)


def _unscaled_data(root):
    rng = _rng(4)
    z = rng.standard_normal((100, 5))
    z[:, 1] += 3 * z[:, 0]
    columns = np.column_stack([np.ones(100), 1e-2 * z[:, 0], z[:, 1], 1e2 * z[:, 2] + 500, 1e3 * z[:, 3], 20 + z[:, 4]])
    beta = np.r_[3.0, 50.0, -1.0, 0.02, 0.001, 0.5]
    return columns, columns @ beta + rng.standard_normal(100)


def radon_centered(county, floor, y):
    """Varying intercepts for 85 counties, centred; some counties have one house (after Gelman and Hill 2007)."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("counties", 85):
        alpha = numpyro.sample("alpha", dist.Normal(mu, tau))
    _rows(dist.Normal(alpha[county] + beta * floor, sigma), y)


def _radon_data(root):
    rng = _rng(5)
    county = np.repeat(np.arange(85), rng.geometric(0.12, 85))
    floor = (rng.random(len(county)) < 0.17).astype(float)
    alpha = 1.4 + 0.3 * rng.standard_normal(85)
    return county, floor, alpha[county] - 0.7 * floor + 0.75 * rng.standard_normal(len(county))


def beta_binomial(trials, successes):
    """Success rates of 71 groups from a beta distribution with unknown mean and size (after the rat tumours)."""
    mean = numpyro.sample("mean", dist.Uniform(0.0, 1.0))
    size = numpyro.sample("size", dist.Pareto(0.1, 1.5))
    with numpyro.plate("groups", trials.shape[0]):
        theta = numpyro.sample("theta", dist.Beta(mean * size, (1 - mean) * size))
        numpyro.sample("successes", dist.Binomial(trials, probs=theta), obs=successes)


def _rats_data(root):
    rng = _rng(6)
    trials = rng.integers(10, 50, 71)
    return trials, rng.binomial(trials, rng.beta(2.2, 13.0, 71))


def student_regression(x, y):
    """Regression with Student t noise of unknown degrees of freedom, and outliers in the data."""
    beta = numpyro.sample("beta", _normal(10.0, x.shape[1]))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 10.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    nu = numpyro.sample("nu", dist.Gamma(2.0, 0.1))
    _rows(dist.StudentT(nu, intercept + x @ beta, sigma), y)


def _student_data(root):
    rng = _rng(7)
    x = rng.standard_normal((100, 3))
    return x, 1.0 + x @ np.r_[1.0, -2.0, 0.5] + 0.5 * rng.standard_t(3.0, 100)


def negative_binomial(x, y):
    """Overdispersed counts with a log link."""
    beta = numpyro.sample("beta", _normal(5.0, x.shape[1]))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    concentration = numpyro.sample("concentration", dist.HalfCauchy(5.0))
    _rows(dist.NegativeBinomial2(jnp.exp(intercept + x @ beta), concentration), y)


def _negative_binomial_data(root):
    rng = _rng(8)
    x = rng.standard_normal((150, 3))
    mean = np.exp(1.0 + x @ np.r_[0.8, -0.4, 0.1])
    return x, rng.negative_binomial(1.5, 1.5 / (1.5 + mean))


def ordered_logit(x, y):
    """Five ordered answers; the four cut points are ordered."""
    beta = numpyro.sample("beta", _normal(5.0, x.shape[1]))
    cuts = numpyro.sample("cuts", dist.ImproperUniform(constraints.ordered_vector, (), (4,)))
    numpyro.factor("cuts_prior", dist.Normal(0.0, 5.0).log_prob(cuts).sum())
    _rows(dist.OrderedLogistic(x @ beta, cuts), y)


def _ordered_data(root):
    rng = _rng(9)
    x = rng.standard_normal((150, 3))
    latent = x @ np.r_[1.5, -0.7, 0.0] + rng.logistic(size=150)
    return x, np.digitize(latent, [-3.5, -1.0, 0.0, 2.5])


def item_response_1pl(y):
    """Rasch model: 50 students, 20 items; centred abilities of unknown spread."""
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    theta = numpyro.sample("theta", dist.Normal(0.0, sigma).expand([y.shape[0]]).to_event(1))
    difficulty = numpyro.sample("difficulty", dist.Normal(mu, 1.0).expand([y.shape[1]]).to_event(1))
    _answers(theta[:, None] - difficulty, y)


def item_response_2pl(y):
    """The same with a positive discrimination for each item, which trades off against the abilities."""
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    theta = numpyro.sample("theta", _normal(1.0, y.shape[0]))
    difficulty = numpyro.sample("difficulty", _normal(2.0, y.shape[1]))
    discrimination = numpyro.sample("discrimination", dist.LogNormal(0.0, spread).expand([y.shape[1]]).to_event(1))
    _answers(discrimination * (theta[:, None] - difficulty), y)


def item_response_standardised(y):
    """The same with standardised log discriminations: what the reference is drawn from."""
    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    theta = numpyro.sample("theta", _normal(1.0, y.shape[0]))
    difficulty = numpyro.sample("difficulty", _normal(2.0, y.shape[1]))
    z = numpyro.sample("z", _normal(1.0, y.shape[1]))
    _answers(jnp.exp(spread * z) * (theta[:, None] - difficulty), y)


def _discriminations(draws):
    kept = {name: draws[name] for name in ("spread", "theta", "difficulty")}
    return kept | {"discrimination": np.exp(np.asarray(draws["spread"])[..., None] * np.asarray(draws["z"]))}


def _answers(logits, y):
    with numpyro.plate("students", y.shape[0], dim=-2), numpyro.plate("items", y.shape[1], dim=-1):
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def _item_data(number, spread):
    def make(root):
        rng = _rng(number)
        theta, difficulty = rng.standard_normal((50, 1)), 0.3 + 1.2 * rng.standard_normal(20)
        discrimination = np.exp(spread * rng.standard_normal(20))
        return ((rng.random((50, 20)) < expit(discrimination * (theta - difficulty))).astype(np.int32),)

    return make


def varying_slopes(group, x, y):
    """Four correlated coefficients for each of 15 groups: LKJ prior on their correlation, non-centred."""
    mu = numpyro.sample("mu", _normal(2.0, 4))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0).expand([4]).to_event(1))
    root = numpyro.sample("root", dist.LKJCholesky(4, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([15, 4]).to_event(2))
    beta = mu + z @ (tau[:, None] * root).T
    _rows(dist.Normal((x * beta[group]).sum(1), sigma), y)


def _slopes_data(root):
    rng = _rng(12)
    covariance = np.outer(s := np.r_[0.8, 0.5, 0.3, 0.1], s) * (0.4 * np.eye(4) + 0.6)
    beta = np.r_[1.0, -1.0, 0.5, 0.0] + rng.standard_normal((15, 4)) @ np.linalg.cholesky(covariance).T
    group = np.repeat(np.arange(15), 12)
    x = np.column_stack([np.ones(180), rng.standard_normal((180, 3))])
    return group, x, (x * beta[group]).sum(1) + 0.6 * rng.standard_normal(180)


def seeds_centered(x, trials, successes):
    """Germination in 21 plots: a binomial regression with centred plot effects of a small scale (after BUGS' seeds)."""
    beta = numpyro.sample("beta", _normal(5.0, x.shape[1]))
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    with numpyro.plate("plots", x.shape[0]):
        effect = numpyro.sample("effect", dist.Normal(0.0, tau))
        numpyro.sample("successes", dist.Binomial(trials, logits=x @ beta + effect), obs=successes)


def seeds_standardised(x, trials, successes):
    """The same, non-centred: what the reference is drawn from."""
    beta = numpyro.sample("beta", _normal(5.0, x.shape[1]))
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    with numpyro.plate("plots", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("successes", dist.Binomial(trials, logits=x @ beta + tau * z), obs=successes)


def _seeds_data(root):
    rng = _rng(13)
    kind, extract = np.repeat([0.0, 1.0], [11, 10]), np.r_[np.tile([0.0, 1.0], 10), 0.0]
    x = np.column_stack([np.ones(21), kind, extract, kind * extract])
    trials = rng.integers(4, 82, 21)
    logits = x @ np.r_[-0.5, 0.1, 1.3, -0.8] + 0.25 * rng.standard_normal(21)
    return x, trials, rng.binomial(trials, expit(logits))


def growth_curve(age, length):
    """A saturating curve alpha - beta * gamma^age, barely observed to saturate (after BUGS' dugongs)."""
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.HalfNormal(10.0))
    gamma = numpyro.sample("gamma", dist.Uniform(0.5, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(1.0))
    _rows(dist.Normal(alpha - beta * gamma**age, sigma), length)


def _growth_data(root):
    rng = _rng(14)
    age = np.sort(np.round(rng.uniform(1.0, 20.0, 27), 1))
    return age, 2.7 - 1.1 * 0.85**age + 0.08 * rng.standard_normal(27)


def _effects(draws):
    z, tau = np.asarray(draws["z"]), np.asarray(draws["tau"])
    return {"beta": draws["beta"], "tau": tau, "effect": tau[..., None] * z}


CAREFUL = {"target_accept": 0.95}

ENTRIES = {
    "garch11": Entry(garch11, _garch_data, held_out=False),
    "near_separation": Entry(near_separation, _separated_data, held_out=False),
    "unscaled_regression": Entry(unscaled_regression, _unscaled_data, held_out=False, settings={"dense_mass": True}),
    "beta_binomial": Entry(beta_binomial, _rats_data, held_out=False, settings=CAREFUL),
    "negative_binomial": Entry(negative_binomial, _negative_binomial_data, held_out=False),
    "item_response_1pl": Entry(item_response_1pl, _item_data(10, 0.0), held_out=False),
    "varying_slopes": Entry(varying_slopes, _slopes_data, held_out=False, settings=CAREFUL),
    "poisson_years": Entry(poisson_years, _poisson_data, held_out=True),
    "autoregression_drift": Entry(autoregression_drift, _drift_data, held_out=True, settings={"dense_mass": True}),
    "radon_centered": Entry(radon_centered, _radon_data, held_out=True),
    "student_regression": Entry(student_regression, _student_data, held_out=True),
    "ordered_logit": Entry(ordered_logit, _ordered_data, held_out=True),
    "item_response_2pl": Entry(
        item_response_2pl,
        _item_data(11, 0.5),
        held_out=True,
        settings=CAREFUL,
        sampler=item_response_standardised,
        convert=_discriminations,
    ),
    "growth_curve": Entry(growth_curve, _growth_data, held_out=True, settings={**CAREFUL, "dense_mass": True}),
    "seeds_centered": Entry(
        seeds_centered, _seeds_data, held_out=True, settings=CAREFUL, sampler=seeds_standardised, convert=_effects
    ),
}
