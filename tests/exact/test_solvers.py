"""Solvers against posteriors whose moments and evidence are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen.algorithms import (
    DADVI,
    LBFGS,
    BatchAndMatch,
    GaussianScoreMatching,
    Importance,
    Laplace,
    ModeMixture,
    NaturalGradient,
    Pathfinder,
)
from jensen.algorithms.ascent import ascend
from jensen.algorithms.batch_and_match import matched
from jensen.algorithms.budget import Budget
from jensen.algorithms.gaussian import Gaussian, Mixture, standardised_draws
from jensen.algorithms.importance import proposal_of, weigh
from jensen.algorithms.low_rank import LowRankGaussian, quasi_newton
from jensen.algorithms.score_matching import projected
from jensen.algorithms.solver import Solution
from jensen.algorithms.target import Target
from jensen.models import BlackBox, LogDensity

LOG_Z = 1.7
GAUSSIAN_SOLVERS = {
    "laplace": Laplace, "natural-gradient": NaturalGradient, "dadvi": DADVI, "batch-and-match": BatchAndMatch,
    "score-matching": GaussianScoreMatching,
}  # fmt: skip
ALL = {**GAUSSIAN_SOLVERS, "lbfgs": LBFGS, "pathfinder": Pathfinder, "mixture": ModeMixture, "importance": Importance}


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True), np.errstate(all="ignore"):
        yield


@dataclasses.dataclass
class Known:
    model: LogDensity
    mean: np.ndarray
    covariance: np.ndarray

    @property
    def sd(self):
        return np.sqrt(np.diagonal(self.covariance))

    def errors(self, mean, covariance):
        """Of the mean, in whitened sd, and of the covariance, relative in its worst direction."""
        lower = np.linalg.cholesky(self.covariance)
        white = np.linalg.solve(lower, np.linalg.solve(lower, covariance).T)
        values = np.linalg.eigvalsh((white + white.T) / 2)
        return np.linalg.norm(np.linalg.solve(lower, mean - self.mean)), np.abs(values - 1).max()


def correlated(dim, condition, seed=0, far=3.0):
    """A Gaussian with eigenvalues from 1 / sqrt(condition) to sqrt(condition), in random directions."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    values = np.geomspace(1, condition, dim) / np.sqrt(condition)
    covariance, precision = (axes * values) @ axes.T, jnp.asarray((axes / values) @ axes.T)
    mean = far * rng.standard_normal(dim) * np.sqrt(np.diagonal(covariance))
    constant = LOG_Z - 0.5 * np.log(values).sum() - 0.5 * dim * np.log(2 * np.pi)
    model = LogDensity(lambda z: -0.5 * (z - mean) @ precision @ (z - mean) + constant, (dim,))
    return Known(model, mean, covariance)


def solved(solver, model, start=None, seed=0, **limits):
    target = Target(model, budget=Budget(**limits))
    return solver.solve(target, start, seed), target


def single(q):
    return q.components[int(np.argmax(q.weights))] if isinstance(q, Mixture) else q


# ---- exactness ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", GAUSSIAN_SOLVERS)
@pytest.mark.parametrize(("dim", "condition"), [(1, 1.0), (5, 100.0), (20, 1e6)])
def test_a_gaussian_is_found_exactly(name, dim, condition):
    known = correlated(dim, condition)
    solution, _ = solved(GAUSSIAN_SOLVERS[name](), known.model)
    assert solution.why == "converged"
    mean, covariance = known.errors(solution.q.mean, solution.q.root @ solution.q.root.T)
    assert mean < 0.05
    if name != "laplace" or condition < 1e4:  # Laplace leaves no direction wider than 100 local scales
        assert covariance < (1e-4 if condition < 1e3 else 0.06)  # rounding of differences grows with the condition


@pytest.mark.parametrize("dim", [4, 20])
def test_a_gaussian_far_from_the_start_is_found_exactly(dim):
    known, start = correlated(dim, 1e4, far=20.0), Solution(Gaussian(np.zeros(dim), np.eye(dim)))
    for solver in (BatchAndMatch(), DADVI(), NaturalGradient(max_iterations=300)):
        solution, _ = solved(solver, known.model, start)
        mean, covariance = known.errors(solution.q.mean, solution.q.root @ solution.q.root.T)
        assert solution.why == "converged" and mean < 0.02 and covariance < 0.02, solver.name


