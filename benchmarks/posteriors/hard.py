"""The classic hard posteriors as NumPyro models, with simulated data or data from the folder of data sets.

An `Entry` says where the data come from, and how the long NUTS run that gives its reference goes about it: on the model
as it is, or on an equivalent one that mixes better, whose draws are then converted.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

SEED = 20240


@dataclass(frozen=True)
class Entry:
    """A NumPyro model and its data.

    data: the folder of data sets (or None) -> arguments.   needs_data: whether that folder is needed.
    held_out: None for the classics, which anyone tunes on.
    exact: name of the `Density` that is the same posterior, coordinates in the order of the sorted sites.
    settings: of NUTS (see `reference.py`).   sampler, convert: the model NUTS runs on, and its draws -> this one's.
    """

    model: Callable
    data: Callable[[Path | None], tuple] = lambda root: ()
    held_out: bool | None = None
    needs_data: bool = False
    exact: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    sampler: Callable | None = None
    convert: Callable[[dict], dict] | None = None


def linear_recurrence(rate, input):
    """x_t = rate_t x_{t-1} + input_t from x_{-1} = 0, in log2(T) parallel steps; rate and input of shape (T,)."""

    def join(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    return jax.lax.associative_scan(join, (jnp.broadcast_to(rate, input.shape), input))[1]


def funnel():
    """Neal's funnel in 10 dimensions: v ~ N(0, 3), x_i ~ N(0, exp(v / 2))."""
    v = numpyro.sample("v", dist.Normal(0.0, 3.0))
    with numpyro.plate("coordinates", 9):
        numpyro.sample("x", dist.Normal(0.0, jnp.exp(0.5 * v)))


def horseshoe(x, y):
    """Regression with a non-centred horseshoe prior (Carvalho, Polson, Scott 2010)."""
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    with numpyro.plate("coefficients", x.shape[1]):
        local = numpyro.sample("lambda", dist.HalfCauchy(1.0))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ (z * local * tau), sigma), obs=y)


def horseshoe_split(x, y):
    """The same, each half-Cauchy scale as a half-normal times the root of an inverse gamma: lighter tails to sample."""
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    normal = numpyro.sample("normal", dist.HalfNormal(1.0).expand([x.shape[1] + 1]).to_event(1))
    mix = numpyro.sample("mix", dist.InverseGamma(0.5, 0.5).expand([x.shape[1] + 1]).to_event(1))
    scale = normal * jnp.sqrt(mix)
    with numpyro.plate("coefficients", x.shape[1]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ (z * scale[1:] * scale[0]), sigma), obs=y)


def _unsplit(draws):
    scale = np.asarray(draws["normal"]) * np.sqrt(np.asarray(draws["mix"]))
    return {"tau": scale[..., 0], "lambda": scale[..., 1:], "z": draws["z"], "sigma": draws["sigma"]}


def _horseshoe_data(root):
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((100, 10))
    beta = np.r_[3.0, -1.5, 1.0, np.zeros(7)]
    return x, x @ beta + rng.standard_normal(100)


def german_credit(x, y):
    """Logistic regression, w ~ N(0, tau), centred."""
    tau = numpyro.sample("tau", dist.HalfCauchy(1.0))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    with numpyro.plate("coefficients", x.shape[1]):
        w = numpyro.sample("w", dist.Normal(0.0, tau))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w + intercept), obs=y)


def german_credit_sparse(x, y):
    """Logistic regression with a scale for all and one for each coefficient, as in the Inference Gym."""
    scale = numpyro.sample("global_scale", dist.Gamma(0.5, 0.5))
    with numpyro.plate("coefficients", x.shape[1]):
        local = numpyro.sample("local_scales", dist.Gamma(0.5, 0.5))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=x @ (z * local * scale)), obs=y)


def _german_data(root):
    with np.load(Path(root) / "logistic" / "german_credit.npz") as file:
        x, y = file["X"].astype(np.float64), file["y"].astype(np.int32)
    return (x - x.mean(0)) / x.std(0), y


def _german_with_constant(root):
    x, y = _german_data(root)
    return np.column_stack([x, np.ones(len(x))]), y


