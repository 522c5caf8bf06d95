"""What an evaluation costs decides how many there are: right answers of few, nothing silent of fewer, and as many as asked."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from scipy.special import digamma, polygamma

import jensen as jn
from jensen.algorithms.budget import Budget
from jensen.algorithms.gaussian import Gaussian, standardised_draws
from jensen.algorithms.importance import proposal_of, weigh
from jensen.algorithms.mode_search import search_modes
from jensen.algorithms.modes import Mode
from jensen.algorithms.pace import CHEAP, LEAST_EFFORT, Pace
from jensen.algorithms.target import Target, in_turn
from jensen.diagnostics.difference import difference
from jensen.errors import OptionError
from jensen.models import LogDensity
from jensen.samplers.kernel import Sampler
from jensen.samplers.transport import Affine


@pytest.fixture
def dear(monkeypatch):
    """As if an evaluation took milliseconds."""
    monkeypatch.setattr(Pace, "effort", property(lambda self: LEAST_EFFORT))


def regression(n=400, d=30, seed=0):
    """(log density, its exact mean and sd): linear regression with known noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    y = x @ rng.standard_normal(d) + rng.standard_normal(n)
    covariance = np.linalg.inv(x.T @ x + np.eye(d))
    log_p = lambda z: -0.5 * ((y - x @ z) ** 2).sum() - 0.5 * (z**2).sum()
    return log_p, covariance @ x.T @ y, np.sqrt(np.diag(covariance))


def log_gammas(d):
    """log of Gamma(a_i, 1): skewed, with means and variances by polygamma functions."""
    a = np.linspace(3, 30, d)
    return lambda z: (a * z - jnp.exp(z)).sum(), digamma(a), np.sqrt(polygamma(1, a))


def smooth_counts(d=400, seed=1):
    """A Gaussian of many dimensions whose coordinates go together: precision of a random walk, and of data."""
    rng = np.random.default_rng(seed)
    walk = np.diff(np.eye(d), axis=0)
    precision = 25 * walk.T @ walk + np.diag(rng.gamma(2.0, 1.0, d)) + 0.1 * np.eye(d)
    mean = np.sin(np.arange(d) / 20)
    return (
        lambda z: -0.5 * (z - mean) @ jnp.asarray(precision) @ (z - mean),
        mean,
        np.sqrt(np.diag(np.linalg.inv(precision))),
    )


MOST = {"regression, 30": 3_000, "log gammas, 3": 16_000, "log gammas, 12": 26_000}
EXACT = {"regression, 30": regression(), "log gammas, 3": log_gammas(3), "log gammas, 12": log_gammas(12)}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", range(3))
def test_a_near_gaussian_posterior_is_settled_in_some_thousands(dear, name, seed):
    log_p, mean, sd = EXACT[name]
    fit = jn.fit(LogDensity(log_p, mean.size), seed=seed, progress=False)
    assert str(fit.verdict) == "RELIABLE"
    assert fit.options["evaluations"] < MOST[name]
    u = np.asarray(fit.draws)
    np.testing.assert_allclose(fit.marginals.mean, mean, atol=0.12 * sd.max())
    assert (
        np.abs(fit.marginals.mean - mean) / sd
    ).max() < 0.12  # three standard errors at the accuracy of a dear density
    assert np.abs(np.log(fit.marginals.sd / sd)).max() < 0.12
    assert u.shape[1] == mean.size


def test_of_a_cheap_density_nothing_is_saved():
    """The control."""
    log_p, mean, _ = EXACT["log gammas, 3"]
    assert jn.fit(LogDensity(log_p, mean.size), progress=False).options["evaluations"] > 10_000


def test_many_dimensions_whose_price_counts(dear):
    """By two Hessians and scales: the draws that a whole covariance asks for would be 1,600 a step."""
    log_p, mean, sd = smooth_counts()
    fit = jn.fit(LogDensity(log_p, mean.size), progress=False)
    assert str(fit.verdict) == "RELIABLE" and fit.options["evaluations"] < 20_000
    assert (np.abs(fit.marginals.mean - mean) / sd).max() < 0.15
    assert np.abs(np.log(fit.marginals.sd / sd)).max() < 0.15


