"""Stan programs: through an imitation of BridgeStan's interface, and through BridgeStan itself where it can compile."""

import os
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.scipy import stats

import jensen as jn
from jensen.errors import ModelError
from jensen.facts import Fact
from jensen.models.adapters.stan import Entries, from_stan
from jensen.models.coordinates import coordinates_of

Y, SIGMA = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def log_joint(z):
    """Eight schools, non-centred, in unconstrained coordinates: theta_trans (8), mu, log tau."""
    theta, mu, log_tau = z[:8], z[8], z[9]
    tau = jnp.exp(log_tau)
    prior = stats.norm.logpdf(theta).sum() + stats.norm.logpdf(mu, 0, 5) + stats.cauchy.logpdf(tau, 0, 5)
    return prior + stats.norm.logpdf(Y, theta * tau + mu, SIGMA).sum() + log_tau


class FakeStanModel:
    """The methods of `bridgestan.StanModel` 2.5 to 2.9 that the adapter uses, for eight schools: same arguments, same
    errors, and the same demands on arrays."""

    compiled = 0

    def __init__(self, model_lib, data=None, *, seed=1234, stanc_args=[], make_args=[], warn=True, model_data=None):  # noqa: B006
        if not os.path.isfile(model_lib):
            raise FileNotFoundError(model_lib)
        text = Path(model_lib).read_text()
        if "syntax error" in text:
            raise RuntimeError("Command make failed with code 2. stderr: Syntax error in line 3")
        if data is None:
            raise RuntimeError("variable does not exist; processing stage=data initialization; variable name=y")
        assert isinstance(data, (str, dict)) and isinstance(stanc_args, list) and isinstance(make_args, list)
        FakeStanModel.compiled += 1
        self.lib_path, self.data, self.seed, self.text = os.fspath(model_lib), str(data), seed, text

    def name(self):
        return "eight_schools_model"

    def param_unc_num(self):
        return 10 if "no parameters" not in self.text else 0

    def param_num(self, *, include_tp=False, include_gq=False):
        return 10 + 8 * include_tp + 2 * include_gq

    def param_names(self, *, include_tp=False, include_gq=False):
        own = [f"theta_trans.{i}" for i in range(1, 9)] + ["mu", "tau"]
        extra = [f"theta.{i}" for i in range(1, 9)] if include_tp else []
        return own + extra + (["y_rep.1", "y_rep.2"] if include_gq else [])

    def param_unc_names(self):
        return self.param_names()

    def new_rng(self, seed):
        return np.random.default_rng(seed)

    def param_constrain(self, theta_unc, *, include_tp=False, include_gq=False, out=None, rng=None):
        self._check(theta_unc)
        x = np.append(theta_unc[:9], np.exp(theta_unc[9]))
        tp = x[:8] * x[9] + x[8] if include_tp else []
        if include_gq and rng is None:
            raise ValueError("Error: must specify rng when including generated quantities")
        return np.concatenate([x, tp, rng.normal(x[8], 1, 2) if include_gq else []])

    def param_unconstrain(self, theta, *, out=None):
        assert theta.dtype == np.float64 and theta.flags.c_contiguous
        return np.append(theta[:9], np.log(theta[9]))

    def log_density(self, theta_unc, *, propto=True, jacobian=True):
        self._check(theta_unc)
        return float(self._value(theta_unc)) - (0 if jacobian else theta_unc[9])

    def log_density_gradient(self, theta_unc, *, propto=True, jacobian=True, out=None):
        self._check(theta_unc)
        theta, mu, tau = theta_unc[:8], theta_unc[8], np.exp(theta_unc[9])
        residual = (Y - theta * tau - mu) / SIGMA**2
        slope_mu, slope_tau = -mu / 25 + residual.sum(), (residual * theta).sum() - 2 * tau / (25 + tau**2)
        return float(self._value(theta_unc)), np.concatenate([tau * residual - theta, [slope_mu, tau * slope_tau + 1]])

    def _check(self, z):
        assert z.dtype == np.float64 and z.shape == (10,) and z.flags.c_contiguous
        if "rejects" in self.text or z[9] > 50:
            raise RuntimeError("Exception: normal_lpdf: Scale parameter is inf, but must be positive finite!")

    @staticmethod
    def _value(z):
        theta, mu, tau = z[:8], z[8], np.exp(z[9])
        normal = lambda x, m, s: (-0.5 * ((x - m) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)).sum()
        prior = normal(theta, 0, 1) + normal(mu, 0, 5.0) - np.log(np.pi * 5 * (1 + (tau / 5) ** 2))
        return prior + normal(Y, theta * tau + mu, SIGMA) + z[9]


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "bridgestan", types.SimpleNamespace(StanModel=FakeStanModel))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return lambda code="parameters {}", **options: from_stan(code, {"y": Y}, **options)


