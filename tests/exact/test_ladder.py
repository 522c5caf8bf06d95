"""The ladder: what it must solve, what it must not call RELIABLE, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jensen as jn
from jensen.errors import OptionError

QUIET = {"progress": False}


def flat(fit) -> np.ndarray:
    return np.concatenate([np.asarray(a).reshape(len(fit.log_p), -1) for a in jax.tree.leaves(fit.draws)], 1)


def close(fit, mean, sd, tolerance=0.1):
    u = flat(fit)
    assert np.abs((u.mean(0) - mean) / sd).max() < tolerance
    assert np.abs(u.std(0) / sd - 1).max() < tolerance


def modes(z):
    """.3 N(-3, I) + .7 N(3, I) in 4 dimensions."""
    log_n = lambda centre: -0.5 * ((z - centre) ** 2).sum() - 2 * jnp.log(2 * jnp.pi)
    return jnp.logaddexp(jnp.log(0.3) + log_n(-3.0), jnp.log(0.7) + log_n(3.0))


def test_an_ill_conditioned_gaussian_is_exact():
    """Condition number 1e8, no scale given; the normaliser is found too."""
    scale = np.geomspace(1e-4, 1.0, 12) * 50
    model = jn.models.LogDensity(lambda z: -0.5 * ((z - 7.0) ** 2 / scale**2).sum(), (12,))
    fit = jn.fit(model, **QUIET)
    assert str(fit.verdict) == "RELIABLE", fit.reasons
    close(fit, 7.0, scale)
    exact = np.log(scale).sum() + 6 * np.log(2 * np.pi)
    assert abs(fit.log_evidence - exact) < 0.05


def test_two_modes_are_both_found():
    fit = jn.fit(jn.models.LogDensity(modes, (4,)), **QUIET)
    assert str(fit.verdict) == "RELIABLE", fit.reasons
    share = float((flat(fit)[:, 0] > 0).mean())
    assert abs(share - 0.7) < 0.03
    assert abs(fit.log_evidence) < 0.03


@pytest.mark.parametrize("seed", [0, 1])
def test_a_banana_is_bent(seed):
    precision = np.linalg.inv(np.array([[1.0, 0.9], [0.9, 1.0]]))

    def density(z):
        y = jnp.array([z[0], z[1] + z[0] ** 2 + 1])
        return -0.5 * y @ precision @ y

    fit = jn.fit(jn.models.LogDensity(density, (2,)), seed=seed, **QUIET)
    assert str(fit.verdict) == "RELIABLE", fit.reasons
    close(fit, [0.0, -2.0], [1.0, np.sqrt(3.0)])


def centred(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(y)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, jnp.array([15.0, 10, 16, 11, 9, 11, 10, 18])), obs=y)


def log_tau_of_the_schools(y, s):
    """(mean, sd) of log tau and mean of mu, by quadrature over tau, with theta and mu integrated by conjugacy."""
    log_tau = np.linspace(-9, 5.5, 20_001)
    tau = np.exp(log_tau)[:, None]
    v = tau**2 + s**2
    precision = (1 / v).sum(1) + 1 / 25
    mean_mu = (y / v).sum(1) / precision
    quadratic = (y**2 / v).sum(1) - mean_mu**2 * precision
    log_p = -0.5 * np.log(v).sum(1) - 0.5 * np.log(precision) - 0.5 * quadratic
    log_p += -np.log1p((tau[:, 0] / 5) ** 2) + log_tau
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    mean = w @ log_tau
    return mean, np.sqrt(w @ (log_tau - mean) ** 2), w @ mean_mu


def test_a_centred_hierarchy_is_solved_in_other_coordinates():
    y, s = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    mean, sd, m = log_tau_of_the_schools(y, s)
    fit = jn.fit(centred, y, **QUIET)
    assert str(fit.verdict) == "RELIABLE", fit.reasons
    assert fit.options["method"].startswith("non-centred")
    u = np.asarray(fit.draws["tau"])
    assert abs(u.mean() - mean) / sd < 0.1 and abs(u.std() / sd - 1) < 0.1
    assert abs(np.asarray(fit.draws["mu"]).mean() - m) < 0.1 * 3.3


@pytest.mark.parametrize("seed", [1, 2])
def test_a_tail_of_the_logarithm_is_reached(seed):
    """The same schools, non-centred: what is reported of tau is settled long before log tau is, which falls off slowly to the
    left. RELIABLE speaks for both."""

    def model(y, s):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
        with numpyro.plate("schools", len(y)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(mu + tau * z, s), obs=y)

    y, s = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    mean, sd = log_tau_of_the_schools(y, s)[:2]
    fit = jn.fit(jn.from_numpyro(model, y, s), seed=seed, **QUIET)
    u = np.asarray(fit.draws["tau"])
    assert str(fit.verdict) == "RELIABLE", fit.reasons
    assert abs(u.mean() - mean) / sd < 0.1 and abs(u.std() / sd - 1) < 0.1


# ---- what must not be called RELIABLE ------------------------------------------------------------------------------
BAD = {
    "flat": lambda z: 0.0 * z.sum(),
    "flat direction": lambda z: -0.5 * (z[0] - z[1]) ** 2,
    "one over t": lambda z: -0.5 * jnp.log1p((z**2).sum()),
    "plateau": lambda z: jax.nn.log_sigmoid(z).sum(),
    "growing": lambda z: 0.5 * (z**2).sum(),
    "undefined in half of space": lambda z: jnp.where(z[0] > 0, -0.5 * (z**2).sum(), jnp.nan),
}


@pytest.mark.parametrize("name", BAD)
def test_no_posterior_is_not_reliable(name):
    fit = jn.fit(jn.models.LogDensity(BAD[name], (2,)), budget="seconds:20", **QUIET)
    assert str(fit.verdict) != "RELIABLE", fit.reasons


def test_a_missed_mode_is_seen():
    """A Laplace fit started so that it finds one of two modes: the witness tells. Negative control: one mode only."""
    from jensen.algorithms.gaussian import Gaussian
    from jensen.algorithms.importance import proposal_of, weigh
    from jensen.algorithms.target import Target
    from jensen.diagnostics.witness import call_witness

    one = lambda z: -0.5 * ((z - 3.0) ** 2).sum()
    found = {}
    for name, density in (("two", modes), ("one", one)):
        target = Target(jn.models.LogDensity(density, (4,)))
        q = Gaussian(np.full(4, 3.0), np.eye(4))
        weighed = weigh(target, proposal_of(q), 4096, 0)
        assert weighed.khat < 0.5 and weighed.ess > 0.7  # weights alone see nothing
        found[name] = call_witness(target, q, proposal_of(q), float((weighed.log_p - weighed.log_q).max()), -20.0, 0).n
    assert found["two"] > 0 and found["one"] == 0


def test_discontinuities_do_not_fool_it():
    """A density with a jump: the answer is right, or it is not called RELIABLE."""
    density = lambda z: -0.5 * (z**2).sum() + jnp.where(z[0] > 0.5, 2.0, 0.0)
    fit = jn.fit(jn.models.LogDensity(density, (2,)), **QUIET)
    grid = np.linspace(-9, 9, 200_001)
    p = np.exp(-0.5 * grid**2 + np.where(grid > 0.5, 2.0, 0.0))
    p /= p.sum()
    mean = p @ grid
    sd = np.sqrt(p @ (grid - mean) ** 2)
    if str(fit.verdict) == "RELIABLE":
        close(fit, [mean, 0.0], [sd, 1.0])


# ---- budgets and names -----------------------------------------------------------------------------------------------
def test_a_starved_budget_ends_soon_and_says_so():
    fit = jn.fit(centred, np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), budget="evaluations:300", **QUIET)
    assert str(fit.verdict) != "RELIABLE"
    assert fit.options["evaluations"] < 15_000
    assert any("budget" in r for r in fit.reasons)


@pytest.mark.parametrize(
    "budget", ["30", "seconds", "seconds:-1", "hours:2", "seconds:1,seconds:2", "seconds:x", 0, True, []]
)
def test_bad_budgets(budget):
    with pytest.raises(OptionError, match="budget="):
        jn.fit(jn.models.LogDensity(modes, (4,)), budget=budget)


def test_contradictions():
    model = jn.models.LogDensity(modes, (4,))
    with pytest.raises(OptionError, match="n_steps"):
        jn.fit(model, method="laplace", n_steps=100)
    with pytest.raises(OptionError, match="no such method"):
        jn.fit(model, method="magic")


@pytest.mark.parametrize("method", ["laplace", "natural-gradient", "mixture", "importance", "hmc"])
def test_a_rung_by_name(method):
    model = jn.models.LogDensity(lambda z: -0.5 * ((z - 2.0) ** 2 * jnp.array([1.0, 100.0])).sum(), (2,))
    fit = jn.fit(model, method=method, **QUIET)
    assert fit.options["asked"] == method and str(fit.verdict) == "RELIABLE", fit.reasons
    close(fit, 2.0, np.array([1.0, 0.1]))


def test_a_second_fit_compiles_nothing(compilations):
    make = lambda: jn.models.LogDensity(lambda z, x: -0.5 * ((z - x.mean(0)) ** 2).sum(), (3,))
    data = np.random.default_rng(0).normal(size=(20, 3))
    jn.fit(make(), data, **QUIET)
    assert compilations(lambda: jn.fit(make(), data[::-1] + 1.0, seed=3, **QUIET))[1] == 0


def three(z):
    """Three modes in the plane, of weights .5, .3, .2; one is narrow, and q's tails barely touch it."""
    parts = [(0.5, (0.0, 0.0), 1.0), (0.3, (6.0, 4.0), 0.8), (0.2, (-5.0, 5.0), 0.3)]
    term = lambda w, c, s: (
        jnp.log(w) - ((z - jnp.array(c)) ** 2).sum() / (2 * s**2) - 2 * jnp.log(s) - jnp.log(2 * jnp.pi)
    )
    return jax.scipy.special.logsumexp(jnp.stack([term(*p) for p in parts]))


