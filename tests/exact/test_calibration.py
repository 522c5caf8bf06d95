"""Simulation-based calibration: posteriors known to be right pass, posteriors known to be wrong do not.

A right method passes at 1e-4 a p-value (about twenty p-values); wrong ones must fall below that.
"""

import dataclasses
import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jensen as jn
from jensen.diagnostics.calibration import Calibration, calibrate
from jensen.diagnostics.uniformity import envelope, symmetric_p_value, uniform_p_value, walk_p_value
from jensen.models import LogDensity
from jensen.models.adapters.numpyro_simulate import simulate, with_observed

LEVEL, ROWS, SD = 1e-4, 12, 1.5
log_normal = lambda x, loc, scale: (-0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)).sum()
MODEL = LogDensity(
    lambda z: log_normal(z["mu"], 0.0, 1.0), {"mu": (2,)}, log_likelihood=lambda z, row: log_normal(row, z["mu"], SD)
)


def make_data(key):
    one, two = jax.random.split(key)
    mu = jax.random.normal(one, (2,))
    return {"mu": mu}, mu + SD * jax.random.normal(two, (ROWS, 2))


def conjugate(model, rows, seed, *, stretch=1.0, shift=0.0):
    """The exact posterior, or one made wrong; shift in posterior standard deviations."""
    precision = 1 + ROWS / SD**2
    mean, sd = np.asarray(rows).sum(0) / SD**2 / precision, precision**-0.5
    z = mean + sd * (shift + stretch * np.random.default_rng([seed, 7]).normal(size=(1000, 2)))
    x = np.asarray(rows)[None]
    log_p = -0.5 * (z**2).sum(1) - 0.5 * ((x - z[:, None]) ** 2).sum((1, 2)) / SD**2
    log_p = log_p - (1 + ROWS) * np.log(2 * np.pi) - 2 * ROWS * np.log(SD)
    return SimpleNamespace(draws={"mu": z}, _posterior={"mu": z}, log_p=log_p, verdict="RELIABLE")


FIT = SimpleNamespace(model=MODEL, plated=False)


def study(refit, n=100, **options) -> Calibration:
    return calibrate(FIT, n, refit=refit, simulate=make_data, **options)


def test_an_exact_posterior_is_calibrated():
    found = study(conjugate, 200)
    assert list(found.ranks) == ["mu[0]", "mu[1]", "log joint"]
    assert min(*found.p_values.values(), *found.vsbc.values()) > LEVEL
    assert found.ok and found.n_failed == found.n_unreliable == 0
    assert all(abs(c - 0.9) < 0.085 for c in found.coverage.values())  # 4 binomial standard errors
    assert "the true values lie where the posteriors say" in found.reasons[0]


def test_half_the_standard_deviation_is_found():
    found = study(functools.partial(conjugate, stretch=0.5))
    assert max(found.p_values.values()) < LEVEL
    assert not found.ok and any("too narrow" in r for r in found.reasons)


def test_twice_the_standard_deviation_is_found():
    found = study(functools.partial(conjugate, stretch=2.0), 250)
    assert found.p_values["mu[0]"] < LEVEL and not found.ok and any("too wide" in r for r in found.reasons)


@pytest.mark.parametrize(("shift", "side"), [(0.8, "high"), (-0.8, "low")])
def test_a_shifted_middle_is_found_and_its_side(shift, side):
    found = study(functools.partial(conjugate, shift=shift))
    assert max(found.vsbc.values()) < LEVEL and not found.ok
    assert all(np.sign(b) == np.sign(shift) for b in found.bias.values())
    assert any(f"middle is too {side}" in r for r in found.reasons)


