"""PSIS-LOO against closed forms and ArviZ, comparison of models, and predictions for new data.

Statistical tests compare with an exact value at |z| < 5 (level 6e-7 each, a dozen of them).
"""

import warnings
from types import SimpleNamespace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import jensen as jn
from jensen.diagnostics import pointwise
from jensen.diagnostics.compare import compare, stacking_weights
from jensen.diagnostics.loo import LOO, loo
from jensen.diagnostics.psis import smooth
from jensen.models import LatentVariable, LogDensity

N, S, SD, PRIOR_SD = 40, 4096, 0.7, 2.0
Y = 0.5 + SD * np.random.default_rng(3).normal(size=N)
Y[0] = 3.0  # an outlier: where leaving out matters


def log_normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def posterior(y):
    precision = 1 / PRIOR_SD**2 + len(y) / SD**2
    return y.sum() / SD**2 / precision, precision**-0.5


def exact_loo():
    terms = []
    for i in range(N):
        mean, sd = posterior(np.delete(Y, i))
        terms.append(log_normal(Y[i], mean, np.hypot(sd, SD)))
    return np.array(terms)


def density_model():
    row = lambda z, y: log_normal(y, z[0], SD)
    return LogDensity(lambda z: log_normal(z[0], 0.0, PRIOR_SD), (1,), log_likelihood=row)


def normal_mean(y):
    mu = numpyro.sample("mu", dist.Normal(0, PRIOR_SD))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu, SD), obs=y)


def made(stretch=1.0, corrected="none", model=None, seed=0, shape=(1,)):
    """A fit whose q is the exact posterior, stretched."""
    mean, sd = posterior(Y)
    z = mean + stretch * sd * np.random.default_rng(seed).normal(size=S)
    log_p = log_normal(z, 0, PRIOR_SD) + log_normal(Y[:, None], z, SD).sum(0)
    draws = z.reshape(S, *shape) if model is None else {"mu": z}
    return SimpleNamespace(
        model=density_model() if model is None else model, rows=jnp.asarray(Y) if model is None else None,
        draws=draws, log_p=log_p, log_q=log_normal(z, mean, stretch * sd), plated=False, corrected=corrected,
        verdict="RELIABLE", log_evidence=0.0, diagnosis=SimpleNamespace(log_evidence_se=0.0, details={}),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["rows", "numpyro"])
@pytest.mark.parametrize("stretch", [1.0, 1.5, 0.8])
def test_loo_is_exact_whatever_q(kind, stretch):
    fit = made(stretch, model=jn.from_numpyro(normal_mean, Y) if kind == "numpyro" else None)
    found, exact = loo(fit), exact_loo()
    assert abs(found.elpd - exact.sum()) < 5 * found.mcse < 0.5
    np.testing.assert_allclose(found.pointwise, exact, atol=0.1)
    np.testing.assert_allclose(found.se, np.sqrt(N) * exact.std(), rtol=0.05)
    assert found.n == N and found.n_bad == 0


def test_without_the_correction_a_wrong_q_gives_a_wrong_loo():
    """The negative control: draws of a stretched q taken for draws of the posterior."""
    found = loo(made(1.5, corrected="chains"))
    assert abs(found.elpd - exact_loo().sum()) > 10 * found.mcse


def test_draws_of_chains_give_what_arviz_gives():
    fit = made(corrected="chains")
    likelihood = log_normal(Y, fit.draws, SD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = az.from_dict(posterior={"mu": fit.draws[None, :, 0]}, log_likelihood={"y": likelihood[None]})
        for reff in (1.0, 0.4):
            theirs, ours = az.loo(data, pointwise=True, reff=reff), loo(fit, reff=reff)
            wanted = [theirs.elpd_loo, theirs.se, theirs.p_loo]
            np.testing.assert_allclose([ours.elpd, ours.se, ours.p_loo], wanted, rtol=1e-6)
            np.testing.assert_allclose(ours.pointwise, theirs.loo_i.values, atol=1e-6)
            np.testing.assert_allclose(ours.khat, theirs.pareto_k.values, atol=1e-6)


def test_blocks_change_nothing(monkeypatch):
    whole = [loo(made()), loo(made(model=jn.from_numpyro(normal_mean, Y)))]
    monkeypatch.setattr(pointwise, "HELD", 7 * S)
    monkeypatch.setattr(pointwise, "MADE", 500)
    for a, b in zip(whole, [loo(made()), loo(made(model=jn.from_numpyro(normal_mean, Y)))], strict=True):
        np.testing.assert_allclose(a.pointwise, b.pointwise, rtol=1e-12)
        np.testing.assert_allclose(a.khat, b.khat, rtol=1e-9)


def test_many_rows_of_weights_are_smoothed_as_one_by_one():
    rng = np.random.default_rng(0)
    log_w = rng.exponential(size=(40, 1000)) * np.linspace(0.05, 1.2, 40)[:, None]
    smoothed, khat = smooth(log_w)
    for row, s, k in zip(log_w, smoothed, khat, strict=True):
        theirs, their_k = az.psislw(row.copy())
        np.testing.assert_allclose(k, their_k, atol=1e-6)
        np.testing.assert_allclose(s - np.log(np.exp(s - s.max()).sum()) - s.max(), theirs, atol=1e-6)
    odd = np.stack([np.zeros(1000), np.full(1000, -np.inf), np.round(log_w[30], 1), log_w[30]])
    _, khat = smooth(odd)
    assert khat[0] == -np.inf and khat[1] == np.inf and np.isfinite(khat[2:]).all()
    np.testing.assert_allclose(khat[3], smooth(log_w)[1][30])


def test_masked_elements_and_factors_are_no_observations():
    keep = np.arange(N) % 4 != 0

    def fn(y):
        mu = numpyro.sample("mu", dist.Normal(0, PRIOR_SD))
        numpyro.factor("nothing", 0.0 * mu)
        with numpyro.plate("rows", N), numpyro.handlers.mask(mask=keep):
            numpyro.sample("y", dist.Normal(mu, SD), obs=y)

    assert loo(made(model=jn.from_numpyro(fn, Y))).n == keep.sum()


def test_a_fit_in_double_precision_of_a_model_in_single():
    fit = made()
    with jax.enable_x64(False):
        model = jn.from_numpyro(normal_mean, Y.astype(np.float32))
        found = loo(made(model=model))
    np.testing.assert_allclose(found.elpd, loo(fit).elpd, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (LogDensity(lambda z: -0.5 * (z**2).sum(), (1,)), "one function of all data"),
        (jn.from_numpyro(lambda: numpyro.sample("mu", dist.Normal())), "observes no site"),
        (None, "loaded without its model"),
    ],
)
def test_models_without_a_pointwise_likelihood_are_refused(model, words):
    fit = made()
    fit.model = model
    with pytest.raises(jn.ModelError, match=words):
        loo(fit)
    fit.model, fit.plated = LatentVariable.mlp(jax.random.key(0), 1, (1,), "gaussian"), True
    with pytest.raises(jn.ModelError, match="latent of its own"):
        loo(fit)


