"""Estimators that compare draws, weak derivatives and the Taylor control variate, against numbers known exactly.

Statistical tests: |z| < 5.2 for each of about 80 numbers; controls must fail.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from jax.flatten_util import ravel_pytree
from sampled import Z_MAX, samples, z_scores

from jensen import gradients
from jensen.errors import IncompatibleComposition, ModelError
from jensen.facts import Fact
from jensen.families import Bernoulli, Categorical, Layers, MeanField, Product, Univariate
from jensen.gradients import plans
from jensen.gradients.arm import AbstractReflected
from jensen.judge import Composition, check
from jensen.models import LogDensity
from jensen.objectives import ELBO, IWAE

# ---- reflections and swaps ------------------------------------------------------------------------------------------


def _toy(t):
    return lambda b: ((b - t) ** 2).sum()


@pytest.mark.parametrize("estimator", [gradients.ARM(), gradients.DisARM()], ids=lambda e: type(e).__name__)
def test_the_toy_problem(estimator):
    """d/da E (b - t)^2 = p (1 - p) (1 - 2 t)."""
    a, t = jnp.array([0.3, -1.1]), 0.49
    p = jax.nn.sigmoid(a)
    assert z_scores(samples(estimator, Bernoulli(a), _toy(t)), p * (1 - p) * (1 - 2 * t)).max() < Z_MAX


class WithoutSigmoid(AbstractReflected):
    """A control: DisARM that forgets sigmoid(|a|)."""

    requires: ClassVar = ()
    min_samples: ClassVar = 1
    unbiased: ClassVar = False
    role: ClassVar = None
    same_law: ClassVar = True

    def coefficient(self, u, logits, b, partner):
        return 0.5 * (b - partner)


def test_a_wrong_coefficient_fails():
    a, t = jnp.array([0.3, -1.1]), 0.2
    p = jax.nn.sigmoid(a)
    assert z_scores(samples(WithoutSigmoid(), Bernoulli(a), _toy(t)), p * (1 - p) * (1 - 2 * t)).max() > 2 * Z_MAX


def _bumps(b):
    v = ravel_pytree(b)[0]
    return jnp.sin(2.0 * v @ jnp.arange(1.0, v.size + 1)) + 0.7 * v.prod() - 0.3 * v.sum()


@pytest.mark.parametrize("q", [Bernoulli([0.4, -0.8, 1.5]), Layers({"a": 2, "b": 2})], ids=["one layer", "two layers"])
def test_disarm_varies_less_than_arm(q):
    """Paired by their noise: E g_ARM^2 - E g_DisARM^2 > 0 (the means are equal), at z > 5.2 in one-layer q."""
    q = jax.tree.map(lambda a: a + 0.3 if eqx.is_inexact_array(a) else a, q)
    arm, disarm = (samples(e, q, _bumps) for e in (gradients.ARM(), gradients.DisARM()))
    gain = (arm**2).sum(1) - (disarm**2).sum(1)
    assert gain.mean() > Z_MAX * gain.std() / len(gain) ** 0.5


@pytest.mark.parametrize("objective", [ELBO(), IWAE()], ids=["ELBO", "IWAE"])
@pytest.mark.parametrize(
    ("estimator", "q"),
    [
        (gradients.DisARM(), Layers({"a": 2, "b": 1})),
        (gradients.ARSM(), Categorical([[0.3, -0.5, 0.1], [1.0, 0.0, -0.7]])),
        (gradients.MeasureValued(), Categorical([[0.3, -0.5, 0.1], [1.0, 0.0, -0.7]])),
        (gradients.ARSM(), Categorical([0.4, -0.9])),
    ],
    ids=["DisARM Layers", "ARSM 2x3", "MeasureValued 2x3", "ARSM 2"],
)
def test_against_enumeration(estimator, q, objective):
    k = 1 if Fact.LINEAR in objective.facts else 2
    exact = samples(gradients.Enumerate(), q, _bumps, 1, k=k, objective=objective)[0]
    assert z_scores(samples(estimator, q, _bumps, 10_000, k=k, objective=objective), exact).max() < Z_MAX


def test_a_swap_race_has_less_variance_than_the_score():
    q = Categorical([[0.3, -0.5, 0.1], [1.0, 0.0, -0.7]])
    ours, score = (samples(e, q, _bumps, 5000, k=1) for e in (gradients.ARSM(), gradients.ScoreFunction("none")))
    assert ours.var(0).sum() < 0.7 * score.var(0).sum()


def test_pairs_want_independent_draws():
    c = Composition(LogDensity(_bumps, (2,)), Bernoulli([0.0, 1.0]), ELBO(), gradients.ARM(), plans.Antithetic(), 2)
    for estimator in (gradients.ARM(), gradients.DisARM()):
        with pytest.raises(IncompatibleComposition, match="partner of its own"):
            check(c._replace(gradient=estimator))
    check(c._replace(plan=plans.IID()))


# ---- weak derivatives -----------------------------------------------------------------------------------------------


def test_one_bernoulli_is_exact():
    q, fn = Bernoulli([0.7]), _toy(0.3)
    p = jax.nn.sigmoid(0.7)
    np.testing.assert_allclose(samples(gradients.MeasureValued(), q, fn, 50), p * (1 - p) * 0.4, atol=1e-12)


def test_a_step_has_a_weak_derivative():
    """f = 1[z_1 > c] + 1[z_2 < c]: no gradient in z.

    d P(z > c) = phi(r) (d mu / sigma + r d log sigma), r = (c - mu) / sigma.
    """
    q, c = MeanField(loc=jnp.array([0.2, -0.4]), scale=0.8), 0.5
    r = (c - np.array([0.2, -0.4])) / 0.8
    sign = np.array([1.0, -1.0])
    exact = np.concatenate([sign * st.norm.pdf(r) / 0.8, sign * st.norm.pdf(r) * r])
    fn = lambda z: (z[0] > c) * 1.0 + (z[1] < c)
    assert z_scores(samples(gradients.MeasureValued(), q, fn), exact).max() < Z_MAX


def test_weak_derivatives_of_many_coordinates():
    """E z_d^2 = a (a + 1) / rate^2, and E of a product, in closed form."""
    a, b = jnp.array([0.6, 2.5]), jnp.array([1.4, 0.8])
    mean = lambda raw: (
        (a_ := jnp.exp(raw[:2]), b_ := jnp.exp(raw[2:])) and ((a_ * (a_ + 1) / b_**2).sum() + (a_ / b_).prod())
    )
    exact = jax.grad(mean)(jnp.log(jnp.concatenate([a, b])))
    q = Univariate("gamma", concentration=a, rate=b)
    assert z_scores(samples(gradients.MeasureValued(), q, lambda z: (z**2).sum() + z.prod()), exact).max() < Z_MAX


def test_a_weak_derivative_with_one_half_forgotten_fails(monkeypatch):
    q = MeanField(loc=jnp.array([-0.5]), scale=0.8)
    right = MeanField.weak_derivatives

    def wrong(self, draw, noise):
        others, weights = right(self, draw, noise)
        return others, weights * jnp.array([1.0, 0.0, 1.0])

    exact = np.array([2 * -0.5, 2 * 0.8**2])  # of E z^2
    assert z_scores(samples(gradients.MeasureValued(), q, lambda z: (z**2).sum()), exact).max() < Z_MAX
    monkeypatch.setattr(MeanField, "weak_derivatives", wrong)
    assert z_scores(samples(gradients.MeasureValued(), q, lambda z: (z**2).sum()), exact).max() > 2 * Z_MAX


# ---- the Taylor control variate -------------------------------------------------------------------------------------


def _logistic(z):
    x = jnp.sin(jnp.arange(60.0)).reshape(20, 3)
    y = (jnp.cos(jnp.arange(20.0)) > 0) * 1.0
    score = x @ z
    return (y * score - jax.nn.softplus(score)).sum() - 0.5 * z @ z


def test_a_quadratic_leaves_no_variance():
    h = jnp.array([[2.0, 0.9, -0.3], [0.9, 1.5, 0.2], [-0.3, 0.2, 1.0]])
    q = MeanField(loc=jnp.array([0.5, -0.2, 0.1]), scale=0.7)
    found = samples(gradients.TaylorControl(), q, lambda z: -0.5 * z @ h @ z + z.sum(), 20)
    exact = jnp.concatenate([1 - h @ q.loc, -jnp.diag(h) * 0.49])
    np.testing.assert_allclose(found, np.broadcast_to(exact, found.shape), atol=1e-10)
    products = samples(gradients.TaylorControl("products"), q, lambda z: -0.5 * z @ h @ z + z.sum(), 20)
    np.testing.assert_allclose(products[:, :3], np.broadcast_to(exact[:3], (20, 3)), atol=1e-10)


def test_the_taylor_control_takes_variance_away():
    """Logistic regression, q of about the posterior's width: both are unbiased, and the variance falls twentyfold."""
    q = MeanField(loc=jnp.array([0.3, -0.4, 0.2]), scale=0.35)
    runs = {
        n: samples(e, q, _logistic, 5000)
        for n, e in (
            ("path", gradients.Pathwise()),
            ("full", gradients.TaylorControl()),
            ("products", gradients.TaylorControl("products")),
        )
    }
    both = np.concatenate([runs["path"], -runs["full"]])
    gap = np.abs(runs["path"].mean(0) - runs["full"].mean(0)) / np.sqrt(
        (runs["path"].var(0) + runs["full"].var(0)) / 5000
    )
    assert np.isfinite(both).all() and gap.max() < Z_MAX
    loc, scale = slice(0, 3), slice(3, 6)
    variance = {n: np.array([r[:, loc].var(0).sum(), r[:, scale].var(0).sum()]) for n, r in runs.items()}
    assert (variance["full"] < 0.05 * variance["path"]).all()
    assert variance["products"][0] < 0.05 * variance["path"][0] and variance["products"][1] < variance["path"][1]


