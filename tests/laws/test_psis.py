"""Pareto-smoothed importance sampling against ArviZ."""

import arviz as az
import numpy as np
import pytest

from jensen.diagnostics.psis import importance_ess, psis


@pytest.mark.parametrize("tail", [0.1, 0.5, 0.9])
def test_psis_is_that_of_arviz(tail):
    log_w = tail * np.random.default_rng(0).exponential(size=2000)
    smoothed, khat = az.psislw(log_w.copy())
    found = psis(log_w)
    np.testing.assert_allclose(found.khat, khat, atol=1e-6)
    np.testing.assert_allclose(found.log_weights, smoothed, atol=1e-6)
    np.testing.assert_allclose(np.exp(found.log_weights).sum(), 1)


def test_khat_is_the_tail_index():
    """exp(a E) of an exponential E is Pareto with shape a."""
    log_w = 0.7 * np.random.default_rng(1).exponential(size=100_000)
    assert abs(psis(log_w).khat - 0.7) < 0.1


def test_the_ends():
    assert psis(np.zeros(100)).khat == -np.inf
    assert psis(np.full(100, -np.inf)).khat == np.inf
    assert psis(np.array([0.0, np.nan, -np.inf])).khat == np.inf
    np.testing.assert_allclose(importance_ess(psis(np.zeros(50)).log_weights), 50)
