"""The energy-based models with the scikit-learn API: its checks, agreement with `BernoulliRBM`, quality, refusals."""

import pickle

import numpy as np
import pytest
from bits import digits, independent
from sklearn.neural_network import BernoulliRBM
from sklearn.utils.estimator_checks import parametrize_with_checks

import jensen as jn
from jensen.zoo import DBM, DBN, RBM

TINY = {"n_iter": 2, "batch_size": 1000, "n_temperatures": 20, "n_runs": 10}


@parametrize_with_checks([RBM(3, **TINY)])
def test_sklearn(estimator, check):
    check(estimator)


def unfit(estimator):
    """Checks that cannot hold: log p(x) of a deep belief network is estimated with draws of each row's own."""
    if not isinstance(estimator, DBN):
        return {}
    why = "score_samples is a Monte Carlo estimate"
    return {"check_methods_sample_order_invariance": why, "check_methods_subset_invariance": why}


@pytest.mark.slow
@parametrize_with_checks(
    [DBM((3, 2), pretrain_iter=1, **TINY), DBN((3, 2), n_importance=4, **TINY)], expected_failed_checks=unfit
)
def test_sklearn_of_the_others(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def bits():
    return digits()


SHORT = {"n_iter": 150, "learning_rate": 0.1, "batch_size": 50, "random_state": 0}
MODELS = {
    "RBM": (RBM(16, **SHORT), 16),
    "DBM": (DBM((16, 8), pretrain_iter=30, **SHORT), 24),
    "DBM, centred": (DBM((16, 8), pretrain_iter=0, centred=True, **SHORT), 24),
    "DBN": (DBN((16, 10), **SHORT), 10),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_what_a_short_fit_gives(name, bits):
    """Rows held out are more probable than under independent pixels; numbers of the right shapes and ranges."""
    model, n_features = MODELS[name]
    model.fit(bits[0])
    test = bits[1]
    assert model.score(test) > independent(*bits) + 3
    p = model.transform(test)
    assert p.shape == (len(test), n_features) == (len(test), len(model.get_feature_names_out()))
    assert p.min() >= 0 and p.max() <= 1
    np.testing.assert_allclose(model.transform(test[5:7]), p[5:7], atol=1e-5)
    assert np.abs(model.reconstruct(test) - test).mean() < np.abs(bits[0].mean(0) - test).mean()
    drawn = model.sample(50, n_steps=20)
    assert drawn.shape == (50, 64) and set(np.unique(drawn)) <= {0.0, 1.0}
    np.testing.assert_array_equal(drawn[:2].shape, model.gibbs(test[:2], 3).shape)
    assert model.components_.shape == (16, 64) and model.intercept_hidden_.shape == (16,)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.transform(test[:3]), model.transform(test[:3]))
    assert str(model.verdict_) in ("RELIABLE", "DOUBTFUL", "UNRELIABLE")


def test_to_and_from_sklearn(bits):
    """The same hidden probabilities, and differences of free energies, both ways."""
    ours = RBM(8, **TINY | {"random_state": 0}).fit(bits[0][:200])
    theirs = ours.to_sklearn()
    x = bits[1][:20]
    np.testing.assert_allclose(theirs.transform(x), ours.transform(x), atol=1e-5)
    free = theirs._free_energy(x)
    np.testing.assert_allclose(np.diff(ours.score_samples(x)), -np.diff(free), atol=1e-3)
    fitted = BernoulliRBM(8, n_iter=3, random_state=0).fit(bits[0][:200])
    back = RBM.from_sklearn(fitted, bits[0][:200])
    np.testing.assert_allclose(back.transform(x), fitted.transform(x), atol=1e-5)
    np.testing.assert_array_equal(back.h_samples_, fitted.h_samples_)
    assert back.log_partition().method == "exact"


def test_partial_fit_goes_on(bits):
    model = RBM(8, batch_size=100, learning_rate=0.05, random_state=0)
    x = bits[0][:500]
    first = model.partial_fit(x).components_.copy()
    score = model.score(x)
    for _ in range(20):
        model.partial_fit(x)
    assert not np.allclose(first, model.components_)
    assert model.score(x) > score
    assert len(model.history_) == 21 * 5


def test_real_columns_are_standardised():
    rng = np.random.default_rng(0)
    z = rng.random((600, 1)) < 0.5
    x = 100 + 5 * z + 0.5 * rng.normal(size=(600, 4))
    model = RBM(4, learning_rate=0.02, n_iter=150, batch_size=50, random_state=0).fit(x)
    assert model.visible_ == "gaussian"
    normal = -0.5 * (np.log(2 * np.pi * x.var(0)) + 1).sum()  # independent columns
    assert model.score(x) > normal + 1
    assert np.abs(model.reconstruct(x) - x).mean() < 1.5
    assert model.sample(5).shape == (5, 4)
    with pytest.raises(jn.OptionError, match="gaussian"):
        model.to_sklearn()


def test_categories_are_drawn_one_hot():
    rng = np.random.default_rng(0)
    x = np.eye(3)[(rng.integers(3, size=(300, 1)) + (rng.random((300, 4)) < 0.1)) % 3].reshape(300, 12)
    model = RBM(6, visible="categorical", n_categories=3, learning_rate=0.1, n_iter=500, random_state=0).fit(x)
    assert model.score(x) > 4 * np.log(1 / 3) + 0.3
    assert (model.sample(20).reshape(20, 4, 3).sum(2) == 1).all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (RBM(0), "n_components"),
        (RBM(3, k=0), "'?k"),
        (DBM((3, 2), pretrain_iter=-1), "pretrain_iter=0 or more"),
        (RBM(3, method="cda"), "method"),
        (RBM(3, visible="poisson"), "visible"),
        (RBM(3, visible="bernoulli"), "values from 0 to 11"),
        (RBM(3, visible="categorical"), "no such units"),
        (RBM(3, learning_rate=-1.0), "not positive"),
        (DBM(widths=()), "widths"),
        (DBM(widths="33"), "widths"),
        (DBN(widths=(3, 0)), "widths"),
    ],
)
def test_refusals(model, message):
    with pytest.raises(jn.JensenError, match=message):
        model.fit(np.arange(12.0).reshape(4, 3))