def flat(z):
    return jnp.concatenate([z["theta_trans"], z["mu"][None], z["tau"][None]])


def point(seed, lead=()):
    k = jr.split(jr.key(seed), 3)
    return {"theta_trans": jr.normal(k[0], (*lead, 8)), "mu": jr.normal(k[1], lead), "tau": jr.normal(k[2], lead)}


@pytest.mark.parametrize("x64", [False, True])
def test_log_density_and_gradient(fake, x64):
    with jax.enable_x64(x64):
        model, z = fake(), point(0, (5,))
        assert {n: s.shape for n, s in model.latents.items()} == {"theta_trans": (8,), "mu": (), "tau": ()}
        assert model.facts == {Fact.DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT} and set(model.site_kinds.values()) == {
            "real"
        }
        mine = jax.jit(jax.vmap(jax.value_and_grad(model.log_density)))(z)
        exact = jax.vmap(jax.value_and_grad(lambda z: log_joint(flat(z))))(z)
        np.testing.assert_allclose(mine[0], exact[0], rtol=1e-12 if x64 else 1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12 if x64 else 1e-4, atol=1e-12 if x64 else 1e-5),
            mine[1],
            exact[1],
        )


def test_coordinates(fake):
    model, z = fake(), point(1, (4,))
    with jax.enable_x64(True):
        z = jax.tree.map(lambda a: a.astype(float), z)
        x = jax.jit(jax.vmap(model.constrain))(z)
        np.testing.assert_allclose(x["tau"], np.exp(z["tau"]), rtol=1e-14)
        back, log_det = jax.vmap(model.unconstrain)(x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), back, z)
        np.testing.assert_allclose(log_det, z["tau"], rtol=1e-9)
        more = jax.vmap(model.deterministics)(z)
        assert set(more) == {"theta"}
        np.testing.assert_allclose(more["theta"], x["theta_trans"] * x["tau"][:, None] + x["mu"][:, None], rtol=1e-12)


def test_generated_quantities_are_a_function_of_the_key(fake):
    model, z = fake(), point(1)
    one = model.generate(jr.key(0), z)
    assert one["y_rep"].shape == (2,)
    np.testing.assert_array_equal(one["y_rep"], model.generate(jr.key(0), z)["y_rep"])
    many = jax.vmap(lambda k: model.generate(k, z))(jr.split(jr.key(1), 4000))["y_rep"]
    z_score = (many.mean() - z["mu"]) * many.size**0.5  # level 1e-6
    assert abs(float(z_score)) < 4.9 and abs(float(many.std()) - 1) < 0.06


def test_a_rejection_has_density_zero(fake):
    z = point(0) | {"tau": jnp.array(60.0)}
    value, slope = jax.value_and_grad(fake().log_density)(z)
    assert float(value) == -np.inf and not np.any(flat(slope))
    assert np.isnan(fake().constrain(z)["mu"])


def test_fit(fake):
    model = fake()
    fit = jn.fit(model, family="full-rank", n_steps=1500, optimizer=0.02, n_draws=1000)
    draws = fit.sample(4000)
    assert draws["tau"].shape == (4000,) and (draws["tau"] > 0).all()
    assert abs(draws["mu"].mean() - 4.4) < 0.8 and fit.why != "diverged"  # reference draws: 4.4, sd 3.3
    assert np.isfinite(fit.log_prob(fit.sample(5))).all()


def test_code_is_written_once_and_the_same_program_is_the_same_key(fake, tmp_path):
    one, two, other = fake(), fake(), fake("parameters {} // another")
    assert len(list((tmp_path / "jensen" / "stan").iterdir())) == 2
    assert jax.tree.structure(one) == jax.tree.structure(two) != jax.tree.structure(other)
    assert jax.tree.structure(one) != jax.tree.structure(fake(seed=2))
    assert one.digest != other.digest
    path = tmp_path / "mine.stan"
    path.write_text("parameters {}")
    assert from_stan(path, "{}").latents == from_stan(str(path), {"y": jnp.asarray(Y)}).latents