def test_correlation_that_no_coordinate_shows_is_seen_by_the_log_joint():
    """Each coordinate's draws are right, and their sum is not: both deviate from the mean alike."""

    def tied(model, rows, seed):
        fit = conjugate(model, rows, seed)
        z, mean = fit.draws["mu"], np.asarray(rows).sum(0) / SD**2 / (1 + ROWS / SD**2)
        z = mean + (z - mean)[:, :1]
        again = conjugate(model, rows, seed)
        again.log_p = again.log_p.max() - 0.5 * (1 + ROWS / SD**2) * ((z - mean) ** 2).sum(1)
        again.draws = again._posterior = {"mu": z}
        return again

    found = study(tied, 200)
    assert found.p_values["mu[0]"] > LEVEL and found.p_values["mu[1]"] > LEVEL
    assert found.p_values["log joint"] < LEVEL and not found.ok


def test_failures_and_unreliable_fits_are_counted():
    calls = itertools.count()

    def sometimes(model, rows, seed):
        i = next(calls)
        if i % 4 == 0:
            raise jn.ModelError("the optimiser is tired")
        fit = conjugate(model, rows, seed)
        fit.verdict = "UNRELIABLE" if i % 4 == 1 else "RELIABLE"
        return fit

    found = study(sometimes, 40)
    assert (found.n_failed, found.n_unreliable, found.ranks["mu[0]"].size) == (10, 10, 30)
    assert not found.ok and any("ModelError: the optimiser is tired" in r for r in found.reasons)

    def never(model, rows, seed):
        raise RuntimeError("no")

    found = study(never, 10)
    assert found.n_failed == 10 and not found.ok and "too few" in " ".join(found.reasons)
    assert found.plot() is not None


def test_figure():
    found = study(conjugate, 20)
    titles = [ax.get_title(loc="left") for ax in found.plot().axes]
    assert sum(t.startswith(("mu", "log joint")) for t in titles) == 3
    assert len([ax for ax in found.plot(["mu[1]"]).axes if ax.lines]) == 1
    with pytest.raises(jn.OptionError, match="'nu' is none of them"):
        found.plot(["nu"])


# --- the tests' own null laws


@pytest.mark.parametrize("n", [20, 100])
def test_p_values_are_uniform_under_the_null(n):
    """Shares of p-values below a level against the binomial, |z| < 5; both tests may be conservative."""
    rng, reps = np.random.default_rng(n), 2000
    ranks = rng.integers(0, 128, (reps, n))
    for p in (
        np.array([uniform_p_value(r, 128) for r in ranks]),
        np.array([symmetric_p_value(u) for u in rng.uniform(size=(reps, n))]),
    ):
        for level in (0.01, 0.1, 0.5):
            assert (p <= level).mean() < level + 5 * np.sqrt(level * (1 - level) / reps)
        assert (p <= 0.5).mean() > 0.3


def test_the_walk_is_that_of_all_signs():
    n = 9
    highest = np.abs(np.cumsum(list(itertools.product([-1, 1], repeat=n)), 1)).max(1)
    for height in range(n + 1):
        np.testing.assert_allclose(walk_p_value(height, n), (highest >= height).mean())


def test_the_envelope_holds_at_all_points_at_once():
    n, reps, prob = 60, 2000, 0.9
    band = envelope(n, 128, prob)
    ranks = np.sort(np.random.default_rng(0).integers(0, 128, (reps, n)), 1)
    below = np.stack([np.searchsorted(r, band.points * 128) for r in ranks]) / n
    held = ((below >= band.lower) & (below <= band.upper)).all(1).mean()
    assert abs(held - prob) < 0.03


# --- NumPyro models


X = np.linspace(-1, 1, 15)


def regression(x, y=None):
    slope, scale = numpyro.sample("slope", dist.Normal(0, 1)), numpyro.sample("scale", dist.LogNormal(0, 0.3))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)


QUICK = functools.partial(jn.fit, family="mean-field", optimizer=0.05, n_steps=300, n_draws=512, progress=False)