@pytest.mark.parametrize("seed", range(4))
def test_two_modes_are_found_or_not_vouched_for(dear, seed):
    centres = np.array([[0.0, 0, 0], [9.0, 0, 0]])
    two = lambda z: logsumexp(-0.5 * ((z - centres) ** 2).sum(1) / jnp.array([1.0, 0.25]))
    fit = jn.fit(LogDensity(two, 3), seed=seed, progress=False)
    share = float((np.asarray(fit.draws)[:, 0] > 5).mean())  # exactly 1 / 9
    assert str(fit.verdict) != "RELIABLE" or abs(share - 1 / 9) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_a_funnel_is_not_called_reliable_where_it_is_wrong(dear, seed):
    funnel = lambda z: -0.5 * (z[0] / 3) ** 2 - 0.5 * (z[1:] ** 2).sum() * jnp.exp(-z[0]) - 4.5 * z[0]
    fit = jn.fit(LogDensity(funnel, 10), seed=seed, progress=False, budget="evaluations:60000")
    off = abs(float(fit.marginals.mean[0])) / 3 > 0.15 or abs(math.log(float(fit.marginals.sd[0]) / 3)) > 0.15
    assert str(fit.verdict) != "RELIABLE" or not off


# ---- the price --------------------------------------------------------------------------------------------------------
def priced(block: float, single: float | None = None, dim: int = 3, **limits) -> Pace:
    """A pace that has seen these seconds: of a block of 64, and of one point in turn."""
    pace = Pace(Budget(**limits), 64, dim)
    for seconds in (10.0, block):  # the first call compiles
        pace.seen(True, 64, seconds)
    for seconds in (10.0, single) if single is not None else ():
        pace.seen(False, 1, seconds)
    return pace


def test_effort_halves_as_the_price_doubles():
    assert [priced(64 * CHEAP * f).effort for f in (0.01, 1, 2, 4, 8, 16, 1000)] == [
        1,
        1,
        1 / 2,
        1 / 4,
        1 / 8,
        1 / 16,
        1 / 16,
    ]
    assert priced(64 * CHEAP, dim=400).effort == 1 / 4  # as many more are needed
    assert Pace(Budget(), 64).effort == 1.0


def test_each_request_goes_to_the_cheaper_program():
    cheap, unknown, batched, serial = priced(1e-4), priced(0.1), priced(0.1, 0.01), priced(0.1, 0.0005)
    assert cheap.next(1000) == (True, 64)
    assert unknown.next(1000)[0] is False  # the other program is tried, with few points
    assert batched.next(1000) == (True, 64) and batched.next(5)[0] is False and not batched.in_turn
    assert serial.next(1000)[0] is False and serial.in_turn


