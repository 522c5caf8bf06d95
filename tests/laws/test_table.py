"""A q for each row: looked up by the row itself; one q for all rows is refused where every row has a latent."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import jensen as jn
from jensen.data.binarized import DynamicallyBinarized
from jensen.errors import IncompatibleComposition, ModelError
from jensen.families import Amortised, FullRank, Implicit, MeanField, Mixture, Table

X = np.random.default_rng(0).normal(0, 2, (30, 2))
OPTIONS = {"progress": False, "n_draws": 512}


def model():
    """z ~ N(0, I), x | z ~ N(z, I): the posterior of a row is N(x / 2, I / 2)."""
    return jn.models.LogDensity(lambda z, x: -0.5 * (z**2 + (x - z) ** 2).sum(), (2,), local=True)


@pytest.fixture(scope="module")
def fit():
    with jax.enable_x64(True):
        return jn.fit(model(), X, family=Table(FullRank()), batch_size=10, n_steps=1200, n_samples=8, **OPTIONS)


def test_each_row_has_its_posterior(fit):
    draws = np.asarray(fit.sample(4000))
    np.testing.assert_allclose(draws.mean(0), X / 2, atol=0.1)
    np.testing.assert_allclose(draws.std(0), np.sqrt(0.5), rtol=0.1)
    assert str(fit.verdict) == "RELIABLE", fit.reasons


def test_rows_are_found_again_in_any_order(fit):
    some = X[[7, 3, 7]]
    np.testing.assert_allclose(np.asarray(fit.sample(4000, data=some)).mean(0), some / 2, atol=0.1)
    z = fit.sample(3, data=some)
    assert np.isfinite(fit.log_prob(z, data=some)).all()


def test_rows_that_were_not_fitted_have_no_q(fit):
    for rows in (X + 1, X[:1] * 1.001, np.zeros((2, 2))):
        with pytest.raises(ModelError, match=r"not among the 30 that were fitted[\s\S]*Amortised"):
            fit.sample(3, data=rows)
    with pytest.raises(ModelError, match="not among"):
        fit.log_likelihood(X + 1)


def test_a_saved_table_is_read_again(fit, tmp_path):
    fit.save(tmp_path)
    again = jn.load(tmp_path, model=model(), data=X[:4])
    np.testing.assert_array_equal(again.sample(5), fit.sample(5, data=X[:4]))


def test_trees_integers_and_equal_rows():
    q = Table().bind(
        jax.ShapeDtypeStruct((2,), jnp.result_type(float)), {"a": np.arange(6) // 2, "b": np.ones(6)}, jr.key(0)
    )
    one = lambda i: q({"a": jnp.asarray(i), "b": jnp.ones(())})
    assert np.isfinite(one(2).loc).all() and np.isnan(one(3).loc).all()
    index = Table().bind(q.distribution.layout.spec(), {"index": np.arange(4)}, jr.key(0))
    assert index.keys is None and index({"index": 3}).loc.shape == (2,)
    shuffled = Table().bind(q.distribution.layout.spec(), {"index": np.array([5, 9, 2])}, jr.key(0))
    assert np.isfinite(shuffled({"index": jnp.asarray(9)}).loc).all()  # a column of that name, not row numbers


def test_rows_that_single_precision_cannot_tell_apart_are_refused():
    close = np.array([[1.0], [1.0 + 1e-12]])
    with pytest.raises(ModelError, match="alike in single precision"):
        Table().bind(jax.ShapeDtypeStruct((1,), jnp.result_type(float)), close, jr.key(0))


@pytest.mark.parametrize("family", [MeanField(), FullRank(scale=1.0), Mixture(n=2)])
def test_one_q_for_all_rows_is_refused(family):
    with pytest.raises(IncompatibleComposition, match=r"one and the same q for all rows[\s\S]*Amortised[\s\S]*Table"):
        jn.fit(model(), X, family=family, n_steps=5, **OPTIONS)


@pytest.mark.parametrize("family", [Amortised(MeanField()), Table(), Implicit()])
def test_one_for_each_is_not(family):
    assert family.reads_row
    bound = jn.fit(model(), X, family=family, n_steps=5, n_samples=32, **OPTIONS).family
    assert type(bound) is type(family)


def test_rows_that_change_are_refused():
    decoder = jn.models.LatentVariable.mlp(jr.key(0), 1, (3,), hidden=())
    with pytest.raises(ModelError, match="drawn anew"):
        jn.fit(decoder, DynamicallyBinarized(np.full((6, 3), 0.5)), family=Table(), n_steps=5, **OPTIONS)
    with pytest.raises(IncompatibleComposition, match="rows that the model draws"):
        jn.fit(decoder, np.eye(3), family=Table(), method="wake-sleep", n_steps=5, **OPTIONS)
