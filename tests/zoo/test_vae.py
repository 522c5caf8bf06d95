"""`jensen.zoo.VAE`: scikit-learn's own checks, invariances, a closed-form density, units, quality, no recompilation."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.utils.estimator_checks import parametrize_with_checks

import jensen as jn
from jensen.zoo import VAE, rowwise

TINY = {"hidden": (8,), "n_steps": 50, "batch_size": None, "n_importance": 40, "random_state": 0}


@parametrize_with_checks([VAE(2, hidden=(8,), n_steps=20, batch_size=None, n_importance=8)])
def test_sklearn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def bits():
    """Digits at one bit a pixel: 1,437 rows to fit, 360 held out."""
    x = (load_digits().data >= 8).astype(np.float32)
    return train_test_split(x, test_size=0.2, random_state=0)


@pytest.fixture(scope="module")
def digits_vae(bits):
    return VAE(random_state=0).fit(bits[0])


@pytest.fixture(scope="module")
def table():
    """(X, fitted): columns of very different units, a constant one among them."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(150, 2))
    x = z @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(150, 5))
    x = np.column_stack([x * [1, 1e-3, 1e4, 1, 10] + [0, 5, -1e5, 1e9, 3], np.full(150, 7.0)])
    return x, VAE(2, **{**TINY, "n_steps": 500}).fit(x)


# ---- rows do not see each other ---------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["transform", "score_samples", "reconstruct"])
def test_a_row_is_judged_alone_bit_for_bit(digits_vae, bits, method):
    x, of = bits[1], getattr(digits_vae, method)
    whole = of(x)
    order = np.random.default_rng(1).permutation(len(x))
    assert np.array_equal(of(x[order]), whole[order])
    assert np.array_equal(of(x[7:90]), whole[7:90])
    assert np.array_equal(np.concatenate([of(x[i : i + 1]) for i in range(5)]), whole[:5])


def test_rows_get_noise_of_their_own():
    x = np.random.default_rng(0).normal(size=(20_000, 3))
    assert len(np.unique(rowwise.row_hash(x))) > 19_990  # 32 bits: 0.05 collisions expected
    assert np.array_equal(rowwise.row_hash(np.array([[-0.0, 1.0]])), rowwise.row_hash(np.array([[0.0, 1.0]])))


# ---- the density ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def linear():
    """(training rows, held-out rows, fitted linear VAE) on probabilistic PCA data in units far from 1."""
    rng = np.random.default_rng(3)
    w = rng.normal(size=(2, 6))
    x = rng.normal(size=(3000, 2)) @ w + 0.5 * rng.normal(size=(3000, 6))
    x = 40.0 + 250.0 * x
    return x[:2500], x[2500:], VAE(2, hidden=(), n_steps=3000, optimizer=5e-3, random_state=0).fit(x[:2500])


def marginal(vae):
    """N(b, W W' + diag s^2) of a linear decoder, in the units of X."""
    decoder, scale = vae.fit_.model.decoder, np.asarray(vae.fit_.model.likelihood.scale(), np.float64)
    w, b = np.asarray(decoder.weights[0], np.float64), np.asarray(decoder.biases[0], np.float64)
    cov = vae.scale_[:, None] * (w.T @ w + np.diag(scale**2)) * vae.scale_
    return multivariate_normal(vae.center_ + vae.scale_ * b, cov)


def test_log_likelihood_is_the_closed_form_of_a_linear_decoder(linear):
    _, x, vae = linear
    exact = marginal(vae).logpdf(x)
    found = vae.score_samples(x)
    assert abs(np.mean(found - exact)) < 0.01
    assert np.quantile(np.abs(found - exact), 0.95) < 0.1
    assert abs(vae.score(x) - np.mean(exact)) < 0.01


def test_linear_vae_reaches_probabilistic_pca(linear):
    train, x, vae = linear
    assert (
        abs(vae.score(x) - PCA(2).fit(train).score(x)) < 0.1
    )  # -33.6 nats a row; one noise scale a column, not one in all


def test_elbo_is_a_bound_for_the_whole_data(linear):
    _, x, vae = linear
    total = marginal(vae).logpdf(x).sum()
    assert total - 0.2 * len(x) < vae.elbo(x) < total
    per_row = vae.history_[-200:].mean() / 2500
    assert abs(per_row - vae.elbo(x) / len(x)) < 0.3


def test_a_change_of_units_moves_the_density_by_its_jacobian():
    x = np.random.default_rng(0).normal(size=(100, 3))
    a, b = VAE(2, **TINY).fit(x), VAE(2, **TINY).fit(1000 * x)
    assert a.score(x) - b.score(1000 * x) == pytest.approx(3 * np.log(1000), abs=1e-2)


def test_units_and_constant_columns(table):
    x, vae = table
    assert vae.likelihood_ == "gaussian"
    back, drawn = vae.reconstruct(x), vae.sample(500)
    assert all(np.isfinite(a).all() for a in (back, drawn, vae.score_samples(x)))
    assert np.all(np.abs(drawn.mean(0) - x.mean(0))[:5] < x.std(0)[:5])
    assert (back.dtype, vae.transform(x).dtype) == (x.dtype, np.float32)
    assert np.allclose(back[:, 5], 7.0, atol=0.5)


