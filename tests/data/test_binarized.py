"""Dynamic binarisation: bits are drawn anew at every step, and everything else reads one draw."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen import zoo
from jensen.algorithms.base import AbstractAlgorithm
from jensen.data import DynamicallyBinarized
from jensen.data.binarized import for_loop
from jensen.errors import DataError, OptionError
from jensen.fit.loop import Plan, Runner
from jensen.fit.minibatch import first_batch
from jensen.models import LogDensity

P = np.random.default_rng(0).uniform(0.2, 0.8, (1, 30))


class Watch(AbstractAlgorithm):
    """Its state is the sum of the rows seen."""

    def init(self, key, batch):
        return jnp.zeros(batch.rows.shape[1:])

    def noise(self, key, batch):
        return ()

    def step(self, noise, state, batch, scale):
        seen = batch.rows.astype(state.dtype)
        return state + seen.mean(0), (seen * jnp.arange(seen.shape[1])).sum()

    def parameters(self, state):
        return state

    def with_parameters(self, state, parameters):
        return parameters


def runner(data, batch_size, **plan):
    rows = jnp.asarray(np.asarray(data))
    return Runner(Watch(), for_loop(data, rows), first_batch(rows, batch_size), Plan(batch_size=batch_size, **plan))


@pytest.mark.parametrize("batch_size", [None, 50])
@pytest.mark.parametrize("ahead", [True, False])
def test_every_step_has_its_own_bits(batch_size, ahead):
    """Means over steps are the probabilities: z-scores of 30 numbers, level 1e-4; of one draw they are not (control)."""
    n, steps = 50, 400
    data = DynamicallyBinarized(np.repeat(P, n, 0))
    run = runner(data, batch_size, ahead=ahead)
    out = run.run(run.init(0), steps, 10**9)
    assert len(set(out.values)) > steps / 2
    z = lambda mean: np.abs(mean - P[0]) / np.sqrt(P[0] * (1 - P[0]) / (n * steps))
    assert z(np.asarray(out.carry.state) / steps).max() < 4.7
    assert z(np.asarray(data).mean(0)).max() > 4.7


def test_stopping_and_going_on_changes_nothing():
    data = DynamicallyBinarized(np.repeat(P, 20, 0))
    at_once, in_two = runner(data, 10), runner(data, 10)
    want = at_once.run(at_once.init(3), 37, 10**9).carry
    half = in_two.run(in_two.init(3), 18, 10**9).carry
    got = in_two.run(half, 37, 10**9).carry
    assert eqx.tree_equal(jax.tree.map(np.asarray, want.state), jax.tree.map(np.asarray, got.state))


def test_an_array_is_one_draw():
    data = DynamicallyBinarized(np.repeat(P, 2000, 0), seed=4)
    bits = np.asarray(data)
    assert bits.dtype == np.uint8 and set(np.unique(bits)) == {0, 1} and bits.shape == data.shape
    np.testing.assert_array_equal(bits, np.asarray(data))
    assert np.asarray(data, np.float32).dtype == np.float32
    assert np.abs(bits.mean(0) - P[0]).max() < 0.06
    assert (bits != np.asarray(DynamicallyBinarized(np.repeat(P, 2000, 0), seed=5))).mean() > 0.3
    sure = np.asarray(DynamicallyBinarized(np.array([[0.0, 1.0]] * 1000)))
    assert not sure[:, 0].any() and sure[:, 1].all()


def test_a_machine_learns_the_law_and_not_one_draw():
    """One row: from bits drawn anew the machine learns grey, from one draw black and white."""
    learned = {}
    for name, data in {"anew": DynamicallyBinarized(P), "once": np.asarray(DynamicallyBinarized(P))}.items():
        rbm = zoo.RBM(2, n_iter=3000, batch_size=1, n_chains=50, learning_rate=0.02, random_state=0).fit(data)
        learned[name] = rbm.sample(2000).mean(0)
    assert np.abs(learned["anew"] - P[0]).max() < 0.25
    assert np.abs(learned["once"] - P[0]).max() > 0.5


MODELS = {
    "RBM": lambda: zoo.RBM(8, n_iter=2),
    "DBM": lambda: zoo.DBM((8, 4), n_iter=2, pretrain_iter=1),
    "DBN": lambda: zoo.DBN((8, 4), n_iter=2, n_temperatures=100),
    "VAE": lambda: zoo.VAE(2, hidden=(8,), n_steps=50, n_importance=10),
    "SigmoidBeliefNet": lambda: zoo.SigmoidBeliefNet((4,), n_steps=50, n_importance=10),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_with_the_scikit_learn_api_take_it(name):
    data = DynamicallyBinarized(np.repeat(P, 60, 0))
    model = MODELS[name]().set_params(random_state=0).fit(data)
    assert model.score(data) == model.score(np.asarray(data))
    np.testing.assert_array_equal(np.asarray(model.fit_.rows), np.asarray(data))
    once = MODELS[name]().set_params(random_state=0).fit(np.asarray(data))
    assert not np.array_equal(model.history_, once.history_)


def test_what_is_no_probability_is_refused():
    for wrong in (P * 2, P - 1, np.full((2, 2), np.nan), np.array([["a"]]), 0.5):
        with pytest.raises(DataError, match="DynamicallyBinarized"):
            DynamicallyBinarized(wrong)


def test_laws_and_methods_that_cannot_draw_anew_are_refused():
    data = DynamicallyBinarized(P)
    with pytest.raises(DataError, match="bits are drawn anew"):
        zoo.RBM(2, visible="gaussian").fit(data)
    with pytest.raises(DataError, match="bits are drawn anew"):
        zoo.VAE(2, likelihood="gaussian").fit(data)
    with pytest.raises(OptionError, match="drawn anew"):
        jn.fit(LogDensity(lambda z, x: -(z**2).sum(), (2,)), data, method="laplace")