def test_densities_in_turn_are_densities_side_by_side():
    """Values, gradients and chains, of a function that reads arrays."""
    a = {"scale": jnp.array([1.0, 2.0, 3.0]), "n": jnp.array([1, 2, 3])}
    density = lambda arrays, u: -0.5 * ((u * arrays["scale"]) ** 2 * arrays["n"]).sum()
    f, u = in_turn(density, a), jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)))
    loop = jax.jit(lambda u: jax.lax.fori_loop(0, 2, lambda _, u: jax.vmap(jax.grad(f))(u), u))
    np.testing.assert_allclose(jax.vmap(f)(u), jax.vmap(lambda u: density(a, u))(u), rtol=1e-12)
    np.testing.assert_allclose(loop(u), u * (a["scale"] ** 2 * a["n"]) ** 2, rtol=1e-12)

    target = Target(LogDensity(lambda z: -0.5 * (z**2).sum() - jnp.cosh(z[0]), 3))
    out = []
    for turn in (False, True):
        sampler = Sampler(target)
        sampler.in_turn = turn
        out.append(
            sampler.run(Affine(jnp.ones(3), jnp.eye(3)), np.zeros((4, 3)), jax.random.key(0), 0.3, np.full(16, 5))
        )
    for one, other in zip(*out, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    np.testing.assert_allclose(out[0].log_p.ravel(), target.value(out[0].u.reshape(-1, 3)), rtol=1e-10)


# ---- what is asked for --------------------------------------------------------------------------------------------------
def test_accuracy_is_what_is_asked_for():
    """Of chains, and of weights: the errors that the verdict states, and the evaluations that they cost."""
    bent = LogDensity(lambda z: -0.5 * (z[0] ** 2 / 4 + ((z[1:] - 0.1 * z[0] ** 2) ** 2).sum()), 4)
    for method in ("hmc", "nuts"):
        fits = [jn.fit(bent, method=method, accuracy=a, progress=False) for a in (0.04, 0.01)]
        for fit, asked in zip(fits, (0.04, 0.01), strict=True):
            assert fit.diagnosis.details["chains"]["se_mean"] < 1.16 * asked
            assert any(f"accuracy={asked:g}" in reason for reason in fit.reasons)
        few, many = (f.diagnosis.details["chains"]["iterations"] for f in fits)
        assert many > 1.5 * few  # what is settled by tails asks for some, whatever the accuracy
    log_p, mean, sd = log_gammas(6)
    fits = [jn.fit(LogDensity(log_p, 6), accuracy=a, progress=False) for a in (0.05, 0.005)]
    worst = [float((np.abs(f.marginals.mean - mean) / sd).max()) for f in fits]
    assert fits[1].options["evaluations"] > fits[0].options["evaluations"] and worst[1] < 4 * 0.005


def test_an_accuracy_that_is_out_of_reach_is_said():
    bent = LogDensity(lambda z: -0.5 * (z[0] ** 2 / 4 + ((z[1:] - 0.1 * z[0] ** 2) ** 2).sum()), 4)
    fit = jn.fit(bent, method="hmc", accuracy=0.001, budget="evaluations:200000", progress=False)
    assert str(fit.verdict) != "RELIABLE" and any("want 0.00117" in reason for reason in fit.reasons)


@pytest.mark.parametrize("asked", [0, -1, 2, "fine", True, float("nan"), 1e-5])
def test_an_accuracy_that_is_none_is_refused(asked):
    with pytest.raises(OptionError, match="accuracy"):
        jn.fit(LogDensity(lambda z: -0.5 * (z**2).sum(), 2), accuracy=asked, progress=False)


def test_gradients_have_no_accuracy():
    with pytest.raises(OptionError, match="accuracy"):
        jn.fit(LogDensity(lambda z: -0.5 * (z**2).sum(), 2), accuracy=0.02, method="gradient", progress=False)


# ---- what does not end far out ---------------------------------------------------------------------------------------------
def endless(centre: float, sd: float):
    """A density by a loop whose steps grow as exp(|z|): a hundred away it would not end before the machine does."""

    def fn(z):
        steps = lambda: jax.lax.while_loop(
            lambda i: i < jnp.exp(jax.lax.stop_gradient(jnp.abs(z[0]))), lambda i: i + 1.0, 0.0
        )
        return -0.5 * (((z - centre) / sd) ** 2).sum() + 0 * steps()

    return LogDensity(fn, 2)


@pytest.mark.parametrize("centre", [0.0, 4.0])
def test_a_loop_that_may_not_end_is_looked_at_only_where_it_matters(centre):
    fit = jn.fit(endless(centre, 0.5), progress=False)
    assert str(fit.verdict) == "RELIABLE" and any("loop" in reason for reason in fit.reasons)
    np.testing.assert_allclose(fit.marginals.mean, centre, atol=0.05)
    np.testing.assert_allclose(fit.marginals.sd, 0.5, rtol=0.05)


def test_bounded_loops_are_no_obstacle():
    scan = LogDensity(lambda z: -0.5 * (jax.lax.scan(lambda y, _: (y, None), z, None, length=9)[0] ** 2).sum(), 2)
    assert Target(scan).box is None and Target(endless(0.0, 1.0)).box is not None


# ---- less noise ------------------------------------------------------------------------------------------------------------
def test_weights_that_are_even_move_nothing_however_few():
    """q = p: against exact moments 64 draws would differ by tenths."""
    q = Gaussian(np.array([1.0, -2.0]), np.array([[2.0, 0.0], [0.5, 1.0]]))
    target = Target(LogDensity(lambda z: -0.5 * (jnp.linalg.solve(q.root, z - q.mean) ** 2).sum(), 2))
    weighed = weigh(target, proposal_of(q), 64, 0)
    shift, change, _ = difference(q, weighed, ["a", "b"])
    assert shift < 1e-3 and change < 1e-3
    assert np.abs(weighed.u.mean(0) - q.mean).max() > 0.01  # the control


def test_draws_of_few_in_many_dimensions():
    eps = standardised_draws(16, 200, 3)
    np.testing.assert_allclose(eps.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(eps.std(0), 1.0, rtol=1e-12)
    apart = np.corrcoef(eps[:, :50].T)[np.triu_indices(50, 1)]
    assert np.abs(apart).mean() < 0.35  # of a Sobol sequence of as few points many coordinates are equal


def test_a_q_that_is_no_maximum_leaves_the_search_quiet(dear):
    """A q over the mass of many skewed coordinates, away from their maximum: nothing new is found, and the search ends."""
    d, a = 40, 0.3
    target = Target(LogDensity(lambda z: (a * z - jnp.exp(z)).sum(), d))
    q = Gaussian(np.full(d, digamma(a)), 0.9 * np.sqrt(polygamma(1, a)) * np.eye(d))
    maximum = Mode(Gaussian(np.full(d, math.log(a)), a**-0.5 * np.eye(d)), a * d * (math.log(a) - 1))
    found = search_modes(target, q, weigh(target, proposal_of(q), 2048, 0), 0, [maximum])
    assert found is not None and found.quiet and found.rounds <= 4


# ---- going on ----------------------------------------------------------------------------------------------------------------
def test_a_fit_goes_on_where_it_stopped():
    bent = LogDensity(lambda z: -0.5 * (z[0] ** 2 / 4 + ((z[1:] - 0.25 * z[0] ** 2) ** 2).sum()), 4)
    short = jn.fit(bent, budget="evaluations:11000", progress=False)
    assert str(short.verdict) != "RELIABLE"
    before = np.asarray(short.draws).copy()
    fit = short.more("evaluations:900000", progress=False)
    assert str(fit.verdict) == "RELIABLE" and len(fit.trail) == len(short.trail) + 1
    assert fit.options["evaluations"] > short.options["evaluations"] and fit.seconds > short.seconds
    np.testing.assert_allclose(fit.marginals.mean, [0.0, 1.0, 1.0, 1.0], atol=0.15)
    np.testing.assert_array_equal(np.asarray(short.draws), before)
    again = fit.more("evaluations:50000", progress=False)
    assert len(fit.trail) + 1 == len(again.trail) == len(fit.more("evaluations:50000", progress=False).trail)
    assert again.trail[-1].evaluations <= 1.5 * 50_000


def test_what_cannot_go_on_says_so(tmp_path):
    normal = LogDensity(lambda z: -0.5 * (z**2).sum(), 2)
    jn.fit(normal, progress=False).save(tmp_path / "fit")
    with pytest.raises(OptionError, match="instead"):
        jn.load(tmp_path / "fit").more("seconds:1")
    with pytest.raises(OptionError, match="budget"):
        jn.fit(normal, progress=False).more("soon")