def test_a_numpyro_model_is_refitted_without_compiling_again(compilations):
    fit = QUICK(jn.from_numpyro(regression, X, X))
    calibrate(fit, 10, refit=QUICK)
    found, n = compilations(lambda: calibrate(fit, 25, seed=5, refit=QUICK))
    assert n == 0
    assert list(found.ranks) == ["scale", "slope", "log joint"] and found.n_failed == 0
    assert found.p_values["slope"] > LEVEL

    def quarter(model, seed):
        fit = QUICK(model, seed=seed)
        shrink = lambda a: a.mean(0) + 0.25 * (a - a.mean(0))
        return dataclasses.replace(fit, draws=jax.tree.map(shrink, fit.draws))

    wrong = calibrate(fit, 25, seed=5, refit=quarter)
    assert wrong.p_values["slope"] < LEVEL and not wrong.ok


def test_simulations_follow_prior_and_likelihood():
    model = jn.from_numpyro(regression, X, X)
    pairs = [simulate(model, jax.random.key(i)) for i in range(400)]
    slope = np.array([float(z["slope"]) for z, _ in pairs])
    rest = np.stack([(v["y"] - z["slope"] * X) / z["scale"] for z, v in pairs])
    assert abs(slope.mean()) < 5 / 20 and abs(slope.std() - 1) < 5 / np.sqrt(800)
    assert abs(rest.mean()) < 5 / np.sqrt(6000) and abs(rest.std() - 1) < 5 / np.sqrt(12000)


def test_replaced_data_are_those_of_the_density():
    model, other = jn.from_numpyro(regression, X, X), np.cos(X)
    again, direct = with_observed(model, {"y": jnp.asarray(other)}), jn.from_numpyro(regression, X, other)
    z = {"slope": jnp.array(0.3), "scale": jnp.array(-0.2)}
    np.testing.assert_allclose(again.log_density(z), direct.log_density(z), rtol=1e-12)
    assert abs(again.log_density(z) - model.log_density(z)) > 0.1
    np.testing.assert_allclose(again.log_likelihood(z)["y"], direct.log_likelihood(z)["y"])


def test_replaced_data_of_a_subsampled_plate_are_taken_by_row():
    def fn(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with numpyro.plate("rows", len(y), subsample_size=4) as i:
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[i])

    model, other = jn.from_numpyro(fn, X), np.cos(X)
    again, direct = with_observed(model, {"y": jnp.asarray(other)}), jn.from_numpyro(fn, other)
    for index in (np.array([3, 1, 7, 14]), np.arange(15)):
        batch = jn.batch.Batch({"index": jnp.asarray(index)}, jnp.full(len(index), 15 / len(index)))
        z = {"mu": jnp.array(0.4)}
        np.testing.assert_allclose(again.log_density(z, batch), direct.log_density(z, batch), rtol=1e-12)
    assert simulate(model, jax.random.key(0))[1]["y"].shape == (15,)


def improper():
    mu = numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=0.3)


def with_factor():
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    numpyro.factor("penalty", -(mu**4))


def scaled():
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.handlers.scale(scale=0.5):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=0.3)


@pytest.mark.parametrize(
    ("fn", "words"), [(improper, r"`mu`(.|\n)*improper"), (with_factor, "`penalty`"), (scaled, r"`y`(.|\n)*scaled")]
)
def test_models_that_do_not_generate_data_are_refused(fn, words):
    with pytest.raises(jn.ModelError, match=words):
        calibrate(SimpleNamespace(model=jn.from_numpyro(fn), plated=False), refit=QUICK)


def test_other_refusals():
    with pytest.raises(jn.ModelError, match="cannot simulate"):
        calibrate(FIT, refit=conjugate)
    with pytest.raises(jn.ModelError, match="how to fit again"):
        calibrate(FIT, simulate=make_data)
    with pytest.raises(jn.ModelError, match="latent of its own"):
        calibrate(SimpleNamespace(model=MODEL, plated=True), refit=conjugate)
    with pytest.raises(jn.OptionError, match="n_simulations"):
        study(conjugate, 3)
    with pytest.raises(jn.OptionError, match="prob"):
        study(conjugate, 20, prob=95)
