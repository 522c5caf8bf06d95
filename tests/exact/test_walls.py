"""Densities that end: at one value of a coordinate, along planes, and along curves; and densities that do not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jensen as jn
from jensen.algorithms.target import Target
from jensen.models import LogDensity
from jensen.samplers.ends import Ends, Wall, ends_of, in_words
from jensen.samplers.walls import support_of


def where(inside, value):
    return jnp.where(inside, value, -jnp.inf)


ENDING = {  # log density, dimension, mean, sd, log of the integral, what is said
    "exponential": (lambda z: where(z[0] > 3, -2 * (z[0] - 3)), 1, 3.5, 0.5, -math.log(2), "z[0] > 3"),
    "half normal": (lambda z: where(z[0] < 0, -0.5 * z[0] ** 2), 1, -math.sqrt(2 / math.pi), math.sqrt(1 - 2 / math.pi),
                    0.5 * math.log(math.pi / 2), "z[0] < 0"),
    "box": (lambda z: where(((z > 1) & (z < 3)).all(), 0 * z.sum()), 2, 2.0, 2 / math.sqrt(12), math.log(4), "1 < z[0] < 3"),
    "order": (lambda z: where(z[0] > z[1], -0.5 * (z**2).sum()), 2, [math.pi**-0.5, -(math.pi**-0.5)],
              math.sqrt(1 - 1 / math.pi), math.log(math.pi), "z[0] > z[1]"),
    "simplex": (lambda z: where((z > 0).all() & (z.sum() < 2), 0 * z.sum()), 2, 2 / 3, 2 / math.sqrt(18), math.log(2),
                "z[0] + z[1] < 2"),
    "disk": (lambda z: where((z**2).sum() < 4, 0 * z.sum()), 2, 0.0, 1.0, math.log(4 * math.pi), "curved"),
    "far away": (lambda z: where(z[0] > 1e6, 1e6 - z[0]), 1, 1e6 + 1, 1.0, 0.0, "z[0] > 1e+06"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ENDING))
def test_a_density_that_ends_is_fitted_within(name):
    fn, d, mean, sd, log_z, said = ENDING[name]
    fit = jn.fit(LogDensity(fn, (d,)), seed=0, progress=False)
    table = fit.summary()
    assert str(fit.verdict) == "RELIABLE", fit.reasons
    assert np.abs(table["mean"].to_numpy(float) - mean).max() < 0.06 * sd
    assert np.abs(table["sd"].to_numpy(float) / sd - 1).max() < 0.06
    assert abs(fit.diagnosis.log_evidence - log_z) < 0.06
    assert np.isfinite(jax.vmap(fn)(jnp.asarray(fit.draws, jnp.float64 if name != "far away" else None))).all()
    assert said in fit.diagnosis.details["walls"]["sentence"]
    assert fit.diagnosis.details["walls"]["sentence"] in fit.reasons


def test_a_factor_of_minus_infinity_in_numpyro_is_a_wall():
    def model():
        a = numpyro.sample("a", dist.Normal(0, 1))
        b = numpyro.sample("b", dist.Normal(0, 1))
        numpyro.factor("wall", where(a + b > 0, 0.0))

    fit = jn.fit(model, progress=False)
    assert str(fit.verdict) == "RELIABLE", fit.reasons
    assert abs(fit.diagnosis.log_evidence - math.log(0.5)) < 0.05
    assert (np.asarray(fit.draws["a"]) + np.asarray(fit.draws["b"]) > 0).all()
    assert fit.diagnosis.details["walls"]["walls"] == ["a + b > 0"]


NOT_ENDING = {
    "everywhere": lambda z: -0.5 * (z**2).sum(),
    "an overflow far out": lambda z: -0.5 * (z**2).sum() - jnp.exp(jnp.exp(z[0] - 3)),
    "not a number": lambda z: -0.5 * z[0] ** 2 + 3 * jnp.log(z[1]) - z[1],
}


@pytest.mark.parametrize("name", list(NOT_ENDING))
def test_what_does_not_end_has_no_walls(name):
    fit = jn.fit(LogDensity(NOT_ENDING[name], (2,)), progress=False)
    assert "walls" not in fit.diagnosis.details


def test_no_look_where_no_value_was_infinite():
    with jax.enable_x64(True):
        target = Target(LogDensity(NOT_ENDING["everywhere"], (2,)))
        target(np.zeros((3, 2)))
        before = target.evaluations
        assert support_of(target, np.zeros(2), 0) is None
        assert target.evaluations == before


def test_coordinates_that_end_have_the_jacobian_they_say():
    walls = [Wall(np.array([1.0, 0, 0, 0]), 2.0), Wall(np.array([0, 1.0, -1.0, 0]), 0.0)]
    walls += [Wall(np.array([0, 0, 0, 1.0]), -1.0), Wall(np.array([0, 0, 0, -1.0]), -4.0)]
    rng = np.random.default_rng(0)
    low = rng.standard_normal(500)
    parts = [2 + rng.exponential(size=500), low + np.abs(rng.standard_normal(500)), low, rng.uniform(-1, 4, 500)]
    with jax.enable_x64(True):
        ends = ends_of(walls, np.stack(parts, 1))
        assert isinstance(ends, Ends)
        u = jnp.asarray(rng.standard_normal((50, 4)) * 1.5)
        z, log_det = jax.vmap(ends)(u)
        true = jnp.linalg.slogdet(jax.vmap(jax.jacfwd(lambda u: ends(u)[0]))(u))[1]
        np.testing.assert_allclose(log_det, true, atol=1e-8)
        np.testing.assert_allclose(ends.inverse(np.asarray(z)), u, atol=1e-6)
        np.testing.assert_allclose(ends.host(np.asarray(u)), z, atol=1e-10)
    assert all((w.slack(np.asarray(z)) > 0).all() for w in walls)
    assert in_words(walls, list("abcd")) == ["a > 2", "b > c", "-1 < d < 4"]


def test_walls_that_end_no_coordinate_each_have_none():
    corners = [Wall(np.array([1.0, 0]), 0.0), Wall(np.array([0, 1.0]), 0.0), Wall(np.array([1.0, 1.0]), 1.0)]
    assert ends_of(corners, np.random.default_rng(0).uniform(1, 2, (100, 2))) is None


def test_what_does_not_fall_off_is_named_behind_a_wall_too():
    density = lambda z: jnp.where(z[0] > 0, -z[0] - 0.5 * z[1] ** 2, -jnp.inf) + 0.0 * z[2]
    fit = jn.fit(jn.models.LogDensity(density, (3,)), progress=False)
    assert str(fit.verdict) == "UNRELIABLE" and "does not fall off along z[2]" in fit.reasons[0]