@pytest.mark.parametrize("seed", range(4))
def test_a_third_mode_is_found_or_missed_loudly(seed):
    fit = jn.fit(jn.models.LogDensity(three, (2,)), seed=seed, **QUIET)
    share = float((flat(fit)[:, 0] > 3).mean()), float((flat(fit)[:, 0] < -3).mean())
    right = abs(share[0] - 0.3) < 0.03 and abs(share[1] - 0.2) < 0.03
    assert right or str(fit.verdict) != "RELIABLE", (share, fit.reasons)
    assert right


def test_a_few_outlying_weights_lower_the_effective_sample_size():
    """Two draws of 8,192 in a missed mode: smoothing takes them for a tail; the raw weights do not."""
    from jensen.algorithms.importance import weighted
    from jensen.diagnostics.psis import importance_ess, psis

    log_w = np.random.default_rng(0).normal(0, 0.1, 8192)
    log_w[:2] = 7.0
    found = weighted(np.zeros((8192, 1)), log_w, np.zeros(8192))
    assert importance_ess(psis(log_w).log_weights) / 8192 > 0.5 > 10 * found.ess


WALLS = {
    "exponential": lambda z: jnp.where((z > 0).all(), -z.sum(), -jnp.inf),
    "one wall": lambda z: jnp.where(z[0] > 0, -z[0] - 0.5 * z[1] ** 2, -jnp.inf),
    "half-normal": lambda z: jnp.where((z > 0).all(), -0.5 * (z**2).sum(), -jnp.inf),
    "box": lambda z: jnp.where((jnp.abs(z) < 1).all(), z.sum(), -jnp.inf),
}


@pytest.mark.parametrize("name", WALLS)
def test_a_wall_next_to_the_mode_ends_in_a_verdict(name):
    fit = jn.fit(jn.models.LogDensity(WALLS[name], (2,)), budget="evaluations:60000", **QUIET)
    assert isinstance(fit.verdict, jn.Verdict) and np.isfinite(fit.sample(100)).all()
