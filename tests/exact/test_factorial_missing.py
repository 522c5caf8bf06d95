"""Missing values of a factorial HMM, against the sum over all paths of all chains."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import jensen as jn
from jensen.models import FactorialHMM
from jensen.models.factorial import FactorialParams

M, K, D, T = 2, 2, 3, 4


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    shares = lambda *shape: (lambda a: a / a.sum(-1, keepdims=True))(rng.random(shape))
    covariance = np.cov(rng.normal(size=(D, 9))) + 0.3 * np.eye(D)
    params = FactorialParams(shares(M, K), shares(M, K, K), 2 * rng.normal(size=(M, K, D)), covariance, np.ones(D))
    x = 2 * rng.normal(size=(T, D))
    x[1, 1], x[2], x[3, :2] = np.nan, np.nan, np.nan
    return params, x


def by_paths(params, x):
    """(log p(x), E[x | what is seen])."""
    values, filled = [], []
    for path in itertools.product(itertools.product(range(K), repeat=M), repeat=T):
        value, means = 0.0, []
        for t, states in enumerate(path):
            mean, there = sum(params.means[m, states[m]] for m in range(M)), ~np.isnan(x[t])
            for m in range(M):
                p = params.initial[m] if t == 0 else params.transitions[m, path[t - 1][m]]
                value += np.log(p[states[m]])
            seen = params.covariance[np.ix_(there, there)]
            if there.any():
                value += multivariate_normal.logpdf(x[t, there], mean[there], seen)
                mean = mean + params.covariance[:, there] @ np.linalg.solve(seen, (x[t] - mean)[there])
            means.append(mean)
        values.append(value)
        filled.append(means)
    return logsumexp(values), np.tensordot(np.exp(np.array(values) - logsumexp(values)), np.array(filled), 1)


def test_likelihood_and_imputed_values_are_those_of_the_sum_over_paths(case):
    params, x = case
    value, filled = by_paths(params, x)
    model, rows, params = FactorialHMM(M, K).bound_to(x[None]), jnp.asarray(x)[None], jax.tree.map(jnp.asarray, params)
    assert np.isclose(jax.jit(model.e_step)(params, rows, jnp.ones(1))[0], value)
    assert np.isclose(model.log_prob(params, rows)[0], value)
    assert np.allclose(model.imputed(params, rows)[0], filled)
    bound = FactorialHMM(M, K, "structured").bound_to(x[None])
    assert bound.log_prob(params, rows)[0] < value


@pytest.mark.parametrize("inference", ["exact", "structured"])
def test_em_climbs_with_values_missing(inference):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 25, 2)) + 3 * (np.arange(25) // 5 % 2)[:, None]
    x[rng.random(x.shape) < 0.15], x[2, 10] = np.nan, np.nan
    fit = jn.em(FactorialHMM(2, 2, inference), x, n_iter=30, n_starts=2)
    assert np.maximum(-np.diff(fit.history), 0).max() < 1e-9 * fit.n_rows
