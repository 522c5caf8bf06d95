"""PyMC models: the log density equals PyMC's own, value and gradient, in single and in double precision."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import jensen as jn
from jensen.errors import DataError, ModelError
from jensen.facts import Fact
from jensen.models import LogDensity
from jensen.models.coerce import as_model

pm = pytest.importorskip("pymc", reason="pymc is not installed")
pytensor = pytest.importorskip("pytensor")
pt = pytensor.tensor
pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(0)
X, GROUP, Y = RNG.normal(size=(100, 3)), RNG.integers(0, 5, 100), RNG.integers(0, 2, 100)


def logistic():
    x = pm.Data("x", X)
    scale = pm.HalfNormal("scale", 2.0)
    b, w = pm.Normal("b", 0, scale, shape=5), pm.Normal("w", 0, 1, shape=3)
    eta = pm.Deterministic("eta", b[GROUP] + x @ w)
    pm.Bernoulli("y", logit_p=eta, observed=Y)
    pm.Potential("soft_zero_sum", -(w.sum() ** 2))


def supports():
    pm.Uniform("box", -1, 3, shape=2)
    pm.Beta("beta", 2, 3)
    pm.Dirichlet("simplex", np.array([1.0, 2.0, 3.0]), shape=(2, 3))
    pm.Normal("ordered", 0, 2, shape=3, transform=pm.distributions.transforms.ordered, initval=[-1, 0, 1])
    pm.VonMises("angle", 0.3, 2.0)
    pm.TruncatedNormal("below", 0, 1, upper=0.5)
    pm.HalfCauchy("scale", 2.0)
    pm.InverseGamma("inverse", 3.0, 1.0)
    pm.StudentT("t", 4, mu=0, sigma=1)
    pm.Exponential("rate", 1.5)
    pm.Wald("wald", 1.0, 2.0)


def dependent_bounds():
    top = pm.HalfNormal("top", 2.0)
    u = pm.Uniform("u", -top, 2 * top, shape=2)
    pm.Normal("y", u.sum(), 1.0, observed=np.array([0.4, 1.0]))


def covariance():
    chol, _, _ = pm.LKJCholeskyCov("chol", n=3, eta=2.0, sd_dist=pm.Exponential.dist(1.0, shape=3))
    mean = pm.Normal("mean", 0, 1, shape=3)
    pm.MvNormal("y", mean, chol=chol, observed=X[:20])


def mixture():
    weight, mean = pm.Dirichlet("weight", np.ones(2)), pm.Normal("mean", [-1.0, 1.0], 1.0)
    pm.NormalMixture("y", weight, mean, sigma=0.7, observed=X[:30, 0])
    pm.Censored("cut", pm.Normal.dist(mean[0], 1.0), lower=-0.5, upper=1.0, observed=np.clip(X[:30, 1], -0.5, 1.0))
    pm.Poisson("n", pm.math.exp(mean[0]), observed=np.arange(5))
    pm.NegativeBinomial("m", mu=pm.math.exp(mean[1]), alpha=2.0, observed=np.arange(5))


def random_walk():
    scale = pm.HalfNormal("scale", 1.0)
    walk = pm.GaussianRandomWalk("walk", sigma=scale, init_dist=pm.Normal.dist(0, 1), steps=19)
    pm.Normal("y", walk, 0.5, observed=X[:20, 0])
    pm.AR("ar", rho=[0.2, 0.5], sigma=scale, init_dist=pm.Normal.dist(0, 1, shape=2), observed=X[:20, 1])


def gaussian_process():
    length, amplitude = pm.Gamma("length", 5, 5), pm.HalfNormal("amplitude", 1.0)
    gp = pm.gp.Marginal(cov_func=amplitude**2 * pm.gp.cov.Matern52(1, length))
    gp.marginal_likelihood("y", X=np.linspace(0, 3, 12)[:, None], y=X[:12, 0], sigma=0.3)


def missing_values():
    scale = pm.HalfNormal("scale", 1.0)
    pm.Normal("y", 0, scale, observed=np.ma.masked_invalid([0.3, np.nan, -1.2, 0.1]))


def zero_sum():
    pm.Normal("y", pm.ZeroSumNormal("effect", 1.5, shape=4), 1.0, observed=X[:4, 0])


DOUBLE_ONLY = [gaussian_process, zero_sum]
MODELS = [
    logistic, supports, dependent_bounds, covariance, mixture, random_walk, missing_values, *DOUBLE_ONLY,
]  # fmt: skip


def built(write):
    with pm.Model() as model:
        write()
    return model


@pytest.fixture(scope="module")
def known():
    """Model by name, with PyMC's own functions; each compiled once."""
    cache = {}

    def get(write):
        if write not in cache:
            model = built(write)
            compiled = lambda outputs: model.compile_fn(outputs, mode="FAST_COMPILE", on_unused_input="ignore")
            cache[write] = model, compiled(model.logp()), compiled(model.dlogp())
        return cache[write]

    return get


