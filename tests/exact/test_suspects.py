"""What is told of the mass that lies where a witness's particles ended, against tails that are known exactly."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student_t

from jensen.algorithms.gaussian import Gaussian
from jensen.algorithms.target import Target
from jensen.diagnostics import witness
from jensen.diagnostics.suspects import Known, held_beyond, looked_into
from jensen.models.log_density import LogDensity

D = 6


def funnel(u):
    """x given v is normal of sd e^(v / 2), v normal of sd 3."""
    v, x = u[0], u[1:]
    return jax.scipy.stats.norm.logpdf(v, 0, 3) + jax.scipy.stats.norm.logpdf(x, 0, jnp.exp(v / 2)).sum()


def heavy(u):
    return jax.scipy.stats.t.logpdf(u[0], 4.0) + jax.scipy.stats.norm.logpdf(u[1:]).sum()


def two(u):
    far = jnp.zeros(D).at[0].set(12.0)
    kernel = lambda at: -0.5 * ((u - at) ** 2).sum() - 0.5 * D * math.log(2 * math.pi)
    return jnp.logaddexp(math.log(0.9) + kernel(0.0), math.log(0.1) + kernel(far))


def target_of(log_density):
    return Target(LogDensity(log_density, D))


def heard(u, n=200):
    """n particles, of which these surprise."""
    excess = np.where(np.arange(n) < len(u), 10.0, -10.0)
    return witness.Testimony(np.resize(u, (n, D)), 10.0, len(u), excess, u[:0])


def test_the_far_neck_of_a_funnel_holds_its_marginal_tail():
    rng = np.random.default_rng(0)
    v = np.array([-18.0, -21.0, -30.0])
    u = np.concatenate([v[:, None], np.exp(v / 2)[:, None] * rng.standard_normal((3, D - 1))], 1)
    q = Gaussian(np.zeros(D), np.array([3.0, *[20.0] * (D - 1)]))
    (tail,) = held_beyond(target_of(funnel), u, q)
    assert (tail.coordinate, tail.at) == (0, -6.0)
    assert abs(tail.log_mass - norm.logsf(6.0)) < 0.2
    assert -24.0 < tail.typical[0] < -18.0


def test_each_side_of_a_coordinate_is_a_tail():
    u = np.zeros((2, D))
    u[:, 0] = -9.0, 12.0
    u[:, 1:] = np.exp(u[:, :1] / 2)
    left, right = held_beyond(target_of(funnel), u, Gaussian(np.zeros(D), np.array([3.0, *[200.0] * (D - 1)])))
    assert abs(left.log_mass - norm.logsf(3.0)) < 0.25
    assert abs(right.log_mass - norm.logsf(4.0)) < 0.25


def test_a_tail_that_falls_off_like_a_power_holds_more():
    u = np.random.default_rng(1).standard_normal((2, D))
    u[:, 0] = 40.0, 90.0
    (tail,) = held_beyond(target_of(heavy), u, Gaussian(np.zeros(D), np.ones(D)))
    assert abs(tail.log_mass - student_t.logsf(40.0, 4.0)) < 0.1


def test_another_mode_is_no_tail():
    rng = np.random.default_rng(2)
    u = rng.standard_normal((3, D))
    u[:, 0] += np.array([12.0, 11.0, 13.0])
    told = looked_into(
        heard(u),
        target_of(two),
        Gaussian(np.zeros(D), np.ones(D)),
        0.0,
        Known(rng.standard_normal((1000, D)), None, None),
    )
    assert told.holds > 0.05 and told.moment > 5


def test_draws_that_are_there_account_for_a_tail():
    rng, target = np.random.default_rng(3), target_of(funnel)
    v = 3 * rng.standard_normal(200_000)
    draws = np.concatenate([v[:, None], np.exp(v / 2)[:, None] * rng.standard_normal((len(v), D - 1))], 1)
    u = draws[np.argsort(v)[[100, 200, 400]]]  # about 3 sd
    q = Gaussian(np.zeros(D), np.array([3.0, *[20.0] * (D - 1)]))
    there = looked_into(heard(u), target, q, 0.0, Known(draws, None, None))
    assert (there.holds, there.moment) == (0.0, 0.0)
    held = norm.sf(-u[:, 0].max() / 3)
    short = looked_into(heard(u), target, q, 0.0, Known(draws[v > u[:, 0].max()], None, None))
    assert short.holds == pytest.approx(held, rel=0.25) and short.moment > 9 * held * 0.75
    weights = np.where(v > u[:, 0].max(), 1.0, 0.0)
    assert looked_into(heard(u), target, q, 0.0, Known(draws, weights, None)).holds == short.holds


def test_what_is_missed_counts_in_the_coordinates_of_the_model():
    u, target = np.zeros((2, D)), target_of(funnel)
    u[:, 0] = -12.0, -14.0
    q, draws = (
        Gaussian(np.zeros(D), np.array([3.0, *[20.0] * (D - 1)])),
        np.random.default_rng(4).standard_normal((4000, D)),
    )
    log_scale = looked_into(heard(u), target, q, 0.0, Known(draws, None, None))
    scale = looked_into(heard(u), target, q, 0.0, Known(draws, None, lambda u: np.exp(u[:, :1])))
    assert log_scale.holds == scale.holds and log_scale.moment > 100 * scale.moment


def test_a_testimony_tells_what_is_there_only_if_few_surprise():
    u = np.zeros((2, D))
    u[:, 0] = -18.0, -24.0
    q, target = Gaussian(np.zeros(D), np.array([3.0, *[20.0] * (D - 1)])), target_of(funnel)
    none = Known(np.eye(D), None, None)
    assert looked_into(heard(u), target, q, 0.0, none).holds == pytest.approx(norm.sf(6.0), rel=0.2)
    assert looked_into(heard(np.resize(u, (100, D))), target, q, 0.0, none).holds is None
    assert looked_into(heard(u), target, q, -math.inf, none).holds is None
    assert looked_into(heard(u), SimpleNamespace(dim=1000), q, 0.0, none).holds is None
