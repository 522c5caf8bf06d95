"""EM at its optima: several starts where there are several optima, and what the data never informed, named."""

import numpy as np
import pytest
from sklearn import decomposition

import jensen as jn
from jensen.models import (
    BernoulliMixture,
    FactorAnalysis,
    FactorialHMM,
    GaussianMixture,
    HiddenMarkov,
    Mixture,
    ProbabilisticPCA,
)  # fmt: skip
from jensen.models.components import Categorical, Poisson
from jensen.models.gaussian_components import Gaussians

RNG = np.random.default_rng(0)


def factor_data(seed, k, d, n, noise):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, k)) @ rng.normal(size=(k, d)) + noise * rng.normal(size=(n, d))


# ---- several optima ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("seed", "k", "d", "n"), [(1, 2, 5, 300), (2, 1, 4, 80), (3, 3, 7, 150), (4, 1, 3, 500)])
def test_factor_analysis_is_never_below_the_simpler_model_and_never_reliable_below_scikit_learn(seed, k, d, n):
    x = factor_data(seed, k, d, n, 0.7)
    fit = jn.em(FactorAnalysis(k), x)
    assert len(fit.starts) >= 4 and any("starts reached the best optimum" in r for r in fit.reasons)
    assert fit.log_likelihood > jn.em(ProbabilisticPCA(k), x).log_likelihood - 1e-6
    theirs = n * decomposition.FactorAnalysis(k, tol=1e-6, max_iter=2000).fit(x).score(x)
    assert fit.log_likelihood > theirs - 0.1 or fit.verdict != jn.Verdict.RELIABLE


def test_one_start_where_there_are_several_optima_is_not_reliable_and_one_is_enough_where_there_is_one():
    x = factor_data(5, 2, 6, 200, 0.7)
    assert jn.em(FactorAnalysis(2), x, n_starts=1).verdict != jn.Verdict.RELIABLE
    assert len(jn.em(ProbabilisticPCA(2), x).starts) == 1


def test_a_correlation_of_columns_rarely_seen_together_is_not_left_at_a_saddle():
    """Murray's twelve rows: zero correlation is a stationary point between two maxima."""
    nan = np.nan
    x = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1), (2, nan), (2, nan), (-2, nan), (-2, nan),
                  (nan, 2), (nan, 2), (nan, -2), (nan, -2)], float)  # fmt: skip
    fit = jn.em(GaussianMixture(1, ridge=0.0), x)
    covariance = fit.params.components.covariances[0]
    correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert abs(abs(correlation) - 0.5) < 1e-2 and len(fit.starts) >= 4


# ---- what the data never informed ---------------------------------------------------------------------------------
def test_an_absent_transition_is_named():
    fit = jn.em(HiddenMarkov(2), [RNG.normal(size=(1, 2)) + 5 * (i % 2) for i in range(40)])
    assert fit.verdict != jn.Verdict.RELIABLE and any("No transition was ever seen" in r for r in fit.reasons)


def test_a_state_that_is_only_ever_the_last_has_no_row_of_the_transition_matrix():
    sequences = [np.r_[RNG.normal(0, 1, 4), RNG.normal(9, 1, 1)][:, None] for _ in range(30)]
    fit = jn.em(HiddenMarkov(2), sequences)
    last = int(np.argmax(fit.params.components.means[:, 0]))
    assert any(f"No transition out of state {last} was ever seen" in r for r in fit.reasons)
    assert fit.verdict != jn.Verdict.RELIABLE
    back = [np.r_[s, s] for s in sequences]  # the control: now it goes back
    reasons = jn.em(HiddenMarkov(2), back).reasons
    assert not any("was ever seen" in r for r in reasons)


CLUSTERS = np.repeat([0, 1], 40)


def separated(kind):
    rng = np.random.default_rng(1)
    if kind == "gaussian":
        return rng.normal(size=(80, 3)) + 9 * CLUSTERS[:, None]
    if kind == "poisson":
        return rng.poisson(1 + 20 * CLUSTERS[:, None] * np.ones(3)).astype(float)
    return rng.integers(0, 2, size=(80, 3)) + 2.0 * CLUSTERS[:, None]


@pytest.mark.parametrize(
    ("kind", "model"),
    [("gaussian", GaussianMixture(2, "diag")), ("gaussian", GaussianMixture(2)), ("poisson", Mixture(2, Poisson())),
     ("codes", Mixture(2, Categorical()))],
)  # fmt: skip
def test_a_column_that_a_component_never_saw_is_named(kind, model):
    x = separated(kind)
    assert not any("saw no value" in r for r in jn.em(model, x).reasons)
    x[CLUSTERS == 1, 2] = np.nan
    fit = jn.em(model, x)
    assert fit.verdict != jn.Verdict.RELIABLE and any("saw no value in columns 2" in r for r in fit.reasons)


def test_a_pair_of_columns_never_seen_together_is_named():
    x = RNG.normal(size=(90, 3))
    x[::2, 0], x[1::2, 1] = np.nan, np.nan
    fit = jn.em(GaussianMixture(1), x)
    assert any("both columns 0 and 1" in r for r in fit.reasons) and fit.verdict != jn.Verdict.RELIABLE
    x[:20] = RNG.normal(size=(20, 3))
    assert not any("both columns" in r for r in jn.em(GaussianMixture(1), x).reasons)


def test_an_empty_component_is_named():
    x = np.array([[0.0, 1, 1], [1, 0, 0]]).repeat(20, 0)
    empty = jn.em(BernoulliMixture(3), x).params._replace(weights=np.array([0.5, 0.5, 0]))
    fit = jn.em(BernoulliMixture(3), x, params=empty)
    assert any("Component 2 holds no rows" in r for r in fit.reasons) and fit.verdict != jn.Verdict.RELIABLE


def test_a_chain_that_never_moves_is_named():
    sequences = [RNG.normal(size=(1, 2)) for _ in range(12)]
    fit = jn.em(FactorialHMM(2, 2), sequences, n_iter=20)
    assert any("No transition was ever seen of chain 1" in r for r in fit.reasons)


# ---- falls ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "scale"), [(GaussianMixture(2), 1e-8), (GaussianMixture(2, "tied"), 1e6), (FactorAnalysis(1), 1e5)]
)
def test_a_fall_by_rounding_is_no_finding(model, scale):
    x = scale * (RNG.normal(size=(200, 1)) @ np.ones((1, 4)) + 1e-3 * RNG.normal(size=(200, 4)))
    assert not any("The objective fell" in r for r in jn.em(model, x, tol=0.0, n_iter=150).reasons)


class Overshooting(Mixture):
    """A wrong M-step: it goes too far."""

    def bound_to(self, rows):
        return Overshooting(self.n_components, self.components.bound_to(rows))

    def m_step(self, params, statistics):
        new = super().m_step(params, statistics)
        if statistics[1] is None:
            return new
        means = params.components.means + 2.5 * (new.components.means - params.components.means)
        return new._replace(components=new.components._replace(means=means))


def test_the_control_a_fall_that_is_one_is_a_finding():
    x = RNG.normal(size=(60, 2)) + CLUSTERS[:60, None]
    fit = jn.em(Overshooting(2, Gaussians(ridge=0.0)), x, n_iter=20)
    assert any("The objective fell" in r for r in fit.reasons) and fit.verdict == jn.Verdict.UNRELIABLE