def points(model, made, n=4, scale=0.7):
    """(random latents leading with n, the same as PyMC's points)."""
    rng = np.random.default_rng(1)
    z = {name: scale * rng.normal(size=(n, *s.shape)) for name, s in made.latents.items()}
    value = lambda name: model.rvs_to_values[model[name]].name
    return z, [{value(name): a[i] for name, a in z.items()} for i in range(n)]


def cases():
    quick = {(f, True) for f in MODELS} - {(covariance, True)} | {(logistic, False), (zero_sum, False)}
    for write in MODELS:
        for x64 in (True, False):
            marks = () if (write, x64) in quick else pytest.mark.slow
            yield pytest.param(write, x64, id=f"{write.__name__}-float{64 if x64 else 32}", marks=marks)


@pytest.mark.parametrize(("write", "x64"), list(cases()))
def test_log_density_and_gradient_are_pymcs(known, write, x64):
    model, logp, dlogp = known(write)
    with jax.enable_x64(x64):
        if write in DOUBLE_ONLY and not x64:
            with pytest.raises(ModelError, match=r"single precision changes .*its gradient"):
                jn.from_pymc(model).lifted()
            return
        made = jn.from_pymc(model)
        assert made.backend == "jax" and made.facts == {Fact.DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT}
        z, at = points(model, made)
        value, slope = jax.jit(jax.vmap(jax.value_and_grad(made.log_density)))(jax.tree.map(jnp.asarray, z))
        assert value.dtype == (jnp.float64 if x64 else jnp.float32)
        np.testing.assert_allclose(value, [logp(p) for p in at], rtol=1e-11 if x64 else 2e-5)
        order = [v.name for v in model.free_RVs]
        mine = np.concatenate([np.asarray(slope[n]).reshape(len(at), -1) for n in order], 1)
        theirs = np.stack([dlogp(p) for p in at])
        tolerance = 1e-9 if x64 else 2e-4
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("write", [supports, dependent_bounds, zero_sum, covariance], ids=lambda f: f.__name__)
def test_coordinates(known, write):
    """`constrain` is PyMC's back-transformation; `unconstrain` its inverse, with the Jacobian that logp has in it."""
    model, logp, _ = known(write)
    no_jacobian = model.compile_fn(model.logp(jacobian=False), mode="FAST_COMPILE", on_unused_input="ignore")
    free = model.compile_fn(model.replace_rvs_by_values(model.free_RVs), mode="FAST_COMPILE", on_unused_input="ignore")
    with jax.enable_x64(True):
        made = jn.from_pymc(model)
        z, at = points(model, made)
        x = jax.jit(jax.vmap(made.constrain))(z)
        for i, point in enumerate(at):
            for variable, value in zip(model.free_RVs, free(point), strict=True):
                np.testing.assert_allclose(x[variable.name][i], value, rtol=1e-10, atol=1e-12)
        back, log_det = jax.jit(jax.vmap(made.unconstrain))(x)
        for name in z:
            np.testing.assert_allclose(back[name], z[name], rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(log_det, [logp(p) - no_jacobian(p) for p in at], rtol=1e-8, atol=1e-8)


def test_the_jacobian_is_that_of_constrain(known):
    with jax.enable_x64(True):
        made = jn.from_pymc(known(dependent_bounds)[0])
        z = {"top": jnp.array(0.3), "u": jnp.array([0.5, -1.0])}
        flat, unravel = jax.flatten_util.ravel_pytree(z)
        jacobian = jax.jacfwd(lambda v: jax.flatten_util.ravel_pytree(made.constrain(unravel(v)))[0])(flat)
        log_det = made.unconstrain(made.constrain(z))[1]
        np.testing.assert_allclose(log_det, jnp.linalg.slogdet(jacobian)[1], rtol=1e-12)


@pytest.mark.parametrize("write", [logistic, missing_values], ids=lambda f: f.__name__)
def test_pointwise_log_likelihood_and_deterministics(known, write):
    model = known(write)[0]
    terms = model.logp(vars=model.observed_RVs, sum=False)
    exact = model.compile_fn(terms, inputs=model.value_vars, mode="FAST_COMPILE", on_unused_input="ignore")
    with jax.enable_x64(True):
        made = jn.from_pymc(model)
        z, at = points(model, made, n=2)
        mine = jax.jit(jax.vmap(made.log_likelihood))(z)
        assert set(mine) == {v.name for v in model.observed_RVs} == set(made.observed)
        for i, point in enumerate(at):
            for variable, value in zip(model.observed_RVs, exact(point), strict=True):
                np.testing.assert_allclose(mine[variable.name][i], value, rtol=1e-10)
        if write is logistic:
            eta = jax.vmap(made.deterministics)(z)["eta"]
            x = jax.vmap(made.constrain)(z)
            np.testing.assert_allclose(eta, x["b"][:, GROUP] + x["w"] @ X.T, rtol=1e-12)
            np.testing.assert_array_equal(made.observed["y"], Y)
        else:
            assert jax.vmap(made.deterministics)(z).keys() == {v.name for v in model.deterministics}


def test_made_in_single_precision_and_used_in_double(known):
    model, logp, _ = known(logistic)
    made = jn.from_pymc(model)
    z, at = points(model, made, n=1)
    with jax.enable_x64(True):
        value = made.log_density({n: jnp.asarray(a[0]) for n, a in z.items()})
        np.testing.assert_allclose(value, logp(at[0]), rtol=1e-12)


def test_numbers_that_do_not_fit_single_precision_are_refused():
    def large():
        pm.Normal("y", pm.Normal("mean", 0, 1e6), 1e5, observed=np.arange(100.0) + 1e100)

    def scalar():
        pm.Normal("mean", pm.Data("centre", 1e60), 1e60)

    def noise():
        pm.Normal("y", pm.Normal("mean", 2e7, 10), 1.0, observed=2e7 + RNG.normal(size=100))

    for write, at in ((large, 0.0), (scalar, 0.0), (noise, 2e7)):
        made = jn.from_pymc(built(write))  # the ladder computes in double
        with pytest.raises(DataError, match="single precision"):
            jn.fit(made, method="gradient", n_steps=10)
        with jax.enable_x64(True):
            assert np.isfinite(made.log_density({"mean": jnp.asarray(at)}))


def test_a_parameter_out_of_range_has_density_zero():
    def write():
        pm.Normal("y", 0.0, pm.Normal("scale", 0, 1), observed=1.0)

    made = jn.from_pymc(built(write))
    assert float(made.log_density({"scale": jnp.array(-1.0)})) == -np.inf
    assert np.isfinite(made.log_density({"scale": jnp.array(1.0)}))
    with pm.Model(check_bounds=False) as unchecked:
        write()
    assert float(jn.from_pymc(unchecked).log_density({"scale": jnp.array(-1.0)})) != -np.inf


def test_double_precision_stays_off_and_devices_stay_one():
    code = """if True:
        import os, jax, pymc as pm, jensen as jn
        flags = os.environ.get("XLA_FLAGS")
        with pm.Model() as model:
            pm.Normal("y", pm.Normal("mean", 0, 1), 1, observed=1.0)
        made = jn.from_pymc(model)
        print(made.log_density({"mean": jax.numpy.zeros(())}).dtype, jax.config.jax_enable_x64, len(jax.devices()))
        assert os.environ.get("XLA_FLAGS") == flags
        with jax.enable_x64(True):
            print(made.log_density({"mean": jax.numpy.zeros(())}).dtype)
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment)
    assert out.stdout.split() == ["float32", "False", "1", "float64"], out.stderr


def test_erfcx():
    from jensen.models.adapters.pymc_jax import erfcx

    x = np.concatenate([np.linspace(-20, 60, 801), [1e3, 1e6, 1e100]])
    with jax.enable_x64(True):
        np.testing.assert_allclose(erfcx(x), scipy.special.erfcx(x), rtol=1e-12)
        slope = jax.vmap(jax.grad(erfcx))(x[:700])
        exact = 2 * x[:700] * scipy.special.erfcx(x[:700]) - 2 / np.pi**0.5
        np.testing.assert_allclose(slope, exact, rtol=1e-8, atol=1e-12)
        assert np.isfinite(jax.grad(erfcx)(-1e5))
    x = np.concatenate([np.linspace(-7, 60, 801), [1e3, 1e6]]).astype(np.float32)
    np.testing.assert_allclose(erfcx(jnp.asarray(x)), scipy.special.erfcx(x.astype(float)), rtol=5e-5)


# ---- what JAX cannot do ---------------------------------------------------------------------------------------------


class Cube(pytensor.graph.op.Op):
    """An operation without a JAX form."""

    itypes, otypes = (pt.dvector,), (pt.dvector,)
    __props__ = ("with_gradient",)

    def __init__(self, with_gradient):
        self.with_gradient = with_gradient

    def perform(self, node, inputs, outputs):
        if inputs[0][0] > 50:
            raise ValueError("outside of the domain")
        outputs[0][0] = inputs[0] ** 3

    def pullback(self, inputs, outputs, cotangents):
        if not self.with_gradient:
            raise NotImplementedError("no gradient")
        return [3 * inputs[0] ** 2 * cotangents[0]]

    def L_op(self, inputs, outputs, cotangents):
        return self.pullback(inputs, outputs, cotangents)


def with_op(op):
    def write():
        w = pm.Normal("w", 0, 1, shape=3)
        cubed = pm.Deterministic("cubed", op(w))
        pm.Normal("y", cubed.sum(), pm.HalfNormal("scale", 1.0), observed=np.array([0.4, 1.0]))

    return write


@pytest.mark.parametrize("x64", [True, False], ids=["float64", "float32"])
def test_an_operation_without_a_jax_form_is_called_back(x64):
    theirs, mine = built(with_op(lambda w: w**3)), built(with_op(Cube(True)))
    with jax.enable_x64(x64):
        exact, made = jn.from_pymc(theirs), jn.from_pymc(mine)
        assert (exact.backend, made.backend) == ("jax", "pytensor") and Fact.DIFFERENTIABLE in made.facts
        assert any("Cube" in reason for reason in made.program.log_density.reasons)
        z = jax.tree.map(jnp.asarray, points(theirs, exact)[0])
        tolerance = {"rtol": 1e-12 if x64 else 1e-4, "atol": 1e-12 if x64 else 1e-4}
        close = lambda a, b: jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), a, b)
        close(*[jax.jit(jax.vmap(jax.value_and_grad(m.log_density)))(z) for m in (made, exact)])
        for name in ("constrain", "deterministics", "log_likelihood"):
            close(*[jax.jit(jax.vmap(getattr(m, name)))(z) for m in (made, exact)])
        outside = {"w": jnp.full(3, 60.0), "scale": jnp.zeros(())}
        assert np.isnan(made.log_density(outside))


def test_without_any_gradient():
    made = jn.from_pymc(built(with_op(Cube(False))))
    assert made.backend == "pytensor" and made.facts == {Fact.EXACT_LOG_WEIGHT}
    fit = jn.fit(made, n_steps=100, optimizer=0.01, n_samples=8, n_draws=100, family="mean-field")
    assert fit.options["gradient"] in ("LeaveOneOut", "ScoreFunction")


def test_a_shape_that_depends_on_data():
    def write():
        n = pm.Data("n", np.array(4))
        w = pm.Normal("w", 0, 1, shape=4)
        pm.Normal("y", w[pt.arange(n)].sum() + pt.zeros((n,)).sum(), 1.0, observed=0.3)

    model = built(write)
    made = jn.from_pymc(model)
    assert made.backend == "jax, fixed data"
    value = made.log_density({"w": jnp.ones(4)})
    np.testing.assert_allclose(value, model.compile_logp(mode="FAST_COMPILE")({"w": np.ones(4)}), rtol=1e-5)


# ---- fit ------------------------------------------------------------------------------------------------------------


def conjugate():
    mean = pm.Normal("mean", 0, 2.0)
    pm.Normal("y", mean, 1.0, observed=pm.Data("data", np.array([0.5, 1.5, 2.5])))


def test_fit_finds_the_conjugate_posterior_and_evidence():
    model = built(conjugate)
    fit = jn.fit(model, family="mean-field", n_steps=2000, optimizer=0.03, n_draws=1000)
    precision = 3 + 1 / 4
    draws = fit.sample(20_000)["mean"]
    assert abs(draws.mean() - 4.5 / precision) < 0.03 and abs(draws.std() - precision**-0.5) < 0.03
    y, covariance = np.array([0.5, 1.5, 2.5]), np.eye(3) + 4
    evidence = -0.5 * (y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    assert abs(fit.elbo - evidence) < 0.01
    assert np.isfinite(fit.log_prob(fit.sample(5))).all()
    with pytest.raises(ModelError, match="already holds its data"):
        jn.fit(model, np.zeros(3))
    with pytest.raises(ModelError, match="already holds its data"):
        jn.fit(jn.from_pymc(model), np.zeros(3))


def test_the_same_model_is_the_same_key_until_it_changes():
    model = built(conjugate)
    one, two = jn.from_pymc(model), as_model(model, None)[0]
    assert jax.tree.structure(one) == jax.tree.structure(two)
    z = {"mean": jnp.zeros(())}
    before = float(one.log_density(z))
    with model:
        pm.set_data({"data": np.zeros(3)})
    assert float(jn.from_pymc(model).log_density(z)) != before == float(one.log_density(z))
    with model:
        pm.Normal("more", 0, 1)
    assert set(jn.from_pymc(model).latents) == {"mean", "more"}


def refused(match, write=None, model=None):
    with pytest.raises(ModelError, match=match) as error:
        jn.from_pymc(built(write) if model is None else model)
    assert all(f"{part}:" in str(error.value) for part in ("wrong", "because", "instead"))


def test_refused():
    refused("discrete free variables: k, j", lambda: (pm.Poisson("k", 2.0), pm.Bernoulli("j", 0.5), pm.Normal("x")))
    refused("no free variables", lambda: pm.Normal("y", 0, 1, observed=1.0))
    refused("model is a function", model=conjugate)

    def minibatch():
        y = pm.Minibatch(X[:, 0], batch_size=10)
        pm.Normal("y", pm.Normal("mean"), 1.0, observed=y, total_size=100)

    refused("random numbers", minibatch)


def test_other_models_are_still_models():
    model = LogDensity(lambda z: -z @ z, (2,))
    assert as_model(model, None)[0] is model