# ---- enumeration of some sites --------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [gradients.LeaveOneOut(), gradients.Enumerate()], ids=["score", "enumerate"])
def test_some_sites_enumerated(other):
    q = Product({"k": Categorical([0.3, -0.5, 0.1]), "b": Bernoulli([0.4, -1.0])})
    sitewise = gradients.Sitewise({"k": other, "b": gradients.Enumerate()})
    exact = samples(gradients.Enumerate(), q, _bumps, 1, objective=ELBO())[0]
    found = samples(sitewise, q, _bumps, 5000, k=max(1, other.min_samples), objective=ELBO())
    if isinstance(other, gradients.Enumerate):
        np.testing.assert_allclose(found, np.broadcast_to(exact, found.shape), atol=1e-12)
    else:
        assert z_scores(found, exact).max() < Z_MAX
        plain = gradients.Sitewise({"k": other, "b": gradients.LeaveOneOut()})
        assert found.var(0).sum() < 0.5 * samples(plain, q, _bumps, 5000, k=2, objective=ELBO()).var(0).sum()


def test_too_many_states_and_a_nonlinear_objective_are_refused():
    sites = {"b": Bernoulli(jnp.zeros(9)), "c": Bernoulli(jnp.zeros(9)), "w": MeanField((1,))}
    method = gradients.Sitewise({"b": gradients.Enumerate(), "c": gradients.Enumerate(), "w": gradients.Pathwise()})
    with pytest.raises(ModelError, match="more than 65536"):
        samples(method, Product(sites), _bumps, 1)
    model = LogDensity(_bumps, {"b": (9,), "c": (9,), "w": (1,)})
    with pytest.raises(IncompatibleComposition, match="linear in the log-weights"):
        check(Composition(model, Product(sites), IWAE(), method, plans.IID(), 2))