# ---- quality ----------------------------------------------------------------------------------------------------
def independent(train, test):
    p = (train.sum(0) + 1) / (len(train) + 2)
    return float((test * np.log(p) + (1 - test) * np.log1p(-p)).sum(1).mean())


def bernoulli_mixture(train, test, k=10, n_steps=100):
    """EM with Laplace smoothing; the mean log-likelihood of the test rows."""
    rng = np.random.default_rng(0)
    p, log_pi = np.clip(train[rng.choice(len(train), k, replace=False)], 0.3, 0.7), np.full(k, -np.log(k))
    joint = lambda x: x @ np.log(p).T + (1 - x) @ np.log1p(-p).T + log_pi
    for _ in range(n_steps):
        r = np.exp(joint(train) - logsumexp(joint(train), axis=1, keepdims=True))
        n = r.sum(0)
        p, log_pi = (r.T @ train + 0.5) / (n[:, None] + 1), np.log((n + 1) / (n.sum() + k))
    return float(logsumexp(joint(test), axis=1).mean())


def test_default_vae_beats_simple_densities_on_digits(digits_vae, bits):
    train, test = bits
    found = digits_vae.score(test)
    assert found > bernoulli_mixture(train, test) + 1.5  # -17.5 against -20.0
    assert found > independent(train, test) + 6  # against -25.3
    assert digits_vae.elbo(test) / len(test) < found


# ---- draws, randomness, options ---------------------------------------------------------------------------------
def test_samples(digits_vae):
    x = digits_vae.sample(300)
    assert x.shape == (300, 64)
    assert set(np.unique(x)) <= {0.0, 1.0}
    assert np.array_equal(x, digits_vae.sample(300))
    assert np.array_equal(x[:10], digits_vae.sample(10))
    assert not np.array_equal(digits_vae.set_params(random_state=1).sample(300), x)
    digits_vae.set_params(random_state=0)


def test_random_state_decides_all():
    x = np.random.default_rng(0).normal(size=(100, 3))
    a, b, c = (VAE(2, **TINY | {"random_state": s}).fit(x) for s in (0, 0, 1))
    assert np.array_equal(a.score_samples(x), b.score_samples(x))
    assert np.array_equal(a.transform(x), b.transform(x))
    assert not np.array_equal(a.transform(x), c.transform(x))


def test_attributes_and_names(table):
    x, vae = table
    assert str(vae.verdict_) in ("RELIABLE", "DOUBTFUL", "UNRELIABLE")
    assert vae.n_iter_ == 500
    assert vae.history_.shape == (500,)
    assert list(vae.get_feature_names_out()) == ["vae0", "vae1"]
    frame = pd.DataFrame(x, columns=list("abcdef"))
    named = clone(vae).set_output(transform="pandas").fit(frame)
    assert list(named.feature_names_in_) == list("abcdef")
    assert list(named.transform(frame).columns) == ["vae0", "vae1"]


def test_pickle_leaves_the_rows_behind(digits_vae, bits):
    blob = pickle.dumps(digits_vae)
    again = pickle.loads(blob)
    assert np.array_equal(again.score_samples(bits[1][:3]), digits_vae.score_samples(bits[1][:3]))
    assert again.fit_.rows is None
    assert again.verdict_ == digits_vae.verdict_


def test_another_objective(bits):
    x = bits[0][:200]
    vae = VAE(2, **TINY | {"objective": jn.objectives.IWAE(), "n_samples": 3}).fit(x)
    assert vae.fit_.options["objective"] == "IWAE"
    assert vae.score(x) > independent(x, x) - 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"n_importance": None}, "n_importance"),
        ({"batch_size": 0}, "batch_size"),
        ({"hidden": 200}, "hidden"),
        ({"activation": "swishy"}, "activation"),
        ({"likelihood": "cauchy"}, "likelihood"),
        ({"likelihood": "bernoulli"}, "outside"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        VAE(**options).fit(np.arange(12.0).reshape(4, 3))


def test_wrong_shapes_are_refused(table):
    with pytest.raises(ValueError, match=r"X\.reshape"):
        VAE().fit(np.zeros((4, 8, 8)))
    with pytest.raises(ValueError, match="latents"):
        table[1].inverse_transform(np.zeros((1, 3)))


# ---- compiled once ----------------------------------------------------------------------------------------------
def test_second_fit_and_other_numbers_of_rows_compile_nothing(digits_vae, bits, compilations):
    train, test = bits
    digits_vae.transform(test), digits_vae.score_samples(test), digits_vae.reconstruct(test), digits_vae.sample(3)

    def once_more():
        again = VAE(random_state=5, n_steps=30).fit(train)
        again.transform(test[:50]), again.score_samples(test[:50]), again.reconstruct(test[:9]), again.sample(700)

    assert compilations(once_more)[1] == 0