def test_names_run_the_first_index_fastest():
    names = ["a", "m.1.1", "m.2.1", "m.1.2", "m.2.2", "m.1.3", "m.2.3", "t:1", "t:2.1", "t:2.2", "c.real", "c.imag"]
    entries = Entries(names)
    values = entries.split(np.arange(12.0)[None])
    assert {n: v.shape[1:] for n, v in values.items()} == {
        "a": (), "m": (2, 3), "t:1": (), "t:2": (2,), "c.real": (), "c.imag": ()
    }  # fmt: skip
    np.testing.assert_array_equal(values["m"][0], [[1, 3, 5], [2, 4, 6]])
    np.testing.assert_array_equal(entries.join(values), np.arange(12.0)[None])


def test_refused(fake, monkeypatch, tmp_path):
    refusals = {
        "Syntax error in line 3": lambda: fake("syntax error {}"),
        "variable name=y": lambda: from_stan("parameters {}"),
        "no parameters": lambda: fake("no parameters {}"),
        "at 100 random points.*\n.*must be positive finite": lambda: fake("rejects {}"),
        "there is no file": lambda: from_stan(tmp_path / "none.stan"),
        "neither": lambda: from_stan("eight schools"),
    }
    for match, make in refusals.items():
        with pytest.raises(ModelError, match=match) as error:
            make()
        assert all(f"{part}:" in str(error.value) for part in ("wrong", "because", "instead"))
    monkeypatch.setitem(sys.modules, "bridgestan", None)
    with pytest.raises(ModelError, match=r"pip install \"jensen\[stan\]\""):
        fake()


def test_its_coordinates_are_code(fake):
    with pytest.raises(jn.CheckpointError, match="load"):
        coordinates_of(fake())


# ---- BridgeStan itself ----------------------------------------------------------------------------------------------

