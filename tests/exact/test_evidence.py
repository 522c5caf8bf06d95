"""The evidence of Gaussians whose normaliser is known.

Coverage is tested at |z| < 3.9 of the binomial (level 1e-4 each), estimates at |z| < 5.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest

import jensen as jn
from jensen.diagnostics import evidence as module
from jensen.diagnostics.evidence import bridge, evidence, importance

TRUTH, DIM = 3.0, 3


def log_normal(z, loc=0.0, scale=1.0):
    return (-0.5 * ((z - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)).sum(-1)


def draws(n, loc=0.0, scale=1.0, seed=0):
    """(log p, log q) of draws of a Gaussian; the posterior is a standard normal, and p(x) = exp(3)."""
    z = loc + scale * np.random.default_rng(seed).normal(size=(n, DIM))
    return TRUTH + log_normal(z), log_normal(z, loc, scale)


def posterior_draws(n, loc, scale, seed=0):
    z = np.random.default_rng([seed, 1]).normal(size=(n, DIM))
    return TRUTH + log_normal(z), log_normal(z, loc, scale)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.3), (0.2, 0.9), (0.0, 1.0)])
def test_importance_sampling_finds_the_evidence(loc, scale):
    found = importance(*draws(4096, loc, scale))
    assert abs(found.log_evidence - TRUTH) < 5 * found.se + 1e-12 < 0.5
    assert found.elbo <= found.iwae + 1e-12 <= found.log_evidence + 3 * found.se + 2e-12
    kl = DIM * (0.5 * (scale**2 + loc**2 - 1) - np.log(scale))
    assert abs(found.elbo - (TRUTH - kl)) < 0.1


def test_the_interval_holds_the_evidence_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(module, "REPLICATES", 400)
    n, prob = 300, 0.9
    for loc, scale in [(0.0, 1.3), (0.2, 0.85)]:
        made = [importance(*draws(1000, loc, scale, seed), prob, seed) for seed in range(n)]
        held = np.mean([e.lower <= TRUTH <= e.upper for e in made])
        reach = 3.9 * math.sqrt(prob * (1 - prob) / n)
        assert abs(held - prob) < reach
        half = [(e.log_evidence + 0.5 * (e.lower - e.log_evidence), e.log_evidence + 0.5 * (e.upper - e.log_evidence))
                for e in made]  # fmt: skip
        assert np.mean([a <= TRUTH <= b for a, b in half]) < prob - reach  # the negative control


def test_a_q_that_misses_mass_says_so():
    found = importance(*draws(4096, 0.0, 0.4))
    assert found.khat > 0.7 and "misses part" in found.reasons[0]
    nothing = importance(np.full(100, -np.inf), np.zeros(100))
    assert nothing.log_evidence == -np.inf and nothing.se == np.inf


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.3), (0.5, 0.6), (1.0, 2.0)])
def test_the_bridge_and_its_standard_error(loc, scale):
    """Also where importance sampling fails: q narrower than the posterior."""
    n = 200
    z = []
    for seed in range(n):
        value, se = bridge(*draws(1000, loc, scale, seed), *posterior_draws(1000, loc, scale, seed))
        z.append((value - TRUTH) / se)
    assert abs(np.mean(z)) < 5 / math.sqrt(n)
    assert abs(np.std(z) - 1) < 5 / math.sqrt(2 * n)


def test_the_bridge_of_the_posterior_itself_is_exact():
    value, se = bridge(*draws(100), *posterior_draws(100, 0.0, 1.0))
    assert abs(value - TRUTH) < 1e-9 and se < 1e-9


def test_correlated_draws_need_their_effective_number():
    z, naive = [], []
    for seed in range(200):
        of_q = draws(1000, 0.5, 0.6, seed)
        few = posterior_draws(50, 0.5, 0.6, seed)
        many = tuple(np.repeat(a, 20) for a in few)
        z.append(np.divide(*(lambda v, se: (v - TRUTH, se))(*bridge(*of_q, *many, ess=50))))
        naive.append(np.divide(*(lambda v, se: (v - TRUTH, se))(*bridge(*of_q, *many))))
    assert abs(np.std(z) - 1) < 5 / math.sqrt(400)
    assert np.std(naive) > 1.5  # the negative control


def test_draws_of_q_taken_for_the_posterior_give_a_wrong_bridge():
    """The negative control."""
    value, se = bridge(*draws(1000, 0.5, 0.6), *draws(1000, 0.5, 0.6, seed=1))
    assert abs(value - TRUTH) > 10 * se


def test_no_overlap_is_no_number():
    value, se = bridge(np.full(10, -np.inf), np.zeros(10), *posterior_draws(10, 0.0, 1.0))
    assert value == -np.inf and se == np.inf


def fit(log_p, log_q, corrected="none", **more):
    return SimpleNamespace(log_p=log_p, log_q=log_q, corrected=corrected, plated=False, **more)


def test_evidence_of_a_fit_by_how_its_draws_were_made():
    of_q, of_p = draws(2000, 0.2, 1.2), posterior_draws(2000, 0.2, 1.2)
    plain = evidence(fit(*of_q))
    assert plain.method == "importance" and plain.lower < TRUTH < plain.upper
    chains = evidence(fit(*of_p, "chains", proposal_draws=lambda: of_q), ess=2000)
    assert chains.method == "bridge" and abs(chains.log_evidence - TRUTH) < 5 * chains.se
    assert chains.elbo == plain.elbo and chains.reasons == []
    resampled = evidence(fit(*of_p, "importance"), proposal=of_q)
    assert resampled.log_evidence == plain.log_evidence
    with pytest.raises(jn.ModelError, match="do not come from q"):
        evidence(fit(*of_p, "chains"))
    with pytest.raises(jn.ModelError, match="prob"):
        evidence(fit(*of_q), prob=90)


def test_evidence_of_rows_is_scaled_to_all_of_them():
    """Every row has the evidence exp(3); 20 of 100 rows were looked at."""
    pairs = [draws(500, 0.1, 1.1, seed) for seed in range(20)]
    log_p, log_q = (np.stack(a, 1) for a in zip(*pairs, strict=True))
    found = evidence(SimpleNamespace(log_p=log_p, log_q=log_q, plated=True, rows=np.zeros((100, 2))))
    assert found.method == "rows" and abs(found.log_evidence - 100 * TRUTH) < 5 * found.se
    assert "20 of 100 rows" in found.reasons[0]
