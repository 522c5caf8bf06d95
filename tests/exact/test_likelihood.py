"""log p(x) of rows against what is known: a linear decoder with Gaussian noise in closed form, a scalar latent by
quadrature. Estimates of p(x), not of its logarithm, are unbiased: that is tested over rows, at level 1e-4.
"""

import dataclasses
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import jensen as jn
from jensen.cell_models import generic
from jensen.compiled import key_for
from jensen.diagnostics.annealing import bracket, schedule
from jensen.diagnostics.likelihood import log_likelihood
from jensen.families.improved import Improved
from jensen.hamiltonian import Chain
from jensen.models import LatentVariable
from jensen.models.likelihoods import GaussianLikelihood
from jensen.nets import MLP

SCALE, N_ROWS, D = 0.6, 130, 2  # more rows than a block holds
FEW = {"n_temperatures": 60, "n_leapfrog": 3}


@pytest.fixture(scope="module")
def linear():
    """(fit, exact log p(x)) of a linear decoder; q is the posterior, but for its location and width."""
    with jax.enable_x64(True):
        decoder = MLP(jr.key(1), D, (), 3)
        decoder = eqx.tree_at(lambda m: m.biases[0], decoder, jnp.array([0.3, -0.2, 0.5]))
        model = LatentVariable(D, decoder, GaussianLikelihood((3,), SCALE, min_scale=0.0))
        w, b = np.asarray(decoder.weights[0]), np.asarray(decoder.biases[0])
        x = np.asarray(jax.vmap(model.sample)(jr.split(jr.key(2), N_ROWS)))
        exact = multivariate_normal(b, w.T @ w + SCALE**2 * np.eye(3)).logpdf(x)
        family = jn.families.Amortised(jn.families.FullRank(scale=1.0), hidden=())
        family = family.bind(model.latents, x, jr.key(3))
        family = eqx.tree_at(lambda f: f.encoder.weights[0], family, replace_fn=lambda w: 0.1 * w)
        return SimpleNamespace(model=model, family=family, rows=jnp.asarray(x)), exact


def agrees(found, exact, sign=1, within=0.1):
    """Is E[estimate of p(x)^sign / p(x)^sign] one, over the rows? Are the logarithms near, and the fewest draws counted?"""
    ratio = np.exp(sign * (found.values - exact))
    z = (ratio.mean() - 1) / (ratio.std(ddof=1) / np.sqrt(len(ratio)) + 1e-12)
    assert abs(z) < norm.isf(1e-4 / 2), z
    assert np.abs(found.values - exact).mean() < within
    assert (found.ess <= found.n_samples * (1 + 1e-9)).all() and (found.ess >= 1 - 1e-9).all()


@pytest.mark.parametrize(
    ("method", "n", "options"),
    [
        ("importance", 3000, {}),
        ("hmc", 300, {"n_chains": 8, "n_burn_in": 20, "n_keep": 20, "n_leapfrog": 3}),
        ("ais", 12, FEW),
        ("ais", 12, {"start": "prior", **FEW}),
    ],
)
def test_every_method_finds_the_evidence_of_a_linear_decoder(linear, method, n, options):
    fit, exact = linear
    found = log_likelihood(fit, method=method, n_samples=n, **options)
    agrees(found, exact, within=0.1 if n > 100 else 0.25)
    assert abs(found.mean - exact.mean()) < 0.05 and found.method == method and np.median(found.ess) > 0.2 * n
    spread = np.sqrt(((found.values - exact) ** 2).mean() / (found.errors**2).mean())
    assert 0.6 < spread < 1.6  # the errors are those that were made
    other = log_likelihood(fit, fit.rows[:3], method=method, n_samples=n, seed=1, **options)
    assert other.values.shape == (3,) and "nats a row" in repr(other)


def test_the_posterior_itself_has_weights_that_do_not_vary(linear):
    fit, exact = linear
    w, b = np.asarray(fit.model.decoder.weights[0]), np.asarray(fit.model.decoder.biases[0])
    precision = np.eye(D) + w @ w.T / SCALE**2

    class Affine(eqx.Module):
        """An encoder with the posterior's parameters."""

        like: tuple

        def __call__(self, x):
            mean = jnp.asarray(np.linalg.solve(precision, w) / SCALE**2) @ (x - b)
            return (mean, *self.like[1:])

    root = np.linalg.cholesky(np.linalg.inv(precision))
    unit = jn.families.FullRank((D,))
    scale = np.diagonal(root)
    lower = np.tril(root / scale[:, None], -1)
    unit = eqx.tree_at(
        lambda q: (q.loc, q.log_scale, q.lower), unit, (jnp.zeros(D), jnp.log(scale), jnp.asarray(lower))
    )
    zero = lambda a: jnp.zeros_like(a)
    family = jn.families.Amortised(unit, Affine((0, zero(unit.log_scale), zero(unit.lower))))
    family = family.bind(fit.model.latents, fit.rows, jr.key(0))
    found = log_likelihood(SimpleNamespace(model=fit.model, family=family, rows=fit.rows), n_samples=50)
    np.testing.assert_allclose(found.values, exact, atol=1e-9)
    np.testing.assert_allclose(found.ess, 50, rtol=1e-9)
    improved = Improved(family, fit.model, Chain(2, 2), 0.1)  # weighed by what of it has a density
    again = log_likelihood(SimpleNamespace(model=fit.model, family=improved, rows=fit.rows[:2]), n_samples=50)
    np.testing.assert_allclose(again.values, exact[:2], atol=1e-9)