EIGHT = """
data { int<lower=0> J; array[J] real y; array[J] real<lower=0> sigma; }
parameters { vector[J] theta_trans; real mu; real<lower=0> tau; }
transformed parameters { vector[J] theta = theta_trans * tau + mu; }
model {
  theta_trans ~ normal(0, 1); y ~ normal(theta, sigma); mu ~ normal(0, 5); tau ~ cauchy(0, 5);
}
generated quantities { real y_rep = normal_rng(mu, 1); }
"""
SHAPES = """
parameters {
  matrix[3, 2] m; array[4] simplex[3] s; ordered[3] o; array[2, 2] real<lower=1, upper=3> b; cholesky_factor_corr[3] l;
}
model {
  to_vector(m) ~ std_normal(); o ~ normal(0, 2); l ~ lkj_corr_cholesky(2);
  for (i in 1:4) s[i] ~ dirichlet([1.0, 2.0, 3.0]');
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    pytest.importorskip("bridgestan", reason="bridgestan is not installed")
    folder = tmp_path_factory.mktemp("stan")

    def build(code, data=None):
        try:
            return from_stan(code, data, folder=folder)
        except (ModelError, OSError) as error:
            pytest.skip(f"BridgeStan cannot compile here: {str(error)[:300]}")

    return build


def test_bridgestan_eight_schools(compiled):
    with jax.enable_x64(True):
        model, z = compiled(EIGHT, {"J": 8, "y": jnp.asarray(Y), "sigma": SIGMA}), point(3, (20,))
        z = jax.tree.map(lambda a: a.astype(float), z)
        mine = jax.jit(jax.vmap(jax.value_and_grad(model.log_density)))(z)
        # Stan drops nothing here but the factor 2 of the half-Cauchy, which the program does not write either
        exact = jax.vmap(jax.value_and_grad(lambda z: log_joint(flat(z))))(z)
        np.testing.assert_allclose(mine[0], exact[0], rtol=1e-12)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), mine[1], exact[1])
        x = jax.vmap(model.constrain)(z)
        theta = jax.vmap(model.deterministics)(z)["theta"]
        np.testing.assert_allclose(theta, x["theta_trans"] * x["tau"][:, None] + x["mu"][:, None], rtol=1e-12)
        _, log_det = jax.vmap(model.unconstrain)(x)
        np.testing.assert_allclose(log_det, z["tau"], rtol=1e-9)
        draws = jax.vmap(lambda k: model.generate(k, jax.tree.map(lambda a: a[0], z)))(jr.split(jr.key(0), 500))
        assert abs(float((draws["y_rep"].mean() - z["mu"][0]) * 500**0.5)) < 4.9  # level 1e-6


def test_bridgestan_shapes_and_jacobians(compiled):
    """Constrained values satisfy their constraints; the Jacobian is that of `constrain`, by central differences."""
    with jax.enable_x64(True):
        model = compiled(SHAPES)
        assert {n: s.shape for n, s in model.latents.items()} == {
            "m": (3, 2), "s": (4, 2), "o": (3,), "b": (2, 2), "l": (3,)
        }  # fmt: skip
        z = {n: jr.normal(jr.key(i), s.shape) for i, (n, s) in enumerate(model.latents.items())}
        x = model.constrain(z)
        assert {n: v.shape for n, v in x.items()} == {"m": (3, 2), "s": (4, 3), "o": (3,), "b": (2, 2), "l": (3, 3)}
        np.testing.assert_allclose(x["m"], z["m"], rtol=1e-14)
        np.testing.assert_allclose(x["s"].sum(-1), 1.0, rtol=1e-12)
        assert (np.diff(x["o"]) > 0).all() and ((x["b"] > 1) & (x["b"] < 3)).all()
        np.testing.assert_allclose((x["l"] ** 2).sum(-1), 1.0, rtol=1e-12)
        back, log_det = model.unconstrain(x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9), back, z)
        lower = np.tril_indices(3, -1)  # coordinates of the constrained values, as many as z has
        free = lambda x: np.concatenate(
            [np.ravel(x["m"]), np.ravel(x["s"][:, :2]), x["o"], np.ravel(x["b"]), x["l"][lower]]
        )
        vector, unravel = jax.flatten_util.ravel_pytree(z)
        step = 1e-6 * np.eye(len(vector))
        jacobian = [
            (free(model.constrain(unravel(vector + e))) - free(model.constrain(unravel(vector - e)))) / 2e-6
            for e in step
        ]
        np.testing.assert_allclose(log_det, np.linalg.slogdet(np.array(jacobian))[1], rtol=1e-5)


def test_bridgestan_fit(compiled):
    model = compiled(EIGHT, {"J": 8, "y": Y, "sigma": SIGMA})
    fit = jn.fit(model, family="full-rank", n_steps=1500, optimizer=0.02, n_draws=1000)
    assert abs(fit.sample(4000)["mu"].mean() - 4.4) < 0.8


@pytest.mark.parametrize("name", ["eight_schools-eight_schools_noncentered", "hmm_example-hmm_example"])
def test_bridgestan_agrees_with_reference_draws(compiled, name):
    """E[gradient] = 0 and E[(u - mean) gradient] = -1 over the reference draws, in every coordinate: |z| < 5."""
    if not os.environ.get("JENSEN_DATA"):
        pytest.skip("JENSEN_DATA is not set")
    from jensen.data.posteriordb import load_posteriordb

    posterior = load_posteriordb(name, Path(os.environ["JENSEN_DATA"]) / "posteriordb")
    with jax.enable_x64(True):
        model = compiled(posterior.stan_code, posterior.data)
        draws = {n: a[::10] for n, a in posterior.draws.items()}
        if "theta" in draws and "eight" in name:
            draws["theta_trans"] = (draws["theta"] - draws["mu"][:, None]) / draws["tau"][:, None]
        z, _ = jax.vmap(model.unconstrain)(draws)
        slope = jax.jit(jax.vmap(jax.grad(model.log_density)))(z)
        flatten = lambda t: np.concatenate([np.asarray(a).reshape(len(a), -1) for a in jax.tree.leaves(t)], 1)
        u, g = flatten(z), flatten(slope)
        for terms in (g, (u - u.mean(0)) * g + 1):
            assert np.abs(terms.mean(0) / terms.std(0) * len(terms) ** 0.5).max() < 5
        wrong = (u - u.mean(0)) * 2 * g + 1  # the density squared: the test sees it
        assert np.abs(wrong.mean(0) / wrong.std(0) * len(wrong) ** 0.5).max() > 5
