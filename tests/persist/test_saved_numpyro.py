"""Fits of NumPyro models: shown in the model's coordinates without the model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from madefits import fit_of, log_q, same
from numpyro.distributions import constraints

import jensen as jn
from jensen.fit.defaults import bind, default_family
from jensen.models.coordinates import Coordinates, coordinates_of


def many(y):
    """A support of every kind."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    numpyro.sample("between", dist.Uniform(jnp.array([-1.0, 0.0]), 2.0))
    numpyro.sample("cholesky", dist.LKJCholesky(3))
    kind = numpyro.sample("kind", dist.Categorical(jnp.ones(3) / 3))
    numpyro.sample("flag", dist.Bernoulli(0.3))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(weights[kind], scale), obs=y)


def rows_model(y):
    mu = numpyro.sample("mu", dist.LogNormal(0, 1))
    with numpyro.plate("rows", len(y), subsample_size=3) as i:
        z = numpyro.sample("z", dist.Gamma(2.0, mu))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y[i])


Y = np.array([0.3, -0.2, 1.1, 0.4, 0.9])


@pytest.fixture(scope="module")
def fits():
    out = {}
    for fn in (many, rows_model):
        model = jn.from_numpyro(fn, Y)
        family = bind(default_family(model), model, model.rows, 0)
        out[fn] = fit_of(family, model, model.rows)
    out[many].draws = out[many].unconstrained(7)
    out[rows_model].draws = out[rows_model].unconstrained(7)
    return out


@pytest.mark.parametrize("fn", [many, rows_model])
def test_without_the_model(fn, fits, tmp_path):
    fit = fits[fn]
    fit.save(tmp_path)
    loaded = jn.load(tmp_path)
    assert loaded.model is None
    drawn = fit.sample(5, seed=2)
    same(drawn, loaded.sample(5, seed=2))
    same(fit.log_prob(drawn), loaded.log_prob(drawn))
    assert loaded.summary().equals(fit.summary())


@pytest.mark.parametrize("fn", [many, rows_model])
def test_log_prob_is_change_of_variables(fn, fits):
    """log q(x) = log q(z) - log |det dx/dz|, the Jacobian by automatic differentiation of the free coordinates."""
    fit = fits[fn]
    u, x = fit.unconstrained(4, seed=1), fit.sample(4, seed=1)
    sites = coordinates_of(fit.model)
    back, log_det = jax.jit(jax.vmap(sites.unconstrain))(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), u, back)
    expected = jax.jit(lambda u: log_q(fit, fit.rows, u))(u) - log_det
    np.testing.assert_allclose(fit.log_prob(x), expected, rtol=2e-4, atol=2e-3)
    first = jax.tree.map(lambda a: a[0], u)
    np.testing.assert_allclose(log_det[0], _log_det(sites, first), rtol=1e-3, atol=1e-3)


def _log_det(sites, z):
    """Sum of log |det dx/dz|, by automatic differentiation of the coordinates of x that are free."""

    def one(name, v):
        moved = {**z, name: v.reshape(z[name].shape)}
        return _free(name, sites.constrain(moved)[name])

    names = [s.name for s in sites.sites if s.kind == "real"]
    dets = jax.jit(
        lambda z: [jnp.linalg.slogdet(jax.jacobian(lambda v, n=n: one(n, v))(jnp.ravel(z[n])))[1] for n in names]
    )
    return sum(dets(z))


def _free(name, value):
    """The coordinates of a value that are free."""
    if name == "weights":
        return value[:-1]
    if name == "cholesky":
        return value[jnp.tril_indices(3, -1)]
    return jnp.ravel(value)


def test_density_integrates_to_one(tmp_path):
    """On the positive half-line, by quadrature."""

    def model():
        numpyro.sample("scale", dist.Exponential(1.0))

    made = jn.from_numpyro(model)
    fit = fit_of(bind(default_family(made), made, None, 0), made, None)
    fit.save(tmp_path)
    grid = np.exp(np.linspace(-3, 3, 20001))
    density = np.exp(jn.load(tmp_path).log_prob({"scale": grid}))
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-3)


def test_given_the_model(fits, tmp_path):
    fit = fits[rows_model]
    fit.save(tmp_path)
    loaded = jn.load(tmp_path, model=rows_model, data=Y)
    same(fit.predict(3), loaded.predict(3))
    assert jn.load(tmp_path, model=jn.from_numpyro(rows_model, Y)).model.observed == ("y",)


def test_report_and_arviz_without_the_model(fits, tmp_path):
    pytest.importorskip("jensen.report.html")
    pytest.importorskip("jensen.report.arviz")
    fits[rows_model].save(tmp_path)
    loaded = jn.load(tmp_path)
    assert "mu" in loaded.report(tmp_path / "report.html").read_text()
    assert {"mu", "z"} <= set(loaded.to_arviz().posterior)


def test_data_stay_out_of_the_folder(fits, tmp_path):
    fits[many].save(tmp_path)
    assert np.asarray(Y, np.float32).tobytes() not in (tmp_path / "arrays.jensen").read_bytes()


class Odd(constraints.Constraint):
    """A support that numpyro has no name for."""

    event_dim = 0

    def __call__(self, x):
        return x > 0

    def tree_flatten(self):
        return (), ((), {})


def test_support_without_a_name(tmp_path, fits):
    """The fit is saved all the same, and needs its model to be read."""
    from jensen.models.supports import Opaque, Site

    sites = Coordinates((Site("scale", (), "real", Opaque(Odd())),))
    unnamed = dataclasses.replace(fits[many], model=None, coordinates=sites)
    unnamed.save(tmp_path)
    with pytest.raises(jn.CheckpointError, match=r"Odd(.|\n)*load\(folder, model="):
        jn.load(tmp_path)
