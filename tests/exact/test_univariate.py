"""Laws by name: density, moments, path and weak derivatives against SciPy's law of the same name.

Statistical tests: |z| < 5.2 for each of about 80 numbers.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as st
from jax.flatten_util import ravel_pytree
from sampled import FAST, Z_MAX, samples, z_scores
from scipy.integrate import quad

from jensen import gradients
from jensen.errors import IncompatibleComposition, OptionError
from jensen.facts import Fact
from jensen.families import Univariate
from jensen.families.univariate import KINDS
from jensen.families.von_mises import on_path
from jensen.gradients import plans
from jensen.judge import Composition, check
from jensen.models import LogDensity
from jensen.objectives import ELBO
from jensen.tree import split_trainable


def _wiggle(z):
    return jnp.sin(1.3 * z).sum() + 0.2 * jnp.cos(0.7 * z).sum()


_SCIPY: dict[str, Any] = {
    "Beta": lambda p: st.beta(p["concentration1"], p["concentration0"]),
    "Cauchy": lambda p: st.cauchy(p["loc"], p["scale"]),
    "Chi2": lambda p: st.chi2(p["df"]),
    "Dirichlet": lambda p: st.beta(*p["concentration"]),
    "Exponential": lambda p: st.expon(scale=1 / p["rate"]),
    "Gamma": lambda p: st.gamma(p["concentration"], scale=1 / p["rate"]),
    "Gumbel": lambda p: st.gumbel_r(p["loc"], p["scale"]),
    "HalfCauchy": lambda p: st.halfcauchy(scale=p["scale"]),
    "HalfNormal": lambda p: st.halfnorm(scale=p["scale"]),
    "InverseGamma": lambda p: st.invgamma(p["concentration"], scale=p["rate"]),
    "Kumaraswamy": lambda p: _Kumaraswamy(p["concentration1"], p["concentration0"]),
    "Laplace": lambda p: st.laplace(p["loc"], p["scale"]),
    "LogNormal": lambda p: st.lognorm(p["scale"], scale=np.exp(p["loc"])),
    "Logistic": lambda p: st.logistic(p["loc"], p["scale"]),
    "Normal": lambda p: st.norm(p["loc"], p["scale"]),
    "Poisson": lambda p: st.poisson(p["rate"]),
    "StudentT": lambda p: st.t(p["df"], p["loc"], p["scale"]),
    "VonMises": lambda p: _VonMises(p["loc"], p["concentration"]),
    "Weibull": lambda p: st.weibull_min(p["concentration"], scale=p["scale"]),
}


class _Kumaraswamy:
    def __init__(self, a, b):
        self.a, self.b = a, b

    def ppf(self, u):
        return (1 - (1 - u) ** (1 / self.b)) ** (1 / self.a)

    def pdf(self, z):
        return self.a * self.b * z ** (self.a - 1) * (1 - z**self.a) ** (self.b - 1)


class _VonMises:
    def __init__(self, loc, k):
        self.law, self.loc = st.vonmises(k), loc

    def ppf(self, u):
        return (self.law.ppf(u) + self.loc + np.pi) % (2 * np.pi) - np.pi

    def pdf(self, z):
        return self.law.pdf(z - self.loc)


def _law(name: str) -> Univariate:
    """Off its starting values; a Dirichlet has two parts."""
    q = Univariate(name, (2,) if name == "Dirichlet" else (1,), periodic=name == "VonMises")
    shift = lambda a: a + 0.25 * jnp.arange(1.0, a.size + 1)
    return eqx.tree_at(lambda q: q.raw, q, {k: shift(v) for k, v in q.raw.items()})


def _mean_of(q: Univariate, fn: Any) -> float:
    """E f(z_1) by SciPy: a sum of counts, or the midpoint rule under a map of the uniform that is flat at both ends."""
    p = {k: np.asarray(v) for k, v in q.parameters.items()}
    law = _SCIPY[q.name]({k: v if q.name == "Dirichlet" else v[0] for k, v in p.items()})
    if q.name == "Poisson":
        z = np.arange(60.0)
        return float((law.pmf(z) * fn(z)).sum())
    if q.name == "VonMises":
        return quad(lambda z: law.pdf(z) * fn(z), -np.pi, np.pi, epsabs=1e-11)[0]
    t = (np.arange(4000) + 0.5) / 4000
    u, slope = t**3 * (10 - 15 * t + 6 * t**2), 30 * t**2 * (1 - t) ** 2
    inside = (u > 0) & (u < 1)
    return float((fn(law.ppf(u[inside])) * slope[inside]).mean() * inside.mean())


def _exact_gradient(q: Univariate, fn: Any) -> np.ndarray:
    """Central differences in the unconstrained parameters."""
    flat, unravel = ravel_pytree(q.raw)
    move = lambda v: _mean_of(eqx.tree_at(lambda q: q.raw, q, unravel(v)), fn)
    return np.array([(move(flat.at[i].add(1e-4)) - move(flat.at[i].add(-1e-4))) / 2e-4 for i in range(flat.size)])


def _of_first(name):
    """(f of the latent in JAX, f of one number in NumPy); of an angle with period 2 pi."""
    if name == "VonMises":
        return lambda z: jnp.sin(z[0]) + 0.5 * jnp.cos(2 * z[0]), lambda z: np.sin(z) + 0.5 * np.cos(2 * z)
    return lambda z: _wiggle(z[0]), lambda z: np.sin(1.3 * z) + 0.2 * np.cos(0.7 * z)


_PATHS = [n for n in KINDS if KINDS[n].path or n == "VonMises"]


@pytest.mark.parametrize("name", _PATHS)
def test_the_path_gradient_of_every_law(name):
    """Against SciPy's law: E f, and its gradient in the unconstrained parameters."""
    q = _law(name)
    assert Fact.REPARAMETERISED in q.facts
    fn, plain = _of_first(name)
    params, rest = split_trainable(q)
    both = lambda e: jax.value_and_grad(lambda p: fn(eqx.combine(p, rest).transform(e)))(params)
    draw = lambda e: (lambda v, g: jnp.append(v, ravel_pytree(g)[0]))(*both(e))
    found = np.asarray(jax.jit(jax.vmap(draw), compiler_options=FAST)(q.noise(jr.key(1), (20_000,))))
    exact = np.append(_mean_of(q, plain), _exact_gradient(q, plain))
    assert z_scores(found, exact).max() < Z_MAX


