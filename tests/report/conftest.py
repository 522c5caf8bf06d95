"""Small fits of each kind, made once."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jensen as jn
from jensen.models import LatentVariable, LogDensity

HOSTILE = "<script>alert('x')</script>$\\frac{"
RNG = np.random.default_rng(0)
X = RNG.normal(size=40)
Y = 1 + 2 * X + 0.5 * RNG.normal(size=40)
COUNTS = RNG.poisson(3.0, 40)
BINARY = (RNG.uniform(size=40) < 0.3).astype(int)
OPTIONS = {"n_steps": 200, "n_draws": 512, "progress": False}


def regression(x, y, c, b):
    slope, scale = numpyro.sample("slope", dist.Normal(0, 5)), numpyro.sample("scale", dist.HalfNormal(2.0))
    log_rate, logit = numpyro.sample("log_rate", dist.Normal(0, 1)), numpyro.sample("logit", dist.Normal(0, 1))
    with numpyro.plate("groups", 3):
        numpyro.sample("group", dist.Normal(0, 1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)
        numpyro.sample("count", dist.Poisson(jnp.exp(log_rate)), obs=c)
        numpyro.sample("binary", dist.Bernoulli(logits=logit), obs=b)


def line(x, y):
    slope, scale = numpyro.sample("slope", dist.Normal(0, 5)), numpyro.sample("scale", dist.HalfNormal(2.0))
    numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)


def linear(z, row):
    return -0.5 * (row["y"] - z["a"] - z["b"] * row["x"]) ** 2


def banana(z):
    return -0.5 * (z[0] ** 2 / 4 + (z[1] - z[0] ** 2) ** 2 / 0.1)


def _fit(*args, **options):
    return jn.fit(*args, **{**OPTIONS, **options})


@pytest.fixture(scope="session")
def numpyro_fit():
    return _fit(regression, (X, Y, COUNTS, BINARY), family="mean-field", n_steps=400)


@pytest.fixture(scope="session")
def banana_fit():
    return _fit(LogDensity(banana, (2,)), family="mean-field")


@pytest.fixture(scope="session")
def rows_fit():
    prior = lambda z: -0.5 * (z["a"] ** 2 + z["b"] ** 2)
    model = LogDensity(prior, {"a": (), "b": ()}, log_likelihood=linear)
    return _fit(model, {"x": X, "y": Y}, family="mean-field")


@pytest.fixture(scope="session")
def scalar_fit():
    return _fit(LogDensity(lambda z: -0.5 * z**2, ()), family="mean-field")


@pytest.fixture(scope="session")
def images_fit():
    data = (RNG.uniform(size=(80, 64)) < 0.4).astype(np.float32)
    return _fit(LatentVariable.mlp(jr.key(0), 3, (64,), hidden=(16,)), data)


@pytest.fixture(scope="session")
def table_fit():
    """Bits as latents, rows that are no images."""
    decoder = LatentVariable.mlp(jr.key(0), 4, (3,), "gaussian", hidden=(8,)).decoder
    model = LatentVariable(jn.families.Bernoulli(jnp.zeros(4)), decoder, "gaussian", shape=(3,))
    family = jn.families.Amortised(jn.families.Bernoulli(), hidden=(8,))
    return _fit(model, RNG.normal(size=(60, 3)), family=family)


@pytest.fixture(scope="session")
def hostile_fit():
    model = LogDensity(lambda z: -0.5 * sum((a**2).sum() for a in z.values()), {HOSTILE: (), "ü" * 60: (60,)})
    return _fit(model, family="mean-field")


@pytest.fixture(scope="session")
def climbed_fit():
    """A ladder of several rungs, two of one name; which of them ends it is the seed's affair."""
    return jn.fit(LogDensity(banana, (2,)), n_draws=512, progress=False)


@pytest.fixture(scope="session")
def line_fit():
    return jn.fit(line, (X, Y), n_draws=512, progress=False)


@pytest.fixture(scope="session")
def importance_fit():
    """Lighter tails than a Gaussian: the first rung's draws, resampled by their weights, will do."""
    return jn.fit(LogDensity(lambda z: (-0.5 * z**2 - 0.1 * z**4).sum(), (2,)), n_draws=512, progress=False)


@pytest.fixture(scope="session")
def chains_fit():
    return jn.fit(LogDensity(banana, (2,)), method="hmc", n_draws=512, progress=False)


@pytest.fixture(scope="session")
def laplace_fit():
    """A method by name whose draws are q's own."""
    prior = lambda z: -0.5 * (z["a"] ** 2 + z["b"] ** 2)
    model = LogDensity(prior, {"a": (), "b": ()}, log_likelihood=linear)
    return jn.fit(model, {"x": X, "y": Y}, method="laplace", budget="evaluations:100000", n_draws=512, progress=False)


@pytest.fixture
def loaded_fit(climbed_fit, tmp_path):
    """From a folder: without its model, and without the draws of q that were weighed."""
    return dataclasses.replace(jn.load(climbed_fit.save(tmp_path / "fit")), proposals=None)


@pytest.fixture
def broken_ladder(climbed_fit):
    """Everything that may be NaN is, in every rung."""
    nan = float("nan")
    diagnosis = dataclasses.replace(
        climbed_fit.diagnosis, verdict=jn.Verdict.UNRELIABLE, khat=nan, ess=nan, elbo=nan, elbo_se=nan,
        log_evidence=-np.inf, log_evidence_se=np.inf, details={},
    )  # fmt: skip
    bad = {"khat": nan, "elbo": nan, "log_evidence": nan, "seconds": nan, "verdict": "UNRELIABLE"}
    trail = [dataclasses.replace(a, **bad) for a in climbed_fit.trail]
    trail[-1].log_evidence = -np.inf
    n = len(climbed_fit.proposals[0])
    draws = jax.tree.map(lambda a: np.full(np.shape(a), np.nan), climbed_fit.draws)
    return dataclasses.replace(
        climbed_fit, diagnosis=diagnosis, trail=trail, draws=draws, proposals=(np.full(n, nan), np.zeros(n)),
        seconds=nan, why="diverged",
    )  # fmt: skip


@pytest.fixture
def without_model(numpyro_fit):
    """What a folder holds: neither model nor data."""
    options = {**numpyro_fit.options, "plated": False}
    return dataclasses.replace(numpyro_fit, model=None, rows=None, coordinates=None, options=options)


@pytest.fixture
def broken_fit(banana_fit):
    """Everything that may be NaN is."""
    nan = float("nan")
    diagnosis = dataclasses.replace(
        banana_fit.diagnosis, verdict=jn.Verdict.UNRELIABLE, khat=nan, ess=nan, elbo=nan, elbo_se=nan,
        log_evidence=-np.inf, log_evidence_se=np.inf, details={},
    )  # fmt: skip
    n = len(banana_fit.log_p)
    draws = jax.tree.map(lambda a: np.full(np.shape(a), np.nan), banana_fit.draws)
    return dataclasses.replace(
        banana_fit, diagnosis=diagnosis, draws=draws, log_p=np.full(n, nan), log_q=np.zeros(n),
        history=np.full(50, nan), seconds=nan, step_size=None, why="diverged",
    )  # fmt: skip
