"""The models fitted by EM under the scikit-learn API: its own checks, attributes, conversions, sequences."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.utils.estimator_checks import parametrize_with_checks

import jensen as jn
from jensen.zoo import (
    BernoulliMixture,
    FactorAnalysis,
    FactorialHMM,
    GaussianMixture,
    HiddenMarkov,
    MixtureOfPPCA,
    ProbabilisticPCA,
)  # fmt: skip

QUICK = {"n_init": 1, "max_iter": 5, "random_state": 0}
STEPS = "the rows of X are steps of a sequence: they depend on each other"
NOT_BITS = "the check's data are not bits"


def unfit(estimator):
    """Checks whose premise does not hold."""
    if isinstance(estimator, (HiddenMarkov, FactorialHMM)):
        return {"check_methods_subset_invariance": STEPS, "check_methods_sample_order_invariance": STEPS}
    return {}


@parametrize_with_checks([FactorAnalysis(1, **QUICK)])
def test_sklearn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [GaussianMixture(2, **QUICK), ProbabilisticPCA(1, **QUICK), MixtureOfPPCA(2, **QUICK), HiddenMarkov(2, **QUICK),
     FactorialHMM(2, **QUICK)],
    expected_failed_checks=unfit,
)  # fmt: skip
def test_sklearn_of_the_others(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def iris():
    return load_iris().data


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_a_mixture_goes_to_scikit_learn_and_back(iris, kind):
    ours = GaussianMixture(3, covariance_type=kind, random_state=0, max_iter=20).fit(iris)
    theirs = ours.to_sklearn()
    assert np.allclose(theirs.score_samples(iris), ours.score_samples(iris))
    assert np.allclose(theirs.predict_proba(iris), ours.predict_proba(iris), atol=1e-7)
    assert np.array_equal(ours.predict(iris), theirs.predict(iris))
    back = GaussianMixture.from_sklearn(theirs)
    assert np.allclose(back.score_samples(iris), ours.score_samples(iris))
    assert np.isclose(ours.bic(iris), theirs.bic(iris)) and np.isclose(ours.aic(iris), theirs.aic(iris))
    assert ours.precisions_cholesky_.shape == theirs.precisions_cholesky_.shape


def test_iris_has_its_three_species(iris):
    mixture = GaussianMixture(3, random_state=0)
    labels = mixture.fit_predict(iris)
    same = lambda a: a[:, None] == a[None]
    assert (same(labels) == same(load_iris().target)).mean() > 0.95  # scikit-learn's optimum: 0.957
    assert mixture.converged_ and mixture.lower_bound_ > -1.3
    rows, which = mixture.sample(2000)
    assert rows.shape == (2000, 4) and np.allclose(np.bincount(which) / 2000, mixture.weights_, atol=0.05)
    assert np.array_equal(mixture.sample(5)[0], mixture.sample(5)[0])
    again = pickle.loads(pickle.dumps(mixture))
    assert np.array_equal(again.predict(iris), labels) and clone(mixture).n_components == 3


@pytest.mark.parametrize("make", [FactorAnalysis, ProbabilisticPCA])
def test_factors_go_to_scikit_learn_and_back(iris, make):
    ours = make(2, max_iter=50).fit(iris)
    theirs = ours.to_sklearn()
    assert np.allclose(theirs.score_samples(iris), ours.score_samples(iris))
    assert np.allclose(theirs.get_covariance(), ours.get_covariance())
    assert np.allclose(make.from_sklearn(theirs).score_samples(iris), ours.score_samples(iris))
    z = ours.transform(iris)
    assert z.shape == (150, 2) and ours.inverse_transform(z).shape == iris.shape
    assert np.mean((ours.inverse_transform(z) - iris) ** 2) < 0.1 * iris.var()
    assert list(ours.get_feature_names_out()) == [f"{make.__name__.lower()}{i}" for i in range(2)]
    if make is FactorAnalysis:
        assert np.allclose(theirs.transform(iris), z)


def test_varimax_leaves_the_density_and_turns_the_latents(iris):
    plain, turned = (
        FactorAnalysis(2, max_iter=20, random_state=0).fit(iris),
        FactorAnalysis(2, max_iter=20, random_state=0, rotation="varimax").fit(iris),
    )
    assert np.allclose(plain.score_samples(iris), turned.score_samples(iris))
    assert not np.allclose(plain.components_, turned.components_)
    assert np.allclose(turned.inverse_transform(turned.transform(iris)), plain.inverse_transform(plain.transform(iris)))


def test_mixture_of_ppca_has_low_rank_covariances(iris):
    mixture = MixtureOfPPCA(2, 1, n_init=2, random_state=0).fit(iris)
    w, noise = mixture.components_, mixture.noise_variance_
    rebuilt = w.swapaxes(1, 2) @ w + noise[:, None, None] * np.eye(4)
    assert np.allclose(rebuilt, mixture.covariances_, atol=1e-5) and mixture.transform(iris).shape == (150, 1)


def test_missing_values_go_through_and_are_imputed(iris):
    holes = iris.copy()
    holes[np.random.default_rng(0).random(iris.shape) < 0.2] = np.nan
    gone = np.isnan(holes)
    column = np.broadcast_to(np.nanmean(holes, 0), iris.shape)
    error = lambda a: np.sqrt(np.mean((a[gone] - iris[gone]) ** 2))
    for model in (GaussianMixture(2, n_init=2, random_state=0, max_iter=30), FactorAnalysis(1, max_iter=50)):
        filled = model.fit(holes).impute(holes)
        assert np.array_equal(filled[~gone], iris[~gone]) and error(filled) < 0.6 * error(column)


def test_bits(iris):
    bits = (iris > np.median(iris, 0)).astype(float)
    mixture = BernoulliMixture(2, pseudo=0.5, random_state=0, n_init=2).fit(bits)
    assert mixture.means_.shape == (2, 4) and np.allclose(mixture.predict_proba(bits).sum(1), 1)
    with pytest.raises(jn.DataError, match="probabilities of bits"):
        BernoulliMixture(2).fit(iris)


def test_sequences_are_divided_by_lengths():
    rng = np.random.default_rng(0)
    states = np.concatenate([np.arange(n) // 6 % 2 for n in (40, 30, 50)])
    x = 4 * states[:, None] + rng.normal(size=(120, 2))
    model = HiddenMarkov(2, n_init=2, random_state=0).fit(x, lengths=(40, 30, 50))
    path = model.predict(x, lengths=(40, 30, 50))
    assert max((path == states).mean(), (path != states).mean()) > 0.98
    assert model.predict_proba(x, lengths=(40, 30, 50)).shape == (120, 2)
    assert model.score_samples(x, lengths=(40, 30, 50)).shape == (3,)
    assert model.transmat_.shape == (2, 2) and np.allclose(model.transmat_.sum(1), 1)
    assert model.sample(7)[0].shape == (7, 2)
    with pytest.raises(jn.DataError, match="add up to 50"):
        model.predict(x, lengths=(20, 30))


@pytest.mark.parametrize("inference", ["exact", "structured"])
def test_two_chains_are_told_apart(inference):
    rng = np.random.default_rng(0)
    a, b = np.arange(200) // 7 % 2, np.arange(200) // 11 % 2
    x = np.outer(a, [4.0, 0]) + np.outer(b, [0, 4.0]) + 0.5 * rng.normal(size=(200, 2))
    model = FactorialHMM(2, 2, inference=inference, n_init=4, random_state=0).fit(x)
    found = model.predict(x)
    agree = lambda s: max(max((f == s).mean(), (f != s).mean()) for f in found.T)
    assert agree(a) > 0.97 and agree(b) > 0.97


@pytest.mark.parametrize("wrong", [{"n_components": 0}, {"n_init": 0}, {"max_iter": 1.5}, {"covariance_type": "x"}])
def test_options_out_of_range(iris, wrong):
    with pytest.raises(jn.OptionError, match="instead:"):
        GaussianMixture(**wrong).fit(iris)
