"""Long series: one step after the other, in a loop of thousands."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro.contrib.control_flow import scan

from benchmarks.posteriors.priced.base import add, single


def autoregression(y):
    """Of order two, as in NumPyro's examples: each value is observed inside the loop."""
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 1.0))
    phi1 = numpyro.sample("phi1", dist.Normal(0.0, 1.0))
    phi2 = numpyro.sample("phi2", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))

    def step(carry, value):
        before, last = carry
        numpyro.sample("y", dist.Normal(alpha + phi1 * last + phi2 * before, sigma), obs=value)
        return (last, value), None

    scan(step, (y[0], y[1]), y[2:])


def _autoregressive(rng):
    y = np.zeros(5_002)
    for t in range(2, len(y)):
        y[t] = 0.3 + 0.6 * y[t - 1] + 0.25 * y[t - 2] + 0.5 * rng.standard_normal()
    return single(y)


def local_level(y):
    """A random walk seen with noise; the walk is integrated out by the Kalman filter."""
    step = numpyro.sample("step", dist.HalfNormal(1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))

    def update(carry, value):
        mean, variance = carry
        total = variance + noise**2
        gain = variance / total
        log_p = dist.Normal(mean, jnp.sqrt(total)).log_prob(value)
        return (mean + gain * (value - mean), variance * (1 - gain) + step**2), log_p

    numpyro.factor("y", jax.lax.scan(update, (jnp.zeros_like(step), 100.0 + step**2), y)[1].sum())


def local_trend(y):
    """The same with a slope that walks too: a state of two."""
    steps = numpyro.sample("steps", dist.HalfNormal(jnp.array([1.0, 0.1])).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    move = jnp.array([[1.0, 1.0], [0.0, 1.0]])

    def update(carry, value):
        mean, covariance = carry
        total = covariance[0, 0] + noise**2
        gain = covariance[:, 0] / total
        log_p = dist.Normal(mean[0], jnp.sqrt(total)).log_prob(value)
        mean, covariance = mean + gain * (value - mean[0]), covariance - jnp.outer(gain, gain) * total
        return (move @ mean, move @ covariance @ move.T + jnp.diag(steps**2)), log_p

    numpyro.factor("y", jax.lax.scan(update, (jnp.zeros(2), jnp.diag(jnp.array([100.0, 1.0]))), y)[1].sum())


def _level(n: int):
    return lambda rng: single(np.cumsum(0.2 * rng.standard_normal(n)) + 0.6 * rng.standard_normal(n))


def _trend(rng):
    slope = np.cumsum(0.02 * rng.standard_normal(1_500))
    return single(np.cumsum(slope + 0.2 * rng.standard_normal(1_500)) + 0.7 * rng.standard_normal(1_500))


def garch(y):
    """GARCH(1, 1), the variance step by step."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    omega = numpyro.sample("omega", dist.HalfNormal(1.0))
    alpha = numpyro.sample("alpha", dist.Uniform(0.0, 1.0))
    share = numpyro.sample("share", dist.Uniform(0.0, 1.0))
    beta = share * (1.0 - alpha)

    def update(variance, value):
        return omega + alpha * (value - mu) ** 2 + beta * variance, variance

    variance = jax.lax.scan(update, jnp.full_like(omega, jnp.var(y)), y)[1]
    with numpyro.plate("times", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu, jnp.sqrt(variance)), obs=y)


def _garch_data(rng):
    y, variance = np.empty(3_000), 1.0
    for t in range(len(y)):
        y[t] = 0.1 + np.sqrt(variance) * rng.standard_normal()
        variance = 0.1 + 0.12 * (y[t] - 0.1) ** 2 + 0.8 * variance
    return single(y)


def hidden_markov(y):
    """Three states with normal values, whose means are in order; the states are summed over by the forward algorithm."""
    with numpyro.plate("states", 3):
        rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones(3)))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    ordered = dist.transforms.OrderedTransform()
    mean = numpyro.sample("mean", dist.TransformedDistribution(dist.Normal(0.0, 2.0).expand([3]).to_event(1), ordered))
    emission = dist.Normal(mean, sigma).log_prob(y[:, None])
    moves = jnp.log(rows)

    def forward(log_p, seen):
        return logsumexp(log_p[:, None] + moves, axis=0) + seen, None

    numpyro.factor("y", logsumexp(jax.lax.scan(forward, emission[0] - jnp.log(3.0), emission[1:])[0]))


def _states(rng):
    rows = np.array([[0.9, 0.07, 0.03], [0.05, 0.9, 0.05], [0.05, 0.1, 0.85]])
    state, y = 0, np.empty(2_000)
    for t in range(len(y)):
        state = rng.choice(3, p=rows[state])
        y[t] = [-1.5, 0.2, 2.0][state] + [0.5, 0.7, 0.6][state] * rng.standard_normal()
    return single(y)


def volatility(y):
    """An autoregressive log volatility from standardised shocks, step by step."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    phi = numpyro.sample("phi", dist.Uniform(-1.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    with numpyro.plate("times", y.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))

    def step(h, shock):
        h = phi * h + sigma * shock
        return h, h

    h = mu + jax.lax.scan(step, jnp.zeros(()), z.at[0].divide(jnp.sqrt(1.0 - phi**2)))[1]
    with numpyro.plate("returns", y.shape[0]):
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(0.5 * h)), obs=y)


def _returns(rng):
    h, y = -1.0, np.empty(500)
    for t in range(len(y)):
        h = -1.0 + 0.95 * (h + 1.0) + 0.3 * rng.standard_normal()
        y[t] = np.exp(0.5 * h) * rng.standard_normal()
    return single(y)


add("autoregression_5000", autoregression, _autoregressive, whiten=autoregression)
add("level_2000_steps", local_level, _level(2_000), whiten=local_level)
add("level_10000_steps", local_level, _level(10_000), whiten=local_level)
add("trend_1500_steps", local_trend, _trend, whiten=local_trend)
add("garch_3000_steps", garch, _garch_data, whiten=garch)
add("hidden_markov_2000", hidden_markov, _states, whiten=hidden_markov)
add("volatility_500_steps", volatility, _returns, whiten=volatility, n_warmup=400, target_accept=0.85)
