"""Chains, particles and warps against posteriors whose moments and evidence are known; the witnesses too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jensen.algorithms.budget import Budget
from jensen.algorithms.gaussian import Gaussian, Mixture
from jensen.algorithms.importance import proposal_of, weigh
from jensen.algorithms.solver import Solution
from jensen.algorithms.target import Target
from jensen.diagnostics import witness
from jensen.diagnostics.marginals import of_chains
from jensen.diagnostics.tails import improper_direction
from jensen.errors import IncompatibleComposition
from jensen.models import BlackBox, LogDensity
from jensen.samplers.chains import HMC, MALA
from jensen.samplers.conditional import ConditionalGaussian
from jensen.samplers.islands import evidence_of, remembered
from jensen.samplers.kernel import Segment
from jensen.samplers.smc import AnnealedSMC, Swarm, next_temperature

LOG_Z = 1.7
LIMIT = 5.5  # standard errors, estimated from 8 islands or 64 chains; about 60 numbers: family-wise level 1e-2 at 7 dof


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True), np.errstate(all="ignore"):
        yield


def gaussian(dim=6, condition=100.0, seed=0):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    values = np.geomspace(1, condition, dim) / np.sqrt(condition)
    mean, covariance, precision = rng.standard_normal(dim), (axes * values) @ axes.T, (axes / values) @ axes.T
    constant = LOG_Z - 0.5 * np.log(values).sum() - 0.5 * dim * np.log(2 * np.pi)
    precision = jnp.asarray(precision)
    return LogDensity(lambda z: -0.5 * (z - mean) @ precision @ (z - mean) + constant, (dim,)), mean, covariance


def banana():
    """z0 ~ N(0, 4), z1 | z0 ~ N(z0^2 / 4, 1 / 4): mean (0, 1), variances 4 and 1 / 4 + 32 / 16. Normalised."""
    normal = lambda x, m, s: -0.5 * ((x - m) / s) ** 2 - jnp.log(s) - 0.5 * jnp.log(2 * jnp.pi)
    model = LogDensity(lambda z: normal(z[0], 0.0, 2.0) + normal(z[1], z[0] ** 2 / 4, 0.5), (2,))
    return model, np.array([0.0, 1.0]), np.sqrt([4.0, 2.25])


def funnel(dim=10):
    """v ~ N(0, 3), x_i | v ~ N(0, e^(v / 2)). Normalised."""
    normal = lambda x, s: -0.5 * (x / s) ** 2 - jnp.log(s) - 0.5 * jnp.log(2 * jnp.pi)
    return LogDensity(lambda z: normal(z[0], 3.0) + normal(z[1:], jnp.exp(z[0] / 2)).sum(), (dim,))


def two_modes(dim=10, gap=8.0):
    """.3 N(-gap / 2, 1) + .7 N(gap / 2, .5^2) along the first coordinate; evidence LOG_Z."""
    means, widths = np.zeros((2, dim)), (1.0, 0.5)
    means[:, 0] = -gap / 2, gap / 2
    parts = lambda z: [
        jnp.log(w) - 0.5 * (((z - m) / s) ** 2).sum() - dim * jnp.log(s * jnp.sqrt(2 * jnp.pi))
        for w, m, s in zip((0.3, 0.7), means, widths, strict=True)
    ]
    model = LogDensity(lambda z: jnp.logaddexp(*parts(z)) + LOG_Z, (dim,))
    return model, [Gaussian(m, s * np.eye(dim)) for m, s in zip(means, widths, strict=True)]


def within(draws, mean, sd, checks, limit=LIMIT):
    """Are all moments within their stated standard errors?"""
    off = np.abs(draws.mean(0) - mean) / sd / checks["se_mean"]
    spread = np.abs(draws.std(0) / sd - 1) / checks["se_sd"]
    return max(off.max(), spread.max()) < limit


def stated(solution):
    """The standard errors of the chains' means, in sd, and sds, relative, as they are reported; of the worst coordinate."""
    chains = solution.draws.reshape(*solution.findings["shape"], -1)
    mean, sd = of_chains(chains, [str(i) for i in range(chains.shape[2])]).errors()
    return {"se_mean": mean.max(), "se_sd": sd.max()}


# ---- chains ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["hmc", "mala"])
def test_chains_give_the_moments_of_a_gaussian_within_their_error(kind):
    model, mean, covariance = gaussian()
    sd = np.sqrt(np.diagonal(covariance))
    start = Solution(Gaussian(mean + 0.7 * sd, np.linalg.cholesky(covariance) * 0.6))
    solution = {"hmc": HMC, "mala": MALA}[kind]().solve(Target(model), start, 0)
    checks = solution.findings["chains"] | stated(solution)
    assert checks["rhat"] < 1.1 and checks["se_mean"] < 0.05
    assert within(solution.draws, mean, sd, checks)
    assert not within(solution.draws, mean + 0.3 * sd, sd, checks)  # the control
    assert not within(1.3 * solution.draws, mean * 1.3, sd, checks)