def test_mean_field_widths_are_the_conditional_ones():
    """The optimum of a diagonal Gaussian has the precision's diagonal; linear response has the covariance's."""
    known = correlated(5, 50.0)
    solution, _ = solved(DADVI(linear_response=False, n_draws=60), known.model)
    conditional = 1 / np.sqrt(np.diagonal(np.linalg.inv(known.covariance)))
    np.testing.assert_allclose(solution.q.sd, conditional, rtol=1e-5)
    np.testing.assert_allclose(solution.q.mean, known.mean, atol=1e-4)
    assert (known.sd / conditional).max() > 1.3  # the control: the two differ


@pytest.mark.parametrize("solver", [Importance(), Pathfinder()], ids=lambda s: s.name)
@pytest.mark.parametrize(("dim", "condition"), [(1, 1.0), (5, 30.0)])
def test_evidence_and_draws_of_a_gaussian(solver, dim, condition):
    """|z| < 5 for the evidence; moments to 6 standard errors of 4096 resampled draws of k-hat below .5."""
    known = correlated(dim, condition)
    solution, _ = solved(solver, known.model)
    value, error = solution.evidence
    assert abs(value - LOG_Z) < 5 * error + 1e-6 and error < 0.02
    assert abs(value - LOG_Z - 0.2) > 5 * error  # the control: a fifth of a nat would be seen
    assert solution.corrected == "importance" and solution.findings["weighted"].khat < 0.5
    assert (np.abs(solution.draws.mean(0) - known.mean) / known.sd).max() < 0.12
    assert np.abs(solution.draws.std(0) / known.sd - 1).max() < 0.08


