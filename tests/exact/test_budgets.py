"""Budgets hold, whatever a density costs; what ends by one says so."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen.algorithms.budget import GRACE, Budget, OutOfBudget
from jensen.algorithms.target import BLOCK, Target
from jensen.models import BlackBox, LogDensity

PRICE = 0.004


def sleeping(price: float = PRICE, dim: int = 3):
    """(a density on the host that takes so long, its calls)."""
    calls = []

    def fn(z):
        calls.append(1)
        time.sleep(price)
        return -0.5 * float((z**2).sum())

    return BlackBox(fn, dim, gradient=lambda z: -z), calls


def long_scan(n_steps: int = 2_000):
    """An ODE by Euler's method."""

    def fn(z):
        end = jax.lax.scan(lambda y, _: (y - 1e-4 * y, None), z, None, length=n_steps)[0]
        return -0.5 * (end**2).sum()

    return LogDensity(fn, 3)


MODELS = {"host": sleeping, "scan": long_scan}
METHODS = [None, "laplace", "pathfinder", "dadvi", "natural-gradient", "batch-and-match", "score-matching", "mixture",
           "importance", "conditional-gaussian", "hmc", "nuts", "mala", "smc"]  # fmt: skip


@pytest.mark.parametrize("method", [*METHODS, "gradient"])
def test_seconds_hold_for_a_slow_density(method):
    """By the calls of the density, which no load of the machine makes more; by the clock only roughly."""
    model, calls = sleeping()
    seconds, began = 0.8, time.perf_counter()
    fit = jn.fit(model, method=method, budget=seconds, progress=False)
    assert len(calls) * PRICE <= 1.5 * seconds
    assert time.perf_counter() - began < 1.5 * seconds + 20.0  # compilation
    assert fit.why == "budget" and str(fit.verdict) != "RELIABLE"
    assert any("budget" in reason for reason in fit.reasons)
    assert not any("interrupted" in reason for reason in fit.reasons)


@pytest.mark.parametrize("method", [None, "laplace", "importance", "hmc", "dadvi"])
@pytest.mark.parametrize("allowed", [200, 3_000])
def test_evaluations_hold(method, allowed):
    model = LogDensity(lambda z: -0.5 * (z[0] ** 2 / 9 + ((z[1:] - 0.2 * z[0] ** 2) ** 2).sum()), 4)
    fit = jn.fit(model, method=method, budget=f"evaluations:{allowed}", progress=False)
    assert fit.options["evaluations"] <= 1.5 * allowed + BLOCK


def test_a_budget_that_suffices_changes_nothing_of_the_verdict():
    """The control: cheap densities are judged in full, by as many draws as without a limit."""
    model = LogDensity(lambda z: -0.5 * (z**2).sum(), 3)
    for budget in ("seconds:60", "evaluations:200000", None):
        fit = jn.fit(model, budget=budget, progress=False)
        assert str(fit.verdict) == "RELIABLE" and fit.why == "converged" and fit.diagnosis.n_draws == 8192
        assert not any("budget" in reason.lower() for reason in fit.reasons)


def test_on_chunk_interrupts_and_a_budget_does_not():
    model = LogDensity(lambda z: -0.5 * (z**2).sum(), 3)
    options = dict(method="gradient", n_steps=10**7, early_stop=False, progress=False, family="mean-field")
    assert jn.fit(model, on_chunk=lambda *_: True, **options).why == "interrupted"
    assert jn.fit(model, budget="evaluations:500", **options).why == "budget"
    assert jn.fit(model, budget="evaluations:500", on_chunk=lambda *_: False, **options).why == "budget"


@pytest.mark.parametrize("name", MODELS)
def test_points_in_turn_are_the_points_of_a_block(name):
    """The two programs of a target give the same numbers, and a limit of seconds begins with single points."""
    model = MODELS[name](1e-4)[0] if name == "host" else MODELS[name]()
    u = np.random.default_rng(0).normal(size=(70, 3))
    whole, pieces = Target(model), Target(model, budget=Budget(seconds=1e6))
    for one, other in zip(whole(u), pieces(u), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert whole.evaluations == pieces.evaluations == 70
    np.testing.assert_allclose(whole.value(u, careful=True), pieces.value(u, careful=True), rtol=1e-12)


def test_nothing_is_evaluated_on_an_overdrawn_budget_but_the_first_look():
    target = Target(LogDensity(lambda z: -0.5 * (z**2).sum(), 3), budget=Budget(evaluations=10))
    target(np.zeros((64, 3)))
    with pytest.raises(OutOfBudget):
        target(np.zeros((1, 3)))
    assert target.affordable(1000, least=2) == 2 and target.evaluations == 64
    assert np.isfinite(target.raw(np.zeros((2, 3)))[0]).all()


def test_room():
    budget = Budget(evaluations=1000)
    assert budget.room(0.0) == GRACE * 1000 and budget.room(0.0, 0.5) == GRACE * 500
    budget.spend(900)
    with budget.keeping(0.3):
        assert budget.spent and budget.overdrawn
    assert not budget.spent and not budget.overdrawn
    assert Budget().room(1.0) == np.inf and not Budget().overdrawn
    assert Budget(seconds=10.0).room(1.0) == pytest.approx(GRACE * 10, abs=0.5)


def test_no_finite_point_within_the_budget_is_said():
    with pytest.raises(jn.ModelError) as error:
        jn.fit(LogDensity(lambda z: jnp.where(z[0] > 1e6, 0.0, -jnp.inf) + 0 * z.sum(), 2), budget="evaluations:40")
    assert "budget" in str(error.value) and "instead:" in str(error.value)


WALLS = {
    "an orthant": (5, lambda z: jnp.where((z > 0).all(), -z.sum(), -jnp.inf)),
    "a box": (3, lambda z: jnp.where(((z > -1) & (z < 2)).all(), 0.0 * z.sum(), -jnp.inf)),
    "a disk": (2, lambda z: jnp.where((z**2).sum() < 4, 0.0 * z.sum(), -jnp.inf)),
}


@pytest.mark.parametrize(
    "budget", ["evaluations:500", "evaluations:3000", "evaluations:30000", "seconds:0.2", "seconds:1"]
)
@pytest.mark.parametrize("name", WALLS)
def test_walls_under_a_small_budget_end_in_a_verdict(name, budget):
    d, log_density = WALLS[name]
    fit = jn.fit(jn.models.LogDensity(log_density, (d,)), budget=budget, progress=False)
    assert str(fit.verdict) in ("DOUBTFUL", "UNRELIABLE") or (
        np.isfinite(np.asarray(jax.vmap(log_density)(jnp.asarray(fit.draws)))).all()
    )


@pytest.mark.parametrize("seed", range(3))
def test_no_search_for_modes_no_reliable(seed):
    """Where the budget leaves no room for the search, modes that it would have found are not vouched for."""
    mu = np.array([[0.0], [30.0]]) * np.eye(20)[0]
    two = lambda z: jax.scipy.special.logsumexp(-0.5 * ((z - mu) ** 2).sum(1))
    for budget in ("evaluations:12000", "evaluations:25000"):
        fit = jn.fit(jn.models.LogDensity(two, (20,)), seed=seed, budget=budget, progress=False)
        share = float((np.asarray(fit.draws)[:, 0] > 15).mean())
        assert str(fit.verdict) != "RELIABLE" or abs(share - 0.5) < 0.05