def test_chains_give_the_moments_of_a_banana_within_their_error():
    model, mean, sd = banana()
    solution = HMC().solve(Target(model), None, 0)
    checks = solution.findings["chains"] | stated(solution)
    assert checks["se_mean"] < 0.1 and within(solution.draws, mean, sd, checks)
    assert not within(solution.draws[:, ::-1], mean, sd, checks)
    assert checks["stein"] < 6


def test_chains_that_never_enter_a_neck_break_steins_identities():
    """Neal's funnel, from its mouth: the chains do not see v below, and the scores say so, or R-hat does."""
    solution = HMC(most=20).solve(Target(funnel()), Solution(Gaussian(np.full(10, 2.0), np.eye(10))), 0)
    checks = solution.findings["chains"]
    assert max(checks["stein"] / 5.5, checks["rhat"] / 1.05, checks["stuck"] / 100) > 1


# ---- particles ------------------------------------------------------------------------------------------------------
def test_particles_give_moments_and_evidence_of_a_gaussian():
    model, mean, covariance = gaussian()
    sd = np.sqrt(np.diagonal(covariance))
    start = Solution(Gaussian(mean + 0.3 * sd, np.linalg.cholesky(covariance) * 1.5))
    target = Target(model)
    solution = AnnealedSMC().solve(target, start, 0)
    checks, (value, error) = solution.findings["chains"], solution.evidence
    assert solution.why == "converged" and solution.corrected == "chains" and checks["rhat"] < 1.02
    assert abs(value - LOG_Z) < LIMIT * error and error < 0.2
    assert within(solution.draws, mean, sd, checks) and not within(solution.draws, mean + 0.3 * sd, sd, checks)
    np.testing.assert_allclose(solution.log_p[:50], target.value(solution.draws[:50]), rtol=1e-6)


def test_particles_recover_the_weights_of_two_modes():
    """Given half and half, in 10 dimensions: .3 and .7 come out, and the evidence; not if one mode is left out."""
    model, parts = two_modes()
    start = Solution(Mixture(tuple(parts), np.array([0.5, 0.5])))
    solution = AnnealedSMC().solve(Target(model), start, 0)
    share, checks = (solution.draws[:, 0] < 0).mean(), solution.findings["chains"]
    scale = solution.draws[:, 0].std() / 8
    assert abs(share - 0.3) < LIMIT * checks["se_mean"] * scale and abs(share - 0.3) < 0.08
    assert abs(solution.evidence[0] - LOG_Z) < LIMIT * solution.evidence[1] and solution.evidence[1] < 0.3
    missed = AnnealedSMC(n_particles=256).solve(Target(model), Solution(parts[0]), 0)
    assert (missed.draws[:, 0] < 0).mean() > 0.99 and abs(missed.evidence[0] - (LOG_Z + np.log(0.3))) < 0.3


def test_particles_of_a_density_undefined_in_half_of_space():
    """Gamma(5, 1) in its own coordinate: mean and variance 5, evidence log 24."""
    model = LogDensity(lambda z: 4 * jnp.log(z[0]) - z[0], (1,))
    solution = AnnealedSMC().solve(Target(model), Solution(Gaussian(np.array([4.0]), np.array([[2.0]]))), 1)
    assert abs(solution.evidence[0] - np.log(24)) < LIMIT * solution.evidence[1]
    assert within(solution.draws, np.array([5.0]), np.sqrt([5.0]), solution.findings["chains"])
    assert (solution.draws > 0).all()


def test_particles_keep_to_the_budget_and_ask_for_derivatives():
    model, mean, covariance = gaussian()
    start = Solution(Gaussian(mean + 50.0, np.linalg.cholesky(covariance)))
    target = Target(model, budget=Budget(evaluations=30_000))
    solution = AnnealedSMC().solve(target, start, 0)
    assert solution.why == "budget" and solution.q is start.q and target.evaluations < 60_000
    box = BlackBox(lambda z: -0.5 * float(np.sum(z**2)), (2,))
    for solver in (AnnealedSMC(), HMC()):
        with pytest.raises(IncompatibleComposition, match="no derivatives"):
            solver.solve(Target(box), Solution(Gaussian(np.zeros(2), np.eye(2))), 0)


def test_evidence_of_islands_is_the_mean_of_their_estimates():
    (value, error), shares = evidence_of(np.log([1.0, 3.0]))
    assert abs(value - np.log(2)) < 1e-12 and abs(error - 0.5) < 1e-12
    np.testing.assert_allclose(shares, [0.25, 0.75])


