"""A selection of posteriordb as NumPyro models.

Each model has the density of its Stan program up to a constant, with one site per Stan parameter, named alike. Flat
priors are `ImproperUniform`, so such models have no prior to sample from. Data and draws are read from a folder that
holds `data/<data>.json` (the data as posteriordb gives them) and `draws/<posterior>.npz` (one array per Stan parameter,
shaped chains x draws x parameter).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints


@dataclass(frozen=True)
class Posterior:
    """A model with its data; `reference()` reads the reference draws.

    The draws are constrained values in float64, one array per latent site, shaped (draws of all chains, *site shape).
    """

    name: str
    model: Callable
    args: tuple
    kwargs: dict
    reference: Callable[[], dict[str, np.ndarray]]


def _flat(support, *shape):
    return dist.ImproperUniform(support, (), shape)


def _normal(scale, size):
    return dist.Normal(0.0, scale).expand([size]).to_event(1)


def _observe(mean, scale, y):
    with numpyro.plate("observations", y.shape[0]):
        numpyro.sample("y", dist.Normal(mean, scale), obs=y)


def autoregression(lags, y):
    """AR(K); column k of `lags` is the series k + 1 steps before `y`."""
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", _normal(10.0, lags.shape[1]))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    _observe(alpha + lags @ beta, sigma, y)


def arma11(y):
    """ARMA(1, 1) conditional on a zero error, and the value `mu`, before the first observation.

    The errors grow like |theta|**T and overflow in single precision from |theta| of about 1.2 on; the log density is
    then not finite, which is left to the caller instead of raised by argument validation.
    """
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    phi = numpyro.sample("phi", dist.Normal(0.0, 2.0))
    theta = numpyro.sample("theta", dist.Normal(0.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))

    def step(error, pair):
        previous, current = pair
        nu = mu + phi * previous + theta * error
        return current - nu, nu

    previous = jnp.concatenate([mu[None], y[:-1]])
    _, nu = jax.lax.scan(step, jnp.zeros_like(mu), (previous, jnp.asarray(y)))
    with numpyro.plate("observations", y.shape[0]):
        numpyro.sample("y", dist.Normal(nu, sigma, validate_args=False), obs=y)


def flat_regression(x, y):
    """Linear regression with flat priors on the coefficients and on the scale."""
    beta = numpyro.sample("beta", _flat(constraints.real, x.shape[1]))
    sigma = numpyro.sample("sigma", _flat(constraints.positive))
    _observe(x @ beta, sigma, y)


def half_cauchy_regression(x, y):
    """Linear regression with flat coefficients and a half-Cauchy scale."""
    beta = numpyro.sample("beta", _flat(constraints.real, x.shape[1]))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    _observe(x @ beta, sigma, y)


def normal_regression(x, y):
    """Linear regression with normal coefficients and a half-normal scale."""
    beta = numpyro.sample("beta", _normal(10.0, x.shape[1]))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
    _observe(x @ beta, sigma, y)


def diamonds(x, y):
    """Linear regression on centred covariates with an intercept of its own."""
    b = numpyro.sample("b", _normal(1.0, x.shape[1]))
    intercept = numpyro.sample("Intercept", dist.StudentT(3.0, 8.0, 10.0))
    sigma = numpyro.sample("sigma", dist.FoldedDistribution(dist.StudentT(3.0, 0.0, 10.0)))
    _observe(intercept + x @ b, sigma, y)


def eight_schools_centered(y, scale):
    """Eight schools with the effects as parameters."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", y.shape[0]):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, scale), obs=y)


def eight_schools_noncentered(y, scale):
    """Eight schools with the standardised effects as parameters."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", y.shape[0]):
        theta_trans = numpyro.sample("theta_trans", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * theta_trans, scale), obs=y)


def gp_regression(x, y):
    """Gaussian process regression with the function integrated out; the noise has variance `sigma`."""
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    kernel = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)
    covariance = kernel + sigma * jnp.eye(x.shape[0])
    numpyro.sample("y", dist.MultivariateNormal(covariance_matrix=covariance), obs=y)


def hidden_markov(y):
    """Two normal states of unit scale, summed over paths; the initial states have weight one each."""
    theta1 = numpyro.sample("theta1", dist.Dirichlet(np.ones(2)))
    theta2 = numpyro.sample("theta2", dist.Dirichlet(np.ones(2)))
    mu = numpyro.sample("mu", _flat(constraints.positive_ordered_vector, 2))
    numpyro.factor("mu_prior", dist.Normal(np.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
    log_theta = jnp.log(jnp.stack([theta1, theta2]))
    emission = dist.Normal(mu, 1.0).log_prob(y[:, None])

    def step(gamma, log_density):
        return logsumexp(gamma[:, None] + log_theta, axis=0) + log_density, None

    gamma, _ = jax.lax.scan(step, emission[0], emission[1:])
    numpyro.factor("y", logsumexp(gamma))


def gaussian_mixture(y):
    """Mixture of two normals with ordered means."""
    mu = numpyro.sample("mu", _flat(constraints.ordered_vector, 2))
    numpyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    weights = dist.Categorical(probs=jnp.stack([theta, 1.0 - theta]))
    with numpyro.plate("observations", y.shape[0]):
        numpyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(mu, sigma)), obs=y)


def dogs(avoided, shocked, y):
    """Logistic regression of each dog's shocks on its counts of avoided and received shocks so far."""
    beta = numpyro.sample("beta", _normal(100.0, 3))
    with numpyro.plate("dogs", y.shape[0], dim=-2), numpyro.plate("trials", y.shape[1], dim=-1):
        logits = beta[0] + beta[1] * avoided + beta[2] * shocked
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def _arrays(*keys):
    return lambda data: tuple(np.asarray(data[key], np.float64) for key in keys)