def test_quasi_newton_matrix_is_the_recursion():
    """The compact form against the definition: H <- (I - r s z^T) H (I - r z s^T) + r s s^T; and the Gaussian's parts."""
    rng, dim = np.random.default_rng(0), 7
    a = rng.standard_normal((dim, dim))
    hessian, s = a @ a.T + np.eye(dim), rng.standard_normal((4, dim))
    z, alpha = s @ hessian, rng.uniform(0.1, 2, dim)
    expected = np.diag(alpha)
    for step, change in zip(s, z, strict=True):
        rho = 1 / (step @ change)
        left = np.eye(dim) - rho * np.outer(step, change)
        expected = left @ expected @ left.T + rho * np.outer(step, step)
    q = quasi_newton(np.zeros(dim), alpha, s, z)
    dense = q.dense()
    np.testing.assert_allclose(dense.root @ dense.root.T, expected, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(q.sd, np.sqrt(np.diagonal(expected)), rtol=1e-8)
    u = q.sample(rng, 5)
    np.testing.assert_allclose(q.log_prob(u), dense.log_prob(u), rtol=1e-8)
    np.testing.assert_allclose(q.apply(q.whiten(u)), u, rtol=1e-8)
    np.testing.assert_allclose((q.pull(u) * u).sum(1), (u * (q.apply(u) - q.mean)).sum(1), rtol=1e-8)
    assert isinstance(q, LowRankGaussian) and abs(q.entropy() - dense.entropy()) < 1e-8


def test_closed_forms_of_the_score_methods():
    """One draw: GSM's Gaussian has exactly that score there. BaM's covariance solves S U S + S = V."""
    rng = np.random.default_rng(1)
    z, g = rng.standard_normal((1, 4)), 3 * rng.standard_normal((1, 4))
    mean, root = projected(z, g)
    np.testing.assert_allclose(np.linalg.solve(root @ root.T, mean - z[0]), g[0], rtol=1e-8)
    z, g, rate = rng.standard_normal((9, 4)), 0.5 * rng.standard_normal((9, 4)), 3.0
    mean, root = matched(z, g, rate)
    s, share, centre, score = root @ root.T, rate / (1 + rate), z.mean(0), g.mean(0)
    u = rate * np.cov(g.T, bias=True) + share * np.outer(score, score)
    v = np.eye(4) + rate * np.cov(z.T, bias=True) + share * np.outer(centre, centre)
    np.testing.assert_allclose(s @ u @ s + s, v, rtol=1e-8)
    np.testing.assert_allclose(mean, share * (s @ score + centre), rtol=1e-8)


# ---- promises -------------------------------------------------------------------------------------------------------
def banana(dim=2):
    f = lambda z: -0.5 * z[0] ** 2 / 4 - 0.5 * ((z[1] - 0.25 * z[0] ** 2) / 0.5) ** 2 - 0.5 * (z[2:] ** 2).sum()
    return LogDensity(f, (dim,))


def test_a_path_longer_than_its_memory():
    """What is dropped on the way changes neither the path nor the Gaussian at its end."""
    known = correlated(20, 1e4)
    target, u = Target(known.model), np.random.default_rng(0).standard_normal((2, 20)) * 5
    whole, short = (ascend(target, u, 5, keep=keep) for keep in (True, False))
    for a, b in zip(whole, short, strict=True):
        assert len(a.pairs) > 20 and a.value == b.value and b.x[0].size == 0
        q, r = (p.local(len(p.x) - 1, 5) for p in (a, b))
        np.testing.assert_array_equal(q.mean, r.mean)
        np.testing.assert_array_equal(q.sd, r.sd)
    solution, _ = solved(LBFGS(), known.model)
    assert solution.why == "converged" and (np.abs(solution.q.mean - known.mean) / known.sd).max() < 1e-2


def test_values_and_elbos_rise():
    known = correlated(8, 1e3)
    target = Target(known.model)
    paths = ascend(target, np.random.default_rng(0).standard_normal((3, 8)) * 5)
    assert all(p.why == "converged" and (np.diff(p.value) > 0).all() for p in paths)
    for model in (known.model, banana(3)):
        start = Gaussian(np.ones(model.latents.size), np.eye(model.latents.size) * 0.3)
        eps = standardised_draws(128, start.dim, 0)
        _, climbed, _ = NaturalGradient().climb(Target(model), start, eps, 1e-3)
        for history in (climbed, solved(DADVI(most_draws=30), model, Solution(start))[0].history):
            assert len(history) > 1 and (np.diff(history) > -1e-8 * (1 + np.abs(history[:-1]))).all()


@pytest.mark.parametrize("name", ALL)
def test_the_budget_is_kept_and_named(name):
    """One call may overrun it: a line search, an iteration of Newton, the draws that are weighed."""
    allowed = 150
    solution, target = solved(ALL[name](), banana(12), evaluations=allowed)
    assert solution.why == "budget" and target.evaluations < allowed + 10_000
    free, unlimited = solved(ALL[name](), banana(12), evaluations=10**6)
    assert unlimited.evaluations > target.evaluations and free.why != "diverged"


@pytest.mark.parametrize("name", ALL)
def test_a_density_undefined_in_half_of_space(name):
    """log of a coordinate: Gamma(5, 1), NaN below 0. And one that is nowhere finite: no crash, and no answer."""
    gamma = LogDensity(lambda z: 4 * jnp.log(z[0]) - z[0] - 0.5 * z[1] ** 2, (2,))
    solution, target = solved(ALL[name](), gamma)
    q = single(solution.q)
    assert target.n_not_a_number > 0 and 2.5 < q.mean[0] < 6.5 and 0.8 < q.sd[0] < 3.5
    nowhere, _ = solved(ALL[name](), LogDensity(lambda z: jnp.nan * z.sum(), (2,)), evaluations=20_000)
    assert nowhere.why in ("diverged", "budget", "stalled")


@pytest.mark.parametrize("name", ALL)
def test_one_dimension_and_wild_units(name):
    """One coordinate of scale 1e-6 around 1e3, as data that nobody has scaled may give."""
    model = LogDensity(lambda z: -0.5 * (((z - 1e3) / 1e-2) ** 2).sum(), (1,))
    solution, _ = solved(ALL[name](), model)
    q = single(solution.q)
    assert abs(q.mean[0] - 1e3) < 1e-3 and abs(q.sd[0] / 1e-2 - 1) < 0.02


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("mixture", "importance")])
def test_a_density_without_derivatives(name):
    known = correlated(3, 4.0, far=1.0)
    precision = np.linalg.inv(known.covariance)
    model = BlackBox(
        lambda z: -0.5 * np.einsum("ni,ij,nj->n", z - known.mean, precision, z - known.mean), (3,), vectorized=True
    )
    solution, target = solved(ALL[name](), model)
    q = single(solution.q)
    assert not target.smooth and np.abs((q.mean - known.mean) / known.sd).max() < 0.05
    assert np.abs(q.sd / known.sd - 1).max() < 0.1