def test_stacking_weights_are_the_best_on_the_simplex():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400) + np.where(rng.uniform(size=400) < 0.3, 2.0, -2.0)
    models = np.stack([log_normal(truth, m, 1.0) for m in (2.0, -2.0, 8.0)], 1)
    w = stacking_weights(models)
    score = lambda w: np.log(np.exp(models) @ w).mean()
    grid = [np.array([a, b, 1 - a - b]) for a in np.linspace(0, 1, 101) for b in np.linspace(0, 1 - a, 101)]
    np.testing.assert_allclose(w.sum(), 1)
    assert (w >= 0).all() and w[2] < 0.01 and 0.2 < w[0] < 0.4
    assert score(w) >= max(map(score, grid)) - 1e-6
    np.testing.assert_allclose(stacking_weights(models[:, :1]), [1.0])


def test_compare_ranks_and_pairs():
    good = made()
    bad = made(1.2)  # of another model; how its draws were weighted does not matter here
    bad.model = LogDensity(
        lambda z: log_normal(z[0], 0.0, PRIOR_SD), (1,), log_likelihood=lambda z, y: log_normal(y, z[0], 2.0)
    )
    table = compare({"wide": bad, "right": good})
    assert list(table.index) == ["right", "wide"]
    a, b = loo(good).pointwise, loo(bad).pointwise
    np.testing.assert_allclose(table["diff"], [0, (b - a).sum()])
    np.testing.assert_allclose(table["diff_se"], [0, np.sqrt(N) * (b - a).std()])
    np.testing.assert_allclose(table["weight"].sum(), 1)
    assert table["weight"].iloc[0] > 0.7 and np.isfinite(table["log_evidence"]).all()
    again = compare({"one": good, "other": loo(good)})
    assert "not clearly better" in " ".join(again.attrs["reasons"])


def test_compare_refuses_other_data():
    other = made()
    other.rows = jnp.asarray(Y).at[3].set(0.0)
    with pytest.raises(jn.DataError, match="not those of 'one'"):
        compare({"one": made(), "other": other})
    found = loo(made())
    fewer = LOO(**{**vars(found), "pointwise": found.pointwise[:-1]})
    with pytest.raises(jn.DataError, match="different numbers"):
        compare({"one": found, "other": fewer})
    sites = [made(model=jn.from_numpyro(normal_mean, y)) for y in (Y, Y[::-1].copy())]
    with pytest.raises(jn.DataError, match="`y`"):
        compare(dict(zip("ab", sites, strict=True)))
    with pytest.raises(jn.OptionError):
        compare([made()])


def line(x, y=None, scale=1.0):
    slope = numpyro.sample("slope", dist.Normal(0, 5))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)


def test_predict_takes_new_data_by_the_names_of_the_models_arguments():
    x = np.linspace(-1, 1, 30)
    fit = jn.fit(line, (x, 3 * x), family="mean-field", n_steps=300, n_draws=256, progress=False)
    new = fit.predict(500, x=np.array([0.0, 100.0]), y=None, scale=0.01)["y"]
    assert new.shape == (500, 2)
    assert abs(new[:, 0]).max() < 0.1 and abs(new[:, 1].mean() - 300) < 30
    assert fit.predict(5, args=(x[:4],))["y"].shape == (5, 4)
    with pytest.raises(jn.ModelError, match=r"`z`(.|\n)*`x`, `y`, `scale`"):
        fit.predict(5, z=x)