def test_a_scalar_latent_by_quadrature():
    model = generic(LatentVariable(1, MLP(jr.key(4), 1, (4,), 5, activation="tanh"), "bernoulli", shape=(5,)))
    x = (np.random.default_rng(0).random((40, 5)) < 0.5).astype(float)
    family = jn.families.Amortised(jn.families.MeanField(scale=1.2), hidden=()).bind(model.latents, x, jr.key(0))
    grid = np.linspace(-9, 9, 2001)
    log_p = jax.vmap(lambda x: jax.vmap(lambda z: model.log_density(z[None], x))(jnp.asarray(grid)))(jnp.asarray(x))
    exact = logsumexp(np.asarray(log_p), axis=1) + np.log(grid[1] - grid[0])
    fit = SimpleNamespace(model=model, family=family, rows=jnp.asarray(x))
    agrees(log_likelihood(fit, n_samples=5000), exact)
    shifted = eqx.tree_at(lambda f: f.encoder.biases[0], family, jnp.array([4.0, -1.5]))  # narrow, and elsewhere
    poor = log_likelihood(SimpleNamespace(model=model, family=shifted, rows=fit.rows), n_samples=100)
    assert (poor.values < exact).all() and np.median(poor.ess) < 10  # the negative control: it says so
    agrees(
        log_likelihood(SimpleNamespace(model=model, family=shifted, rows=fit.rows), method="hmc", n_samples=300), exact
    )


def test_the_bracket_contains_the_truth_and_closes(linear):
    """The simulated rows themselves are known: the same seed draws them again."""
    fit, _ = linear
    w, b = np.asarray(fit.model.decoder.weights[0]), np.asarray(fit.model.decoder.biases[0])
    n, gaps = 100, []
    x = jax.vmap(fit.model.sample_joint)(jr.split(key_for(3, "bracket"), n))[1]
    exact = multivariate_normal(b, w.T @ w + SCALE**2 * np.eye(3)).logpdf(np.asarray(x))
    for n_temperatures in (60, 3):
        found = bracket(fit, n, n_samples=4, seed=3, start="prior", n_temperatures=n_temperatures, n_leapfrog=3)
        assert found.upper is not None
        agrees(found, exact, within=9)
        agrees(dataclasses.replace(found, values=found.upper), exact, sign=-1, within=9)
        gaps.append((found.upper - found.values).mean())
        assert found.mean < exact.mean() < found.upper.mean()
    assert gaps[0] < 0.3 < gaps[1]  # a path too short leaves a gap


def test_rows_of_a_fit_and_what_is_refused(linear):
    fit, _ = linear
    shared = SimpleNamespace(model=jn.models.LogDensity(lambda z: -0.5 * z @ z, (2,)), family=fit.family, rows=None)
    for wrong, error, match in (
        (lambda: log_likelihood(shared), jn.ModelError, "share one latent"),
        (lambda: log_likelihood(fit, method="guess"), jn.OptionError, "no such method"),
        (lambda: log_likelihood(fit, n_samples=0), jn.OptionError, "n_samples"),
        (lambda: log_likelihood(fit, n_leapfrog=3), jn.OptionError, "does not apply"),
        (lambda: log_likelihood(fit, method="ais", steps=3), jn.OptionError, "unknown"),
        (lambda: log_likelihood(fit, method="ais", start="here"), jn.OptionError, "no such start"),
        (lambda: log_likelihood(fit, np.full((2, 3), np.nan)), jn.DataError, "NaN"),
        (lambda: bracket(shared), jn.ModelError, "cannot be drawn"),
    ):
        with pytest.raises(error, match=match):
            wrong()
    net = LatentVariable.belief_net(jr.key(0), (2,), (3,))
    q = jn.families.Amortised(jn.families.Bernoulli(), hidden=()).bind(net.latents, np.zeros((4, 3)), jr.key(1))
    discrete = SimpleNamespace(model=net, family=q, rows=jnp.zeros((4, 3)))
    assert log_likelihood(discrete, n_samples=20).values.shape == (4,)
    with pytest.raises(jn.IncompatibleComposition, match="real numbers"):
        log_likelihood(discrete, method="ais")


def test_temperatures_rise_from_zero_to_one():
    b = schedule(10)
    assert b[0] == 0 and b[-1] == 1 and (np.diff(b) > 0).all() and len(b) == 11