def test_ten_thousand_dimensions():
    """Widths from 1e-3 to 1e3: the diagonal is learned on the way. Memory is linear in D."""
    dim = 10_000
    sd = np.geomspace(1e-3, 1e3, dim)
    mean = np.random.default_rng(0).standard_normal(dim) * sd
    model = LogDensity(lambda z: -0.5 * (((z - mean) / sd) ** 2).sum(), (dim,))
    for solver in (DADVI(), LBFGS(), Pathfinder(n_paths=1)):
        solution, target = solved(solver, model)
        q = solution.q
        assert solution.why == "converged" and target.evaluations < 10_000, solver.name
        assert np.abs((q.mean - mean) / sd).max() < 0.01 and np.abs(q.sd / sd - 1).max() < 0.1, solver.name


# ---- several modes --------------------------------------------------------------------------------------------------
def two_modes(dim=10, gap=6.0, shares=(0.3, 0.7), widths=(1.0, 0.7)):
    """A mixture of two Gaussians with known weights; evidence LOG_Z."""
    means = np.zeros((2, dim))
    means[0, 0], means[1, 0] = -gap / 2, gap / 2
    parts = lambda z: [
        jnp.log(w) - 0.5 * (((z - m) / s) ** 2).sum() - dim * jnp.log(s) - 0.5 * dim * jnp.log(2 * jnp.pi)
        for w, m, s in zip(shares, means, widths, strict=True)
    ]
    model = LogDensity(lambda z: jnp.logaddexp(*parts(z)) + LOG_Z, (dim,))
    return model, tuple(Gaussian(m, s * np.eye(dim)) for m, s in zip(means, widths, strict=True))


def test_a_mixture_of_two_modes_has_their_weights():
    model, _ = two_modes(dim=2, gap=3.0, widths=(0.5, 0.4))
    solution, target = solved(ModeMixture(), model)
    assert len(solution.q.components) == 2
    order = np.argsort([q.mean[0] for q in solution.q.components])
    np.testing.assert_allclose(solution.q.weights[order], [0.3, 0.7], atol=0.02)
    weighed = weigh(target, proposal_of(solution.q), 4096, 0)
    assert weighed.khat < 0.5 and abs(weighed.evidence[0] - LOG_Z) < 5 * weighed.evidence[1]


def test_laplace_finds_the_curvature_near_a_mode():
    """Gamma in the log: exp(a u - e^u) has its mode at log a, curvature e^u. The best on the way there, by the ELBO."""
    solution, _ = solved(Laplace(), LogDensity(lambda z: (7 * z - jnp.exp(z)).sum(), (2,)))
    elbo = lambda m, s: 7 * m - np.exp(m + s**2 / 2) + np.log(s)
    m, s = solution.q.mean, solution.q.sd
    assert (elbo(m, s) >= elbo(np.log(7), 7**-0.5) - 1e-3).all() and (np.abs(m - np.log(7)) < 0.15).all()
    np.testing.assert_allclose(s, np.exp(-m / 2), rtol=1e-3)  # the curvature where it is


def test_natural_gradient_solves_the_stationarity_conditions():
    """E[g] = 0 and -E[H] = precision: for exp(a u - e^u), E[e^u] = a and 1 / variance = a: mean = log a - 1 / 2a."""
    solution, _ = solved(NaturalGradient(n_draws=2048), LogDensity(lambda z: (7 * z - jnp.exp(z)).sum(), (2,)))
    np.testing.assert_allclose(solution.q.sd, 7**-0.5, rtol=0.01)
    np.testing.assert_allclose(solution.q.mean, np.log(7) - 1 / 14, atol=0.003)


def test_standardised_draws_are():
    for n, dim in ((64, 1), (200, 40)):
        eps = standardised_draws(n, dim, 3)
        np.testing.assert_allclose(eps.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(eps.T @ eps / n, np.eye(dim), atol=1e-10)


def test_pathfinder_in_more_dimensions_than_a_covariance_has_room_for():
    model = LogDensity(lambda z: -0.5 * (z**2).sum(), (700,))
    fit = jn.fit(model, method="pathfinder", progress=False)
    np.testing.assert_allclose(np.asarray(fit.draws).std(0), 1, atol=0.15)
