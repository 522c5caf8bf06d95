"""Implicit q: estimated scores and ratios against known ones, fits to known posteriors, and the verdict without a density.

Tolerances of estimated scores are their declared bias, several times what was seen; each has a control that fails.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jensen as jn
from jensen.batch import Batch
from jensen.diagnostics.distance import mmd, sliced_wasserstein
from jensen.diagnostics.samples import diagnose_samples
from jensen.diagnostics.stein import identity_scores, kernel_stein, misfit, misfit_of_rows
from jensen.errors import DataError, IncompatibleComposition, ModelError, OptionError
from jensen.families import Implicit, MeanField
from jensen.gradients import Adversarial, KernelRatio, Pathwise, SpectralStein, plans
from jensen.gradients.adversarial import UNABLE
from jensen.gradients.base import Bound, Parts, value_and_grad
from jensen.gradients.contrast import entropy_by_neighbours, whitening
from jensen.models import LatentVariable, LogDensity
from jensen.objectives import ELBO, IWAE
from jensen.tree import Frozen

MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[1.0, 0.8], [0.8, 1.5]])
PRECISION = np.linalg.inv(COVARIANCE)
ENDED = {"why": "converged", "skipped": 0, "n_steps": 100}


def _log_p(z):
    return -0.5 * (z - MEAN) @ PRECISION @ (z - MEAN)


def _posterior(n, seed=0, shift=0.0, narrow=1.0):
    """Draws of the Gaussian, moved or shrunk, and the gradient of its log density there."""
    e = np.random.default_rng(seed).standard_normal((n, 2))
    x = MEAN + shift + narrow * e @ np.linalg.cholesky(COVARIANCE).T
    return x, -(x - MEAN) @ PRECISION


# ---- scores, ratios, entropies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["spectral", "stein"])
def test_the_score_of_a_normal(kind):
    """-u; a score of the wrong sign or twice as large is far outside."""
    u = jr.normal(jr.key(0), (300, 2))
    found = SpectralStein(kind).score(u)
    error = lambda s: float(jnp.sqrt(((s + u) ** 2).mean()))
    assert error(found) < 0.45
    assert min(error(-found), error(2 * found), error(0 * found)) > 0.7


def test_the_kernel_ratio_of_two_normals():
    """log N(u; 0, I) / N(u; m, I) = -m.u + |m|^2 / 2 at draws of the first, and its gradient -m."""
    one, two = jr.split(jr.key(1))
    u, m = jr.normal(one, (400, 2)), jnp.array([0.6, -0.3])
    log_ratio, slope = KernelRatio().log_ratio(u, m + jr.normal(two, (400, 2)))
    exact = -u @ m + 0.5 * m @ m
    assert np.corrcoef(log_ratio, exact)[0, 1] > 0.85
    assert abs(float((log_ratio - exact).mean())) < 0.1
    np.testing.assert_allclose(slope.mean(0), -m, atol=0.25)


def test_the_entropy_by_neighbours():
    z = jr.normal(jr.key(2), (2000, 2)) @ jnp.array([[1.0, 0.4], [0.0, 2.0]])
    exact = np.log(2 * np.pi * np.e) + np.log(2.0)
    assert abs(float(entropy_by_neighbours(z)) - exact) < 0.1


def test_whitening_gives_unit_moments_and_goes_back():
    z = jnp.asarray(_posterior(500)[0])[:, None]
    white = whitening(z)
    u = white.to(z)
    np.testing.assert_allclose(np.cov(u[:, 0].T, bias=True), np.eye(2), atol=5e-3)
    np.testing.assert_allclose(white.back(u), z, atol=1e-12)
    slope = jax.vmap(jax.grad(lambda z: white.log_prob(white.to(z))[0]))(z[:5])
    np.testing.assert_allclose(white.slope(-u[:5]), slope, atol=1e-10)


# ---- gradients ------------------------------------------------------------------------------------------------------


def _grad(gradient, n_samples, n):
    """Of the negative ELBO of a known q, mean and standard error over n estimates."""
    q = MeanField((2,), loc=jnp.array([0.5, -1.0]), scale=0.8)
    model = LogDensity(_log_p, (2,))
    gradient = gradient.bind(model.latents, None, jr.key(0))
    parts, batch = Parts(model, q, gradient), Batch()
    carry = gradient.init(Bound.make(model, q, ELBO(), batch))

    def one(key):
        e = value_and_grad(key, parts, ELBO(), plans.IID(), batch, carry, n_samples=n_samples)
        return e.value, ravel_pytree(e.grads.family)[0]

    values, grads = jax.jit(jax.vmap(one))(jr.split(jr.key(3), n))
    return float(values.mean()), np.asarray(grads.mean(0)), np.asarray(grads.std(0)) / n**0.5


@pytest.mark.parametrize("gradient", [SpectralStein(), SpectralStein("stein"), KernelRatio(), Adversarial()], ids=repr)
def test_gradients_of_an_explicit_q(gradient):
    """Close to those that know log q. An untrained discriminator takes q for the Gaussian of its moments: it is one."""
    value, exact, _ = _grad(Pathwise(), 200, 400)
    estimate, found, _ = _grad(gradient, 200, 50)
    assert np.abs(found - exact).max() < 0.12 * np.abs(exact).max()
    assert abs(estimate - value) < 0.2
    without = np.append(exact[:2], exact[2:] + 1)  # the control: no entropy term, whose gradient in log sd is 1
    assert np.abs(found - without).max() > 0.5


def test_what_is_refused():
    fit = lambda **k: jn.fit(LogDensity(_log_p, (2,)), n_steps=1, **k)
    with pytest.raises(IncompatibleComposition, match="log q of the latent"):
        fit(family=Implicit(), gradient=Pathwise())
    with pytest.raises(IncompatibleComposition, match="linear"):
        fit(family=Implicit(), gradient=SpectralStein(), objective=IWAE())
    with pytest.raises(IncompatibleComposition, match="prior"):
        fit(family=Implicit(), gradient=Adversarial("prior"))
    with pytest.raises(OptionError, match="too small"):
        fit(family=Implicit(noise=1), gradient=SpectralStein())
    for wrong in (lambda: SpectralStein("other"), lambda: Adversarial("q"), lambda: KernelRatio(ridge=0.0)):
        with pytest.raises(OptionError):
            wrong()


# ---- fits -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good():
    with jax.enable_x64(True):
        model, family = LogDensity(_log_p, (2,)), Implicit(hidden=(16,), noise=4)
        return jn.fit(model, family=family, gradient=SpectralStein(), n_samples=64, n_steps=1000, optimizer=5e-3)


def test_an_implicit_fit_finds_a_gaussian(good):
    z = np.asarray(good.draws)
    assert np.abs(z.mean(0) - MEAN).max() < 0.15
    assert np.abs(np.cov(z.T) - COVARIANCE).max() < 0.35
    assert abs(good.diagnosis.details["objective"] - np.log(2 * np.pi) - 0.5 * np.log(0.86)) < 0.3


def test_a_good_implicit_fit_is_doubtful_at_best(good, tmp_path):
    assert str(good.verdict) == "DOUBTFUL"
    assert any("no density" in reason for reason in good.reasons)
    assert np.isnan(good.elbo) and np.isnan(good.khat) and "not available" in repr(good)
    good.summary(), good.plot(), good.report(tmp_path / "report.html")
    loaded = jn.load(good.save(tmp_path / "fit"), model=good.model)
    assert str(loaded.verdict) == "DOUBTFUL" and np.isnan(loaded.elbo)
    np.testing.assert_array_equal(loaded.sample(5), good.sample(5))
    for call in (good.loo, good.evidence, lambda: good.log_prob(good.sample(3))):
        with pytest.raises(ModelError, match="density"):
            call()


def test_only_draws_known_to_be_right_make_it_better(good):
    x, _ = _posterior(4000, seed=5)
    assert str(good.against(_posterior(4000, 6, shift=1.0)[0]).verdict) == "UNRELIABLE"
    assert good.against(x).shift < 0.15
    with pytest.raises(DataError):
        good.against({"z": x})


def test_a_saturated_discriminator_is_named():
    """A contrast as far from q as the prior is here is told apart without fail."""
    model = LatentVariable(2, _Scaled(Frozen(jnp.array(30.0))), "gaussian", shape=(2,))
    x = np.random.default_rng(0).standard_normal((20, 2)) * 60
    fit = jn.fit(
        model, x, family=Implicit(hidden=(8,)), gradient=Adversarial("prior", hidden=(32,), rate=3e-2), n_samples=8,
        n_steps=300, optimizer=1e-2, batch_size=20,
    )  # fmt: skip
    assert any("saturated" in reason for reason in fit.reasons)
    level, sentence = Adversarial().findings(_Carry(jnp.asarray(UNABLE)))[0]
    assert level == 0 and "saturated" not in sentence


class _Carry:
    def __init__(self, loss):
        self.loss = loss


class _Scaled(eqx.Module):
    scale: Frozen

    def __call__(self, z):
        return self.scale.value * z


# ---- the verdict on draws -------------------------------------------------------------------------------------------


def _diagnosis(x, g):
    return diagnose_samples(x, g, ["a", "b"], log_p=np.zeros(x.shape[:-1]), **ENDED)


def test_exact_draws_are_doubtful_and_wrong_ones_unreliable():
    assert str(_diagnosis(*_posterior(4000)).verdict) == "DOUBTFUL"
    for wrong in ({"shift": 1.0}, {"narrow": 0.5}, {"narrow": 2.0}):
        found = _diagnosis(*_posterior(4000, **wrong))
        assert str(found.verdict) == "UNRELIABLE", wrong
        assert found.details["ksd_p"] < 0.01


def test_mean_field_draws_are_found_out():
    """Every coordinate alone satisfies its identities (chance allows it); the direction between them does not."""
    x = MEAN + np.random.default_rng(1).standard_normal((4000, 2)) / np.sqrt(np.diagonal(PRECISION))
    g = -(x - MEAN) @ PRECISION
    assert max(s.max() for s in identity_scores(x[None], g[None])) < 5
    assert misfit(x, g).log_sd > 0.3
    assert str(_diagnosis(x, g).verdict) == "UNRELIABLE"


def test_the_misfit_is_measured_in_posterior_sds():
    """Along a principal direction: a shift of one sd, and draws half as wide."""
    values, v = np.linalg.eigh(COVARIANCE)
    x, g = _posterior(40_000, shift=np.sqrt(values[0]) * v[:, 0])
    m = misfit(x, g)
    assert abs(m.shift - 1) < 5 * m.shift_se and m.log_sd < 0.05
    m = misfit(*_posterior(40_000, narrow=0.5))
    assert abs(m.log_sd - np.log(2)) < 5 * m.log_sd_se + 0.02


def test_rows_are_pooled_without_cancelling():
    """Half the rows are shifted up, half down: the pooled mean of g is 0, the misfit is not."""
    sign = np.where(np.arange(60) < 30, 1.0, -1.0)[:, None]
    x = np.random.default_rng(2).standard_normal((200, 60, 2))
    good, bad = misfit_of_rows(x, -x), misfit_of_rows(x + sign, -(x + sign))
    assert good.shift < 0.06 and good.log_sd < 0.05
    assert abs(bad.shift - 1) < 0.05
    assert str(_diagnosis(x, -x).verdict) == "DOUBTFUL"
    assert str(_diagnosis(x + sign, -(x + sign)).verdict) == "UNRELIABLE"
    assert str(_diagnosis(0.5 * x, -0.5 * x).verdict) == "UNRELIABLE"


def test_what_is_not_finite_and_what_has_no_gradient():
    x, g = _posterior(1000)
    g[:100] = np.nan
    assert str(_diagnosis(x, g).verdict) == "UNRELIABLE"
    found = _diagnosis(x, None)
    assert str(found.verdict) == "DOUBTFUL" and any("no gradient" in r for r in found.reasons)


# ---- distances ------------------------------------------------------------------------------------------------------


def test_the_discrepancy_and_the_distances_have_their_level():
    """p-values of 20 sets of exact draws: their smallest is below 1/2000 with probability 1% (each test on its own)."""
    few = [_posterior(150, seed) for seed in range(20)]
    pairs = [(x, _posterior(150, 100 + i)[0]) for i, (x, _) in enumerate(few)]
    for p in ([kernel_stein(x, g)[1] for x, g in few], [mmd(x, y).p_value for x, y in pairs]):
        assert min(p) > 1 / 2000 and 0.2 < np.mean(p) < 0.8


def test_distances_find_a_difference():
    x, y = _posterior(500, 1)[0], _posterior(500, 2, shift=0.5)[0]
    for distance in (mmd, sliced_wasserstein):
        found = distance(x, y)
        assert found.p_value < 0.01 and found.value > found.floor
    with pytest.raises(DataError):
        mmd(x, y[:, :1])


def test_mmd_is_the_mean_over_pairs():
    """Against the definition, on few points."""
    x, y = np.random.default_rng(3).standard_normal((2, 5, 1))
    pooled = np.concatenate([x, y])
    z = (pooled - pooled.mean(0)) / pooled.std(0)
    d = (z - z.T) ** 2
    k = np.exp(-d / (2 * np.median(d[~np.eye(10, dtype=bool)])))
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(mmd(x, y).value, k[:5, :5][off].mean() + k[5:, 5:][off].mean() - 2 * k[:5, 5:].mean())