def test_particles_that_forget_and_particles_that_do_not():
    """Independent positions; two modes that are never left, told by labels and not told; a walk that has not ended."""
    rng, none = np.random.default_rng(0), np.zeros((24, 0))
    segment = lambda u: [Segment(none, u, *[none] * 4)]
    fresh, one, labels = rng.standard_normal((24, 512, 3)), np.zeros(512, int), np.arange(512) % 2
    walk = 0.1 * fresh.cumsum(0) + rng.standard_normal((512, 3))
    assert remembered(segment(fresh), one) < 1.05
    assert (
        remembered(segment(fresh + 9.0 * labels[:, None]), labels)
        < 1.05
        < remembered(segment(fresh + 9.0 * labels[:, None]), one)
    )
    assert remembered(segment(walk), one) > 1.5


def test_the_next_temperature_keeps_what_it_promises():
    energy = np.random.default_rng(0).standard_normal((4, 64)) * 30
    swarm = Swarm(
        energy[..., None], energy, np.full((4, 64), -np.log(64)), np.zeros(4), Gaussian(np.zeros(1), np.ones(1))
    )
    t = next_temperature(swarm, 0.9)
    w = np.exp(t * (energy - energy.max())).reshape(-1)
    assert 0 < t < 1 and abs(w.sum() ** 2 / (w**2).sum() / w.size - 0.9) < 1e-3
    assert (
        next_temperature(Swarm(energy[..., None], 0 * energy, swarm.log_weights, swarm.log_z, swarm.metric), 0.9) == 1
    )


# ---- the conditional Gaussian ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("which", ["banana", "funnel"])
def test_a_conditional_gaussian_straightens(which):
    """From draws: evidence 0 within its error; the log-scale of a funnel has sd 3. A Gaussian does much worse."""
    model, sd = (banana()[0], 2.0) if which == "banana" else (funnel(), 3.0)
    chains = HMC().solve(Target(model), None, 0)
    solution = ConditionalGaussian().solve(Target(model), chains, 0)
    weighed = solution.findings["weighted"]
    assert weighed.ess > 0.3 and abs(solution.evidence[0]) < max(LIMIT * solution.evidence[1], 0.05)
    assert abs(solution.draws[:, 0].std() / sd - 1) < 0.12 and abs(solution.draws[:, 0].mean() / sd) < 0.12
    plain = Gaussian(chains.draws.mean(0), np.linalg.cholesky(np.cov(chains.draws.T)))
    assert weigh(Target(model), proposal_of(plain), 8192, 1).ess < 0.8 * weighed.ess


# ---- what weights cannot see ----------------------------------------------------------------------------------------
def test_an_improper_direction_is_named():
    names = ["z[0]", "z[1]"]
    q = Gaussian(np.zeros(2), np.eye(2))
    flat = LogDensity(lambda z: -0.5 * z[0] ** 2 + 0 * z[1], (2,))
    half = LogDensity(lambda z: -0.5 * z[0] ** 2 - jax.nn.softplus(z[1]), (2,))  # a plateau below
    difference = LogDensity(lambda z: -0.5 * (z[0] - z[1]) ** 2, (2,))
    assert improper_direction(Target(flat), q, names) == "z[1]"
    assert improper_direction(Target(half), q, names) == "z[1]"
    ridge = Gaussian(np.zeros(2), np.linalg.cholesky(np.array([[50.0, 49.5], [49.5, 50.0]])))
    assert improper_direction(Target(difference), ridge, names) is not None
    for proper in (
        lambda z: -0.5 * (z**2).sum(),
        lambda z: -2.5 * jnp.log1p((z**2).sum()),
        lambda z: -jnp.abs(z).sum(),
    ):
        assert improper_direction(Target(LogDensity(proper, (2,))), q, names) is None


def test_the_witness_finds_a_mode_that_q_misses_and_is_silent_where_q_is_right():
    model, parts = two_modes(dim=4, gap=12.0)
    missing, right = parts[0], Mixture(tuple(parts), np.array([0.3, 0.7]))
    for q, finds in ((missing, True), (right, False)):
        target = Target(model)
        weighed = weigh(target, proposal_of(q), 8192, 0)
        largest = float((weighed.log_p - weighed.log_q).max())
        testimony = witness.call_witness(target, parts[0], proposal_of(q), largest, -np.inf, 0)
        assert (testimony.n > 0) == finds
        if finds:
            assert weighed.khat < 0.7  # the weights saw nothing
            assert abs(testimony.u[0, 0] - 6) < 2 and testimony.surprise > 4
