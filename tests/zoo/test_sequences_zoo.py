"""Sequences and second arguments under the scikit-learn API: what stands in the second place is used rightly or refused."""

import numpy as np
import pytest

import jensen as jn
from jensen.zoo import RBM, VAE, BernoulliMixture, FactorAnalysis, FactorialHMM, GaussianMixture, HiddenMarkov

RNG = np.random.default_rng(0)
LENGTHS = [12, 7, 9, 12]
STATES = np.concatenate([np.arange(n) // 3 % 2 for n in LENGTHS])
X = 4 * STATES[:, None] + RNG.normal(size=(40, 2))
QUICK = {"n_init": 2, "max_iter": 20, "random_state": 0}
MAKE = {
    "gaussian": lambda: HiddenMarkov(2, **QUICK),
    "poisson": lambda: HiddenMarkov(2, emission="poisson", **QUICK),
    "factorial": lambda: FactorialHMM(2, 2, **QUICK),
}


def rows_for(name):
    return RNG.poisson(1 + 6 * STATES[:, None] * np.ones(2)).astype(float) if name == "poisson" else X


@pytest.mark.parametrize("name", MAKE)
def test_lengths_in_the_second_place_are_lengths(name):
    x = rows_for(name)
    by_place, by_name = MAKE[name]().fit(x, LENGTHS), MAKE[name]().fit(x, lengths=LENGTHS)
    np.testing.assert_array_equal(by_place.transmat_, by_name.transmat_)
    assert by_place.score(x, LENGTHS) == by_place.score(x, lengths=np.array(LENGTHS)) != by_place.score(x)
    assert len(by_place.score_samples(x, LENGTHS)) == 4
    assert np.isclose(
        by_place.bic(x, LENGTHS), -2 * 40 * by_name.score(x, LENGTHS) + by_name.fit_.n_parameters * np.log(40)
    )
    assert np.isclose(by_place.aic(x, LENGTHS) - by_place.bic(x, LENGTHS), by_name.fit_.n_parameters * (2 - np.log(40)))
    steps, states = by_place.sample(6, 3)
    assert steps.shape == (6, 2) and len(states) == 6
    np.testing.assert_array_equal(steps, by_place.sample(6, random_state=3)[0])


@pytest.mark.parametrize("second", [[20, 30], [12.5, 27.5], 40, "viterbi", [0, 40], np.ones(40, int)])
def test_what_is_neither_lengths_nor_a_target_is_refused(second):
    with pytest.raises(jn.DataError, match="lengths"):
        HiddenMarkov(2, **QUICK).fit(X, second)


def test_the_control_a_target_is_ignored():
    plain = HiddenMarkov(2, **QUICK).fit(X)
    for y in (STATES, STATES.astype(float), STATES.astype(str)):
        assert np.array_equal(HiddenMarkov(2, **QUICK).fit(X, y).transmat_, plain.transmat_)
    assert plain.score(X, STATES) == plain.score(X)
    assert HiddenMarkov(2, **QUICK).fit(X, STATES, LENGTHS).score(X, STATES, LENGTHS) != plain.score(X)


OTHERS = {
    "mixture": lambda: GaussianMixture(2, **QUICK),
    "bits": lambda: BernoulliMixture(2, **QUICK),
    "factors": lambda: FactorAnalysis(1, **QUICK),
    "machine": lambda: RBM(2, n_iter=1),
    "autoencoder": lambda: VAE(1, n_steps=5),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_refuse_a_second_argument_that_is_no_target(name):
    bits = (X > 2).astype(float)
    for second in (LENGTHS, 100, "gaussian"):
        with pytest.raises(jn.DataError, match="no target"):
            OTHERS[name]().fit(bits, second)
    if name in ("mixture", "bits", "factors"):
        fitted = OTHERS[name]().fit(bits, STATES)
        with pytest.raises(jn.DataError, match="no target"):
            fitted.score(bits, LENGTHS)


@pytest.mark.parametrize("name", MAKE)
def test_missing_values_of_sequences_are_imputed(name):
    x = rows_for(name)
    holes = x.copy()
    holes[4, 1], holes[15], holes[11], holes[18] = np.nan, np.nan, np.nan, np.nan  # an entry, a step, two last steps
    model = MAKE[name]().fit(holes, LENGTHS)
    filled = model.impute(holes, LENGTHS)
    seen = ~np.isnan(holes)
    assert np.isfinite(filled).all() and np.array_equal(filled[seen], holes[seen])
    assert np.abs(filled[4, 1] - x[4, 1]) < 4  # as far as the other state is
    assert np.allclose(model.predict_proba(holes, LENGTHS).sum(-1), 1)  # also of the steps that hold nothing
    assert model.predict(holes, LENGTHS).min() >= 0


def test_a_missing_code_is_a_code():
    codes = np.where(STATES, 2, 0)[:, None] * np.ones((1, 2))
    codes[5, 0] = np.nan
    filled = HiddenMarkov(2, emission="categorical", **QUICK).fit(codes, LENGTHS).impute(codes, LENGTHS)
    assert filled[5, 0] == codes[5, 1]
