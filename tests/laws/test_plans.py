"""Sampling plans: every draw has the right law alone; each plan has the dependence it names."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import kstest

from jensen.cell_examples import examples
from jensen.families.noise import Keys, StandardNormal, Uniform, dimension, iid
from jensen.gradients.plans import Antithetic, CommonRandomNumbers, QuasiMonteCarlo, Stratified

LAW = (StandardNormal((2,)), Uniform(()))
PLANS = {name: e.part for name, e in examples("plan").items()}


def fresh(plan, key, shape):
    """A plan with fixed noise is judged over its seeds."""
    if isinstance(plan, CommonRandomNumbers):
        plan = CommonRandomNumbers(jr.bits(key, dtype="uint32") >> 1)
    return plan.draw(key, LAW, shape)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("k", [3, 4])
def test_each_draw_has_the_right_law(name, k):
    normal, uniform = jax.jit(jax.vmap(lambda key: fresh(PLANS[name], key, (k,))))(jr.split(jr.key(8), 4000))
    level = 1e-4 / (2 * len(PLANS) * k * 3)  # family-wise
    for i in range(k):
        for column in (normal[:, i, 0], normal[:, i, 1]):
            assert kstest(np.asarray(column), "norm").pvalue > level
        assert kstest(np.asarray(uniform[:, i]), "uniform").pvalue > level


@pytest.mark.parametrize("name", PLANS)
def test_the_shape_is_that_of_the_plate(name):
    normal, uniform = PLANS[name].draw(jr.key(0), LAW, (4, 5))
    assert (normal.shape, uniform.shape) == ((4, 5, 2), (4, 5))
    assert jnp.isfinite(normal).all()
    assert ((uniform > 0) & (uniform < 1)).all()
    # data do not share their noise
    assert len(np.unique(np.asarray(uniform))) == uniform.size


@pytest.mark.parametrize("k", [4, 5])
def test_antithetic_draws_are_mirrored(k):
    normal, uniform = Antithetic().draw(jr.key(1), LAW, (k, 3))
    half = (k + 1) // 2
    np.testing.assert_array_equal(normal[half:], -normal[: k - half])
    np.testing.assert_allclose(uniform[half:], 1 - uniform[: k - half])


def test_stratified_draws_fall_one_in_each_stratum():
    k = 8
    normal, uniform = Stratified().draw(jr.key(2), LAW, (k, 5))
    for column in (uniform, *jnp.moveaxis(jax.scipy.special.ndtr(normal), -1, 0)):
        strata = np.floor(np.asarray(column) * k).astype(int)
        np.testing.assert_array_equal(np.sort(strata, 0), np.tile(np.arange(k)[:, None], (1, 5)))


@pytest.mark.parametrize("plan", [QuasiMonteCarlo(), Stratified(), Antithetic()])
def test_the_error_of_a_smooth_mean_is_below_that_of_independent_draws(plan):
    """E exp(0.3 (e_1 + e_2)) with 64 draws."""
    mean = lambda plan, key: jnp.exp(0.3 * plan.draw(key, LAW, (64,))[0].sum(-1)).mean()
    error = lambda plan: jax.vmap(lambda k: mean(plan, k))(jr.split(jr.key(3), 2000)).std()
    assert error(plan) < 0.6 * error(PLANS["IID()"])


def test_common_random_numbers_repeat_and_differ_by_seed():
    draw = lambda seed, key: CommonRandomNumbers(seed).draw(jr.key(key), LAW, (4,))[1]
    np.testing.assert_array_equal(draw(0, 1), draw(0, 2))
    assert (draw(0, 1) != draw(1, 1)).all()


def test_more_dimensions_than_sobol_tables():
    law = StandardNormal((25_000,))
    assert jnp.isfinite(QuasiMonteCarlo().draw(jr.key(0), law, (2,))).all()


def test_laws():
    assert dimension(LAW) == 3
    np.testing.assert_allclose(StandardNormal(()).from_uniform(jnp.array([0.5, 0.975])), [0, 1.959964], atol=1e-6)
    keys = iid(jr.key(0), Keys(), (2, 3))
    assert keys.shape == (2, 3)
    with pytest.raises(TypeError, match="antithetic"):
        Keys().reflect(keys)