def _design(*columns):
    return np.column_stack(np.broadcast_arrays(1.0, *columns)).astype(np.float64)


def _lagged(data):
    y, order = np.asarray(data["y"], np.float64), data["K"]
    return np.column_stack([y[order - k : len(y) - k] for k in range(1, order + 1)]), y[order:]


def _diamonds(data):
    x, y = _arrays("X", "Y")(data)
    return x[:, 1:] - x[:, 1:].mean(axis=0), y


def _dogs(data):
    y = np.asarray(data["y"], np.int32)
    shocked = np.cumsum(y, axis=1) - y
    return (np.arange(y.shape[1]) - shocked).astype(np.float64), shocked.astype(np.float64), y


def _earnings(data):
    earn, height, male = _arrays("earn", "height", "male")(data)
    return _design(height, male, height * male), np.log(earn)


def _kidiq(data):
    score, high_school, iq = _arrays("kid_score", "mom_hs", "mom_iq")(data)
    return _design(high_school, iq), score


def _mesquite(data):
    names = ("diam1", "diam2", "canopy_height", "total_height", "density")
    weight, group, *sizes = _arrays("weight", "group", *names)(data)
    return _design(*np.log(sizes), group), np.log(weight)


def _nes(data):
    y, ideology, race, age, *rest = _arrays(
        "partyid7", "real_ideo", "race_adj", "age_discrete", "educ1", "gender", "income"
    )(data)
    return _design(ideology, race, age == 2, age == 3, age == 4, *rest), y


def _standardise(draws):
    mu, tau = draws["mu"], draws["tau"]
    return {"theta_trans": (draws["theta"] - mu[:, None]) / tau[:, None], "mu": mu, "tau": tau}


@dataclass(frozen=True)
class _Entry:
    model: Callable
    data: str
    prepare: Callable
    draws: str | None = None
    convert: Callable | None = None


_SCHOOLS = "eight_schools-eight_schools_noncentered"

_ENTRIES = {
    "arK-arK": _Entry(autoregression, "arK", _lagged),
    "arma-arma11": _Entry(arma11, "arma", _arrays("y")),
    "diamonds-diamonds": _Entry(diamonds, "diamonds", _diamonds),
    "earnings-logearn_interaction": _Entry(flat_regression, "earnings", _earnings),
    "eight_schools-eight_schools_centered": _Entry(
        eight_schools_centered, "eight_schools", _arrays("y", "sigma"), _SCHOOLS
    ),
    "eight_schools-eight_schools_noncentered": _Entry(
        eight_schools_noncentered, "eight_schools", _arrays("y", "sigma"), _SCHOOLS, _standardise
    ),
    "gp_pois_regr-gp_regr": _Entry(gp_regression, "gp_pois_regr", _arrays("x", "y")),
    "hmm_example-hmm_example": _Entry(hidden_markov, "hmm_example", _arrays("y")),
    "kidiq-kidscore_momhsiq": _Entry(half_cauchy_regression, "kidiq", _kidiq),
    "low_dim_gauss_mix-low_dim_gauss_mix": _Entry(gaussian_mixture, "low_dim_gauss_mix", _arrays("y")),
    "mesquite-logmesquite": _Entry(flat_regression, "mesquite", _mesquite),
    "nes1980-nes": _Entry(flat_regression, "nes1980", _nes),
    "sblrc-blr": _Entry(normal_regression, "sblrc", _arrays("X", "y")),
    "dogs2020-dogs": _Entry(dogs, "dogs2020", _dogs),
}


def names() -> list[str]:
    """The names that `load` takes."""
    return list(_ENTRIES)


def _reference(path, convert):
    with np.load(path) as file:
        draws = {name: file[name].astype(np.float64) for name in file.files}
    draws = {name: value.reshape(-1, *value.shape[2:]) for name, value in draws.items()}
    return convert(draws) if convert else draws


def load(name: str, root: str | Path) -> Posterior:
    """The posterior `name` with its data read from the folder `root`; its draws are read when asked for."""
    if name not in _ENTRIES:
        raise ValueError(f"unknown posterior {name!r}; known are {', '.join(_ENTRIES)}")
    entry, root = _ENTRIES[name], Path(root)
    data = root / "data" / f"{entry.data}.json"
    draws = root / "draws" / f"{entry.draws or name}.npz"
    for kind, path in (("data", data), ("reference draws", draws)):
        if not path.is_file():
            raise FileNotFoundError(f"the {kind} of {name} are missing: no file {path}")
    args = entry.prepare(json.loads(data.read_text()))
    return Posterior(name, entry.model, args, {}, partial(_reference, draws, entry.convert))