@pytest.mark.parametrize("name", ["Poisson", "Exponential", "Gamma"])
def test_the_weak_derivative_of_a_law(name):
    q = _law(name)
    fn, plain = _of_first(name)
    assert z_scores(samples(gradients.MeasureValued(), q, fn), _exact_gradient(q, plain)).max() < Z_MAX


@pytest.mark.parametrize("name", ["Gamma", "Beta"])
def test_the_standardised_path_of_a_law(name, monkeypatch):
    """And the path alone, without the term for the law of the standardised noise, fails."""
    q = _law(name)
    fn, plain = _of_first(name)
    exact = _exact_gradient(q, plain)
    found = samples(gradients.GeneralisedPathwise(), q, fn, k=2)
    assert z_scores(found, exact).max() < Z_MAX
    signal = gradients.LeaveOneOut.signal
    monkeypatch.setattr(gradients.LeaveOneOut, "signal", lambda self, *a: 0 * signal(self, *a))
    assert z_scores(samples(gradients.GeneralisedPathwise(), q, fn, k=2), exact).max() > Z_MAX


# ---- laws by name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_density_moments_and_entropy_are_scipys(name):
    q = _law(name)
    p = {k: np.asarray(v) for k, v in q.parameters.items()}
    law = _SCIPY[name]({k: v if name == "Dirichlet" else v[0] for k, v in p.items()})
    z = np.array([1.0, 3.0]) if name == "Poisson" else np.asarray(law.ppf(np.array([0.2, 0.7])))
    as_draw = (lambda a: jnp.array([a, 1 - a])) if name == "Dirichlet" else (lambda a: jnp.array([a]))
    exact = law.logpmf(z) if name == "Poisson" else np.log(law.pdf(z))
    np.testing.assert_allclose([q.log_prob(as_draw(a)) for a in z], exact, rtol=1e-9)
    scipys = hasattr(law, "var")
    if Fact.MOMENTS in q.facts and scipys:
        mean, variance = q.moments()
        np.testing.assert_allclose([mean[0], variance[0]], [law.mean(), law.var()], rtol=1e-9)
    if Fact.ENTROPY in q.facts and scipys:
        np.testing.assert_allclose(q.entropy(), law.entropy(), rtol=1e-9)


@pytest.mark.parametrize("k", [1e-3, 0.5, 4.0, 300.0, 1e5])
def test_the_slope_of_an_angle(k):
    """Against -(dF/dk) / p by integrating dp/dk from the nearer end."""
    x = np.linspace(-3, 3, 13) if k < 10 else np.linspace(-4, 4, 13) / k**0.5
    slope = jax.vmap(jax.grad(on_path, 1), (0, None))(x, jnp.asarray(k))
    mean = float(jax.scipy.special.i1e(k) / jax.scipy.special.i0e(k))
    ratio = lambda t, a: np.exp(k * (np.cos(t) - np.cos(a))) * (np.cos(t) - mean)
    exact = [-quad(ratio, 0, a, args=(a,), epsabs=1e-12, epsrel=1e-9)[0] for a in x]
    np.testing.assert_allclose(slope, exact, rtol=1e-6, atol=1e-9)


def test_an_angle_has_a_path_only_for_a_periodic_density():
    assert Fact.REPARAMETERISED not in Univariate("von-mises").facts
    assert Fact.REPARAMETERISED in Univariate("von-mises", periodic=True).facts


def test_draws_stay_inside_the_support_in_single_precision():
    with jax.enable_x64(False):
        for name, start in (
            ("gamma", {"concentration": 0.01}),
            ("beta", {"concentration1": 0.01, "concentration0": 0.01}),
        ):
            q = Univariate(name, (3,), **start)
            assert bool(
                jnp.isfinite(jax.jit(jax.vmap(lambda k, q=q: q.log_prob(q.sample(k))))(jr.split(jr.key(2), 500))).all()
            )


def test_refusals_of_laws():
    with pytest.raises(OptionError, match="it is unknown"):
        Univariate("gama")
    with pytest.raises(OptionError, match="there is no parameter"):
        Univariate("gamma", (2,), scale=1.0)
    with pytest.raises(OptionError, match="out of range"):
        Univariate("gamma", (2,), rate=-1.0)
    with pytest.raises(OptionError, match="not the law of an angle"):
        Univariate("gamma", periodic=True)
    assert Univariate("Student-T", (2,)).name == "StudentT"
    with pytest.raises(IncompatibleComposition, match="differentiable in the parameters"):
        check(Composition(LogDensity(_wiggle, (1,)), _law("Poisson"), ELBO(), gradients.Pathwise(), plans.IID()))
    with pytest.raises(IncompatibleComposition, match="independent normals and uniforms"):
        check(
            Composition(LogDensity(_wiggle, (1,)), _law("Gamma"), ELBO(), gradients.Pathwise(), plans.Antithetic(), 2)
        )
