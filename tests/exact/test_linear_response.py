"""Linear response: exact for a Gaussian posterior, close to quadrature for a logistic regression."""

import jax.numpy as jnp
import numpy as np
import pytest

import jensen as jn
from jensen.errors import ModelError, OptionError
from jensen.families import FullRank, MeanField
from jensen.models import LogDensity

MEAN = np.array([1.0, -2.0, 0.5])
COVARIANCE = np.array([[1.0, 0.8, 0.1], [0.8, 1.5, -0.3], [0.1, -0.3, 0.7]])


def _fitted(log_density, n, family=None):
    return jn.fit(LogDensity(log_density, (n,)), family=family or MeanField(), n_steps=600, optimizer=2e-2)


@pytest.fixture(scope="module")
def gaussian():
    import jax

    precision = np.linalg.inv(COVARIANCE)
    with jax.enable_x64(True):
        return _fitted(lambda z: -0.5 * (z - MEAN) @ precision @ (z - MEAN), 3)


def test_it_is_exact_for_a_correlated_gaussian(gaussian):
    found = gaussian.linear_response(n_draws=64)
    np.testing.assert_allclose(found.covariance, COVARIANCE, atol=1e-6)
    np.testing.assert_allclose(found.mean, MEAN, atol=1e-6)
    np.testing.assert_allclose(found.mean_field_sd**-2, np.diagonal(np.linalg.inv(COVARIANCE)), atol=1e-6)
    assert found.names == ["z[0]", "z[1]", "z[2]"]
    assert list(jn.linear_response(gaussian, 64).summary().columns) == ["mean", "sd", "mean_field_sd"]


def test_it_corrects_the_sds_of_a_logistic_regression():
    """Mean-field sds are half of the right ones; linear response is within 2% of quadrature."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 2)) @ np.array([[1.0, 0.9], [0.0, 0.5]])
    y = (rng.random(60) < 1 / (1 + np.exp(-x @ np.array([1.0, -1.0])))).astype(float)

    def log_density(z):
        return -0.125 * (z**2).sum() + (y * (x @ z) - jnp.logaddexp(0, x @ z)).sum()

    found = _fitted(log_density, 2).linear_response()
    axis = np.linspace(-6, 6, 121)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2) * found.sd + found.mean
    eta = grid @ x.T
    log_p = -0.125 * (grid**2).sum(1) + (y * eta - np.logaddexp(0, eta)).sum(1)
    p = np.exp(log_p - log_p.max())
    mean = p @ grid / p.sum()
    sd = np.sqrt(p @ (grid - mean) ** 2 / p.sum())
    assert np.abs(found.sd / sd - 1).max() < 0.02
    assert (found.mean_field_sd / sd).max() < 0.75


def test_what_is_refused(gaussian):
    with pytest.raises(ModelError, match="independent"):
        _fitted(lambda z: -0.5 * (z**2).sum(), 2, FullRank()).linear_response()
    with pytest.raises(OptionError):
        gaussian.linear_response(n_draws=1)
