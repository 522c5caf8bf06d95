"""Hierarchies as plain densities: their scales are found, and what is RELIABLE has entered the neck. References: quadrature
over the scales, effects integrated by conjugacy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen.algorithms.conditional import conditional_modes
from jensen.algorithms.gaussian import Gaussian
from jensen.algorithms.importance import weighted
from jensen.algorithms.solver import Solution
from jensen.algorithms.target import Target
from jensen.diagnostics.others import Draws, draws_of, unaccounted
from jensen.fit.view import learned_view
from jensen.samplers.scales import conditional_precision


def normal(x, mean, sd):
    return (-0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) * jnp.ones_like(x)).sum()


def groups(seed=0, n_groups=20, size=3, tau=0.05):
    """Normal rows in groups with effects around a mean; u = (mean, log scale, effects). (density, dim, reference)."""
    rng = np.random.default_rng(seed)
    y = 1 + tau * rng.standard_normal((n_groups, 1)) + rng.standard_normal((n_groups, size))

    def density(z):
        scale = jnp.exp(z[1])
        prior = normal(z[0], 0.0, 5.0) - jnp.log1p(scale**2) + z[1]
        return prior + normal(z[2:], z[0], scale) + normal(jnp.asarray(y), z[2:, None], 1.0)

    t = np.linspace(-14, 4, 4001)
    v = np.exp(2 * t) + 1 / size  # of a group's mean around the mean of all
    m, precision = y.mean(), n_groups / v + 1 / 25
    at = n_groups * m / v / precision
    log_p = -0.5 * n_groups * np.log(v) - 0.5 * ((y.mean(1) ** 2).sum() / v - at**2 * precision)
    log_p += -0.5 * np.log(precision) - np.log1p(np.exp(2 * t)) + t
    return density, n_groups + 2, _moments(t, log_p)


def walk(seed=0, n=24, tau=0.05):
    """A random walk seen with noise; u = (states, log scale)."""
    rng = np.random.default_rng(seed)
    y = np.cumsum(tau * rng.standard_normal(n)) + 0.5 * rng.standard_normal(n)

    def density(z):
        x, t = z[:-1], z[-1]
        return normal(t, -1.0, 2.0) + normal(x[0], 0.0, 1.0) + normal(jnp.diff(x), 0.0, jnp.exp(t)) + normal(y, x, 0.5)

    t = np.linspace(-14, 5, 1501)
    steps = np.minimum.outer(np.arange(n), np.arange(n))
    log_p = []
    for one in t:
        root = np.linalg.cholesky(np.exp(2 * one) * steps + 1.0 + 0.25 * np.eye(n))
        log_p.append(-0.5 * (np.linalg.solve(root, y) ** 2).sum() - np.log(np.diagonal(root)).sum())
    return density, n + 1, _moments(t, np.array(log_p) - 0.5 * ((t + 1) / 2) ** 2)


def crossed(seed=0, n=11):
    """Two crossed sets of effects of variances exp(a) and exp(b); u = (a, b, intercept, effects)."""
    rng = np.random.default_rng(seed)
    i, j = np.indices((n, n)).reshape(2, -1)
    x = np.concatenate([np.ones((n * n, 1)), np.eye(n)[i], np.eye(n)[j]], 1)
    y = 0.3 + (0.4 * rng.standard_normal(n))[i] + (0.02 * rng.standard_normal(n))[j] + rng.standard_normal(n * n)

    def density(z):
        effects, sd = z[3:], jnp.repeat(jnp.exp(z[:2] / 2), n)
        return normal(z[:2], -2.0, 2.0) + normal(effects, 0.0, sd) + normal(z[2], 0.0, 3.0) + normal(y, x @ z[2:], 1.0)

    t = np.linspace(-14, 6, 121)
    log_p = np.empty((t.size, t.size))
    for k, a in enumerate(t):
        for m, b in enumerate(t):
            prior = np.r_[1 / 9, np.full(n, np.exp(-a)), np.full(n, np.exp(-b))]
            root = np.linalg.cholesky(x.T @ x + np.diag(prior))
            fit = np.linalg.solve(root, x.T @ y)
            log_p[k, m] = 0.5 * fit @ fit - np.log(np.diagonal(root)).sum() + 0.5 * np.log(prior).sum()
    log_p += -0.5 * ((t[:, None] + 2) / 2) ** 2 - 0.5 * ((t + 2) / 2) ** 2
    return density, 2 * n + 3, _moments(t, np.logaddexp.reduce(log_p, 1))


def _moments(t, log_p):
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    return w @ t, np.sqrt(w @ (t - w @ t) ** 2)


CASES = {"groups": (groups, 1, -2.0), "walk": (walk, 24, -2.0), "crossed": (crossed, 0, -1.0)}


@pytest.mark.parametrize("name", CASES)
def test_a_hierarchy_in_a_plain_density_is_solved(name):
    make, at, _ = CASES[name]
    density, dim, (mean, sd) = make()
    fit = jn.fit(jn.models.LogDensity(density, (dim,)), progress=False)
    assert str(fit.verdict) == "RELIABLE", fit.reasons
    m = fit.marginals
    assert abs(m.mean[at] - mean) < 0.1 * sd and abs(m.sd[at] / sd - 1) < 0.1


@pytest.mark.parametrize("name", CASES)
def test_scales_are_read_off_curvatures(name):
    """And with effects integrated the map is exact: what the density is at z_B = 0 is the marginal of the scales."""
    make, at, exponent = CASES[name]
    density, dim, (mean, sd) = make()
    with jax.enable_x64(True):
        target = Target(jn.models.LogDensity(density, (dim,)))
        found = conditional_precision(target, np.zeros(dim), np.ones(dim))
        assert at in found.a and len(found.a) == (2 if name == "crossed" else 1)
        assert np.allclose(np.abs(found.exponents).max(0), -exponent)
        view = learned_view(target, Gaussian(np.zeros(dim), np.ones(dim)))
        z = np.zeros((801, dim))
        grid = np.linspace(-13, 4, 801)
        z[:, at] = grid
        if name != "crossed":
            got = _moments(grid, view.target.value(z))
            assert np.allclose(got, (mean, sd), atol=0.03)
        other = np.random.default_rng(1).standard_normal(dim)
        z[:, np.setdiff1d(np.arange(dim), found.a)] = other[np.setdiff1d(np.arange(dim), found.a)]
        flat = view.target.value(z)[100:600]
        z[:, found.b] = 0.0
        assert np.ptp(flat - view.target.value(z)[100:600]) < 1e-3  # whatever the scale: standard normal


FLAT = {
    "a Gaussian": lambda z: -0.5 * (z**2 * jnp.arange(1.0, 7.0)).sum() - 0.3 * z[0] * z[1],
    "a log-linear likelihood": lambda z: -0.05 * (z**2).sum() + (z * 3).sum() - jnp.exp(z[0] + z[1:]).sum(),
    "a logistic likelihood": lambda z: (
        -0.05 * (z**2).sum() + jax.nn.log_sigmoid(z[0] + z[1:]).sum() - jax.nn.softplus(z).sum()
    ),
    "a banana": lambda z: -0.5 * (z[0] ** 2 + ((z[1:] - z[0] ** 2) ** 2).sum()),
}


@pytest.mark.parametrize("name", FLAT)
def test_no_scale_is_found_where_there_is_none(name):
    with jax.enable_x64(True):
        target = Target(jn.models.LogDensity(FLAT[name], (6,)))
        assert conditional_precision(target, np.full(6, 0.1), np.ones(6)) is None


def test_scales_of_scales_are_undone_level_by_level():
    """Every level of a tower of scales is standard normal in the coordinates that were learned."""

    def density(z):
        top, middle, low = z[0], z[1:4], z[4:].reshape(3, 2)
        return normal(top, 0.0, 0.5) + normal(middle, -1.0, jnp.exp(top)) + normal(low, 0.0, jnp.exp(middle)[:, None])

    with jax.enable_x64(True):
        target = Target(jn.models.LogDensity(density, (10,)))
        view = learned_view(target, Gaussian(np.full(10, 0.3), np.ones(10)))
        z = np.random.default_rng(0).standard_normal((300, 10))
        z[:, 0] *= 0.5
        exact = -0.5 * (z[:, 0] / 0.5) ** 2 - 0.5 * (z[:, 1:] ** 2).sum(1)
        assert view.rest.tolist() == list(range(1, 10))
        assert np.ptp(view.target.value(z) - exact) < 1e-3
        assert np.allclose(target.value(view.back(z)) > -np.inf, True)


# ---- rungs must agree ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_rung_must_account_for_the_draws_of_others(seed):
    """Chains that stop short of a neck, beside weighed draws that went there. Negative controls: chains that did not stop;
    draws that went there by chance and hold no mass; and without the witness nothing is seen."""
    rng = np.random.default_rng(seed)
    whole = np.concatenate(
        [-rng.exponential(1.5, (4000, 1)), rng.standard_normal((4000, 1))], 1
    )  # a log scale's left tail
    short = whole[whole[:, 0] > -2.4]
    chains = lambda x: Draws("chains", x, np.full(len(x), 1 / len(x)), 0.3 * len(x))
    u = np.stack([-rng.exponential(3.0, 8000), 1.3 * rng.standard_normal(8000)], 1)
    log_p = u[:, 0] / 1.5 - np.log(1.5) - 0.5 * u[:, 1] ** 2 - 0.5 * np.log(2 * np.pi)
    log_q = u[:, 0] / 3 - np.log(3.0) - 0.5 * (u[:, 1] / 1.3) ** 2 - np.log(1.3) - 0.5 * np.log(2 * np.pi)
    with jax.enable_x64(True):
        target = Target(jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,)))
        told = draws_of("weights", Solution(None), weighted(u, log_p, log_q), 0.0, target)
        light = draws_of("weights", Solution(None), weighted(u, log_p - 8.0, log_q), 0.0, target)
    names = ["log_s", "b"]
    missing = unaccounted(chains(short), told, names)
    assert missing is not None and missing.quantity == "log_s" and missing.below and missing.found > missing.held
    assert "log_s below" in str(missing)
    assert unaccounted(chains(whole), told, names) is None
    assert unaccounted(chains(short), light, names) is None
    assert unaccounted(chains(short), [], names) is None


def test_one_chain_that_strayed_is_no_rung_that_found_more():
    """Of 16 chains of an earlier rung one stayed in a tail: its share is as uncertain as the chains differ. The control: all
    of them found as much there."""
    rng = np.random.default_rng(5)
    own = Draws("", rng.standard_normal((8000, 1)), np.full(8000, 1 / 8000), 8000.0)
    strayed = rng.standard_normal((500, 16, 1))
    strayed[:, 0] = 2.5 + 0.3 * rng.standard_normal((500, 1))
    mixed = rng.permutation(strayed.reshape(-1, 1)).reshape(500, 16, 1)
    told = lambda x, chains: [Draws("hmc", x.reshape(-1, 1), np.full(8000, 1 / 8000), 4000.0, chains)]
    assert unaccounted(own, told(strayed, 16), ["tau"]) is None
    assert unaccounted(own, told(mixed, 16), ["tau"]) is not None
    assert unaccounted(own, told(strayed, 1), ["tau"]) is not None


def counts_of_groups(seed=0, n_groups=10):
    """Binomial counts, of groups whose log odds lie around a mean: u = (mean, log scale, effects)."""
    rng = np.random.default_rng(seed)
    trials = np.arange(4, 4 + n_groups)
    y = rng.binomial(trials, 1 / (1 + np.exp(-(0.8 + 0.5 * rng.standard_normal(n_groups)))))

    def density(z):
        scale = jnp.exp(z[1])
        likelihood = (y * jax.nn.log_sigmoid(z[2:]) + (trials - y) * jax.nn.log_sigmoid(-z[2:])).sum()
        return normal(z[0], 0.0, 2.0) - jnp.log1p(scale**2) + z[1] + normal(z[2:], z[0], scale) + likelihood

    return density, n_groups + 2


def test_a_direction_that_a_scale_leaves_free_is_as_wide_in_the_far_neck():
    """Groups that move together are not held by the scale between them: not where the likelihood is not Gaussian either."""
    density, dim = counts_of_groups()
    around = Gaussian(np.array([0.8, -1.0, *[0.8] * (dim - 2)]), np.array([0.4, 0.8, *[0.5] * (dim - 2)]))
    z = np.zeros((3, dim))
    z[:, 1] = -3.0, -7.0, -11.0
    with jax.enable_x64(True):
        view = learned_view(Target(jn.models.LogDensity(density, (dim,))), around)
        found = conditional_modes(view.target, z, np.delete(np.arange(dim), 1), np.ones(dim))
    sds = np.linalg.eigvalsh(found.precision) ** -0.5
    assert found.reached.all()
    assert (sds > 0.3).all() and (sds < 3.0).all()
