"""The No-U-Turn sampler: its law, its metric, when it ends, and what it says of where it never was."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import gamma, kstest, norm

import jensen as jn
from jensen.algorithms.target import Target
from jensen.models import LogDensity
from jensen.samplers import nuts, trees
from jensen.samplers.metric import fisher_metric, fisher_scale, geometric_mean
from jensen.samplers.nuts import NUTS
from jensen.samplers.transport import LowRank

LEVEL = 1e-5  # of each test of a law
QUIET = dict(progress=False)


# ---- the law ---------------------------------------------------------------------------------------------------------
def correlated(z):
    return -0.5 * (z[0] ** 2 + (z[1] - 0.9 * z[0]) ** 2 / 0.19)


def correlated_draws(rng, n):
    x = rng.standard_normal((n, 2))
    return np.stack([x[:, 0], 0.9 * x[:, 0] + np.sqrt(0.19) * x[:, 1]], 1)


def skewed(z):
    """log of a gamma variable with shape 2."""
    return 2 * z[0] - jnp.exp(z[0])


def skewed_draws(rng, n):
    return np.log(gamma(2).rvs(size=(n, 1), random_state=rng))


def uniforms_of(x, name):
    """Independent and uniform on [0, 1] under the exact law."""
    if name == "skewed":
        return gamma(2).cdf(np.exp(x[:, 0]))
    return norm.cdf(np.concatenate([x[:, 0], (x[:, 1] - 0.9 * x[:, 0]) / np.sqrt(0.19)]))


LAWS = {"correlated": (correlated, correlated_draws, 0.5), "skewed": (skewed, skewed_draws, 1.3)}


def after(name, k, change=lambda uniform: uniform, n=4000):
    """The k-th draw of each of n chains that start at exact draws; `change`: of the numbers that decide."""
    density, draws, step = LAWS[name]
    with jax.enable_x64(True):
        chains = trees.started(draws(np.random.default_rng(1), n), step)
        momenta = jr.normal(jr.key(0), (k + 1, n, chains.draw.z.shape[1]))
        move = jax.vmap(trees.leap, (None, 0, 0, 0, None, None, None))

        def iterate(carry):
            i, chains, count, found = carry
            uniform = change(jr.uniform(jr.fold_in(jr.key(2), i), (n, 4)))
            r = momenta[jnp.minimum(count + ~chains.new, k), jnp.arange(n)]
            chains, ended, *_ = move(jax.value_and_grad(density), chains, r, uniform, 0.8, False, trees.DEEPEST)
            count = count + ended
            return i + 1, chains, count, jnp.where((ended & (count == k))[:, None], chains.draw.z, found)

        carry = 0, chains, jnp.zeros(n, int), chains.draw.z
        return np.asarray(jax.jit(lambda c: jax.lax.while_loop(lambda c: c[2].min() < k, iterate, c))(carry)[3])


@pytest.mark.parametrize("name", LAWS)
def test_draws_keep_the_law(name):
    x = after(name, 6)
    assert kstest(uniforms_of(x, name), "uniform").pvalue > LEVEL


@pytest.mark.parametrize("name", LAWS)
def test_a_wrong_acceptance_does_not(name):
    """The control: a branch's last leaf is taken, whatever its weight."""
    x = after(name, 6, lambda uniform: uniform.at[:, :2].set(0.0))
    assert kstest(uniforms_of(x, name), "uniform").pvalue < LEVEL


def test_no_chain_waits_and_each_leapfrog_is_counted():
    """Chains with long and with short trees: the fast ones have many draws when the slow ones have few."""
    with jax.enable_x64(True):
        target = Target(LogDensity(lambda z: -0.5 * (z**2).sum(), 2))
        chains = trees.started(np.random.default_rng(0).standard_normal((2, 2)), np.array([0.05, 1.0]))
        metric = LowRank.of(fisher_metric(*[np.random.default_rng(1).standard_normal((9, 2))] * 2), 2)
        run = trees.Trees(target).run(metric, chains, jr.key(0), 0.8, False, 200)
    assert run.n[1] == trees.ROOM > 4 * run.n[0]
    assert target.evaluations == target.budget.used and target.evaluations % 2 == 0
    used = [run.leaps[c, : run.n[c]].sum() for c in range(2)]
    assert used[1] + 1 == target.evaluations / 2 and used[0] < target.evaluations / 2  # the other is in a tree


# ---- the metric ------------------------------------------------------------------------------------------------------
def gaussian_draws(covariance, n, seed=0):
    """Draws and gradients of N(3, covariance)."""
    d = len(covariance)
    x = np.random.default_rng(seed).standard_normal((n, d)) @ np.linalg.cholesky(covariance).T
    return x + 3.0, -np.linalg.solve(covariance, x.T).T