def gp_poisson(x, y):
    """Counts with a Gaussian process as log rate: 100 latent values by Cholesky, and rho, alpha, sigma."""
    rho = numpyro.sample("rho", dist.InverseGamma(5.0, 5.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    with numpyro.plate("points", x.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    kernel = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)
    root = jnp.linalg.cholesky(kernel + (sigma**2 + 1e-4) * jnp.eye(x.shape[0]))
    with numpyro.plate("counts", x.shape[0]):
        numpyro.sample("y", dist.Poisson(jnp.exp(1.0 + root @ z)), obs=y)


def _gp_data(root):
    rng = np.random.default_rng(SEED + 1)
    x = np.linspace(-5.0, 5.0, 100)
    rate = np.exp(1.0 + 0.9 * np.sin(1.3 * x) + 0.1 * rng.standard_normal(100))
    return x, rng.poisson(rate)


def stochastic_volatility(y):
    """Returns with an AR(1) log volatility (Kim, Shephard, Chib 1998), non-centred: 3 + T latents."""
    mu, phi, sigma = _volatility_parameters()
    with numpyro.plate("times", y.shape[0]):
        h_std = numpyro.sample("h_std", dist.Normal(0.0, 1.0))
    shocks = sigma * h_std.at[0].divide(jnp.sqrt(1 - phi**2))
    h = mu + linear_recurrence(phi, shocks)
    with numpyro.plate("returns", y.shape[0]):
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(0.5 * h)), obs=y)


def stochastic_volatility_centered(y):
    """The same with the log volatilities themselves as latents."""
    mu, phi, sigma = _volatility_parameters()
    h = numpyro.sample("h", dist.ImproperUniform(dist.constraints.real, (), y.shape))
    mean = mu + phi * (h[:-1] - mu)
    prior = (
        dist.Normal(mu, sigma / jnp.sqrt(1 - phi**2)).log_prob(h[0]) + dist.Normal(mean, sigma).log_prob(h[1:]).sum()
    )
    numpyro.factor("h_prior", prior)
    with numpyro.plate("returns", y.shape[0]):
        numpyro.sample("y", dist.Normal(0.0, jnp.exp(0.5 * h)), obs=y)


def _volatility_parameters():
    mu = numpyro.sample("mu", dist.Cauchy(0.0, 5.0))
    half = numpyro.sample("half_phi", dist.Beta(20.0, 1.5))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.0))
    return mu, 2 * half - 1, sigma


def _volatility_data(root):
    rng = np.random.default_rng(SEED + 2)
    mu, phi, sigma = -1.0, 0.95, 0.25
    h = np.empty(500)
    h[0] = mu + sigma / np.sqrt(1 - phi**2) * rng.standard_normal()
    for t in range(1, 500):
        h[t] = mu + phi * (h[t - 1] - mu) + sigma * rng.standard_normal()
    return (np.exp(0.5 * h) * rng.standard_normal(500),)


def _volatilities(draws):
    """The draws of the non-centred model as draws of the centred one."""
    mu, half, sigma = (np.asarray(draws[name]) for name in ("mu", "half_phi", "sigma"))
    phi = 2 * half - 1
    h = sigma[..., None] * np.asarray(draws["h_std"])
    h[..., 0] /= np.sqrt(1 - phi**2)
    for t in range(1, h.shape[-1]):
        h[..., t] += phi * h[..., t - 1]
    return {"mu": mu, "half_phi": half, "sigma": sigma, "h": h + mu[..., None]}


ENTRIES = {
    "funnel": Entry(funnel, exact="funnel_density"),
    "horseshoe": Entry(
        horseshoe, _horseshoe_data, settings={"target_accept": 0.99}, sampler=horseshoe_split, convert=_unsplit
    ),
    "german_credit": Entry(german_credit, _german_data, needs_data=True),
    "german_credit_sparse": Entry(
        german_credit_sparse, _german_with_constant, needs_data=True, settings={"target_accept": 0.95}
    ),
    "gp_poisson": Entry(gp_poisson, _gp_data, settings={"chain_method": "sequential", "target_accept": 0.9}),
    "stochastic_volatility": Entry(stochastic_volatility, _volatility_data, settings={"target_accept": 0.95}),
    "stochastic_volatility_centered": Entry(
        stochastic_volatility_centered,
        _volatility_data,
        settings={"target_accept": 0.95},
        sampler=stochastic_volatility,
        convert=_volatilities,
    ),
}