def spiked(d, strengths, seed=0):
    """Diagonal, and a few directions."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(0, 2, d))
    basis = np.linalg.qr(rng.standard_normal((d, len(strengths))))[0]
    return scale[:, None] * (np.eye(d) + (basis * (np.asarray(strengths) - 1.0)) @ basis.T) * scale


def test_a_diagonal_is_exact_from_a_few_draws():
    sd = np.array([1e-3, 1.0, 7.0, 1e4])
    x, g = gaussian_draws(np.diag(sd**2), 5)
    np.testing.assert_allclose(fisher_scale(x, g), sd, rtol=1e-10)
    assert not np.allclose(x.std(0), sd, rtol=0.05)  # the draws alone do not tell


def test_the_geometric_mean_of_a_gaussian_is_its_covariance():
    covariance = spiked(6, [30.0, 0.1])
    x, g = gaussian_draws(covariance, 40)
    np.testing.assert_allclose(geometric_mean(np.cov(x.T), np.cov(g.T)), covariance, rtol=1e-6)


@pytest.mark.parametrize(("n", "most"), [(60, 40.0), (120, 4.0), (300, 3.0)])
@pytest.mark.parametrize("strengths", [[400.0], [100.0, 0.02], [50.0, 20.0, 0.01]])
def test_few_directions_from_few_draws(strengths, n, most):
    """In 100 dimensions: with fewer draws than that, too. A diagonal metric leaves the condition number as it is."""
    covariance = spiked(100, strengths)
    metric = fisher_metric(*gaussian_draws(covariance, n))
    white = np.linalg.inv(metric.root) @ covariance @ np.linalg.inv(metric.root).T
    scale = fisher_scale(*gaussian_draws(covariance, n))
    assert np.linalg.cond(white) < most < 0.1 * np.linalg.cond(covariance / scale[:, None] / scale)
    assert metric.core.size <= 64


def test_a_metric_of_draws_that_do_not_differ():
    """Of what does not vary, or has no slope, a width that is finite."""
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((20, 3)), rng.standard_normal((20, 3))
    x[:, 0], g[:, 1] = 2.0, 0.0
    metric = fisher_metric(x, g)
    assert np.isfinite(metric.root).all() and np.isfinite(metric.whiten(x)).all()


# ---- the solver ------------------------------------------------------------------------------------------------------
def test_it_finds_a_correlated_posterior_in_twenty_dimensions():
    covariance = spiked(20, [900.0, 0.02])
    precision = jnp.asarray(np.linalg.inv(covariance))
    fit = jn.fit(LogDensity(lambda z: -0.5 * z @ precision @ z, 20), method="nuts", **QUIET)
    x, sd = np.asarray(fit.draws), np.sqrt(np.diag(covariance))
    assert str(fit.verdict) == "RELIABLE" and fit.corrected == "chains"
    assert np.abs(x.mean(0) / sd).max() < 0.15 and np.abs(x.std(0) / sd - 1).max() < 0.15


def funnel(z):
    return -0.5 * z[0] ** 2 / 9 - 0.5 * (z[1:] ** 2).sum() * jnp.exp(-z[0]) - 4.5 * z[0]


EIGHT = np.array([[28.0, 8, -3, 7, -1, 1, 18, 12], [15.0, 10, 16, 11, 9, 11, 10, 18]])


def schools(z):
    """Centred: mu, log tau, theta; tau ~ half-Cauchy(5)."""
    mu, log_tau, theta = z[0], z[1], z[2:]
    prior = -0.5 * (mu / 5) ** 2 - jnp.log1p(jnp.exp(2 * log_tau) / 25) + log_tau
    effects = (-0.5 * ((theta - mu) / jnp.exp(log_tau)) ** 2 - log_tau).sum()
    return prior + effects - 0.5 * (((EIGHT[0] - theta) / EIGHT[1]) ** 2).sum()


def narrow(z):
    """Regression to a scale that may be 0."""
    return -0.5 * (z[0] + 1) ** 2 / 4 - 0.5 * ((z[1:] * jnp.exp(-2 * z[0])) ** 2).sum() - 2 * (len(z) - 1) * z[0]


@pytest.mark.parametrize("density", [funnel, schools, narrow])
def test_a_neck_that_it_does_not_enter_is_not_reliable(density):
    """Started in the wide part, with a budget that does not suffice for the neck."""
    fit = jn.fit(LogDensity(density, 10), method="nuts", budget="evaluations:120000", **QUIET)
    assert str(fit.verdict) != "RELIABLE"


@pytest.mark.parametrize("allowed", [2_000, 30_000, 120_000])
def test_a_budget_holds_and_an_end_by_it_is_said(allowed):
    model = LogDensity(lambda z: -((z[1:] - z[:-1] ** 2) ** 2).sum() * 20 - 0.5 * (z**2).sum(), 8)
    fit = jn.fit(model, method="nuts", budget=f"evaluations:{allowed}", **QUIET)
    assert fit.options["evaluations"] <= 1.3 * allowed
    assert fit.why in ("budget", "converged")
    assert fit.why == "converged" or (str(fit.verdict) != "RELIABLE" and any("budget" in r for r in fit.reasons))


def test_patience_ends_it_and_is_named(monkeypatch):
    monkeypatch.setattr(nuts, "PATIENCE", 0)
    with jax.enable_x64(True):
        target = Target(LogDensity(lambda z: -((z[1:] - z[:-1] ** 2) ** 2).sum() * 20 - 0.5 * (z**2).sum(), 8))
        found = NUTS(at_least=30_000).solve(target, None, 0)
    assert found.why == "patience" and found.draws is not None
    level, sentence = found.findings["notes"][0]
    assert level == 1 and "patience" in sentence and "budget=" in sentence


def test_interrupted_it_gives_what_it_has(monkeypatch):
    calls, run = [], trees.Trees.run

    def interrupting(self, *args):
        calls.append(args[4])
        if calls.count(False) == 3:
            raise KeyboardInterrupt
        return run(self, *args)

    monkeypatch.setattr(trees.Trees, "run", interrupting)
    fit = jn.fit(LogDensity(lambda z: -0.5 * (z**2).sum() - 0.1 * (z**4).sum(), 30), method="nuts", **QUIET)
    assert fit.why == "interrupted" and calls.count(False) == 3 and len(np.asarray(fit.draws)) > 100


def test_a_run_is_a_function_of_its_seed():
    model = LogDensity(lambda z: -0.5 * (z**2).sum() - 0.1 * (z**4).sum(), 3)
    a, b, c = (np.asarray(jn.fit(model, method="nuts", seed=s, **QUIET).draws) for s in (0, 0, 1))
    assert a.shape == b.shape and (a == b).all() and not (a.shape == c.shape and (a == c).all())
