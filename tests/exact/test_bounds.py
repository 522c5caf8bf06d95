"""Bounds against the evidence where it is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.scipy.special import logsumexp

from jensen.batch import Batch
from jensen.families import Bernoulli, Categorical, FullRank, MeanField
from jensen.gradients import DoublyReparameterised, Enumerate, LeaveOneOut, Pathwise, ScoreFunction, plans
from jensen.gradients.base import Bound, Parts, value_and_grad
from jensen.models import LogDensity
from jensen.objectives import CUBO, ELBO, IWAE, Renyi

X = np.array([0.3, -1.2, 2.0])
LIKELIHOOD_SD = 0.8


def normal_normal():
    """z ~ N(0, 1), x_i ~ N(z, sd^2): the model, log p(x), and the posterior as a family."""
    log_normal = lambda x, m, s: -0.5 * ((x - m) / s) ** 2 - jnp.log(s) - 0.5 * jnp.log(2 * jnp.pi)
    log_joint = lambda z: log_normal(z[0], 0.0, 1.0) + log_normal(X, z[0], LIKELIHOOD_SD).sum()
    precision = 1 + len(X) / LIKELIHOOD_SD**2
    mean = X.sum() / LIKELIHOOD_SD**2 / precision
    posterior = MeanField((1,), loc=jnp.array([mean]), scale=precision**-0.5)
    covariance = LIKELIHOOD_SD**2 * np.eye(len(X)) + 1
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    evidence = -0.5 * X @ np.linalg.solve(covariance, X) - 0.5 * log_det
    return LogDensity(log_joint, (1,)), float(evidence), posterior


def estimate(model, q, objective, gradient, key, n_samples):
    carry = gradient.init(Bound.make(model, q, objective, Batch()))
    parts = Parts(model, q, gradient)
    return value_and_grad(key, parts, objective, plans.IID(), Batch(), carry, n_samples=n_samples)


OBJECTIVES = [ELBO(), IWAE(), Renyi(0.5), Renyi(1.0), Renyi(2.0), CUBO(2.0), CUBO(1.5)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_at_the_posterior_every_draw_gives_the_evidence_and_no_gradient(objective):
    model, evidence, posterior = normal_normal()
    one = jax.vmap(lambda key: estimate(model, posterior, objective, DoublyReparameterised(), key, 3))
    e = one(jr.split(jr.key(0), 100))
    np.testing.assert_allclose(e.value, evidence, atol=1e-9)
    np.testing.assert_allclose(ravel_pytree(e.grads.family)[0], 0, atol=1e-9)


@pytest.mark.parametrize("gradient", [Pathwise(), LeaveOneOut(), ScoreFunction("none")], ids=lambda g: type(g).__name__)
def test_every_estimator_gives_the_evidence_there(gradient):
    model, evidence, posterior = normal_normal()
    np.testing.assert_allclose(estimate(model, posterior, IWAE(), gradient, jr.key(0), 4).value, evidence, atol=1e-9)


def test_a_closed_form_entropy_changes_only_the_noise():
    model, evidence, posterior = normal_normal()
    values = jax.vmap(lambda k: estimate(model, posterior, ELBO("entropy"), Pathwise(), k, 1).value)(
        jr.split(jr.key(1), 20_000)
    )
    assert values.std() > 0.1
    assert abs(values.mean() - evidence) < 5 * values.std() / len(values) ** 0.5


def test_iwae_rises_with_the_draws_to_the_evidence():
    model, evidence, posterior = normal_normal()
    q = MeanField((1,), loc=posterior.loc + 0.3, scale=0.7)
    means, errors = [], []
    for k in (1, 4, 16, 64):
        values = jax.vmap(lambda key, k=k: estimate(model, q, IWAE(), Pathwise(), key, k).value)(
            jr.split(jr.key(k), 10_000)
        )
        means.append(float(values.mean()))
        errors.append(float(values.std()) / 100)
    assert all(b - a > 5 * (ea + eb) for a, b, ea, eb in zip(means, means[1:], errors, errors[1:], strict=False))
    assert -0.05 < means[-1] - evidence < 5 * errors[-1]


def log_weights():
    return jr.normal(jr.key(4), (7,)) * 2


@pytest.mark.parametrize(("one", "other"), [(Renyi(0.0), IWAE()), (Renyi(1.0), ELBO())], ids=["IWAE", "ELBO"])
def test_renyi_has_both_as_special_cases(one, other):
    l = log_weights()
    np.testing.assert_allclose(one.reduce(l), other.reduce(l), atol=1e-14)
    np.testing.assert_allclose(jax.grad(one.reduce)(l), jax.grad(other.reduce)(l), atol=1e-14)


def test_reductions_by_their_formulas():
    l = log_weights()
    w = np.exp(np.asarray(l))
    np.testing.assert_allclose(IWAE().reduce(l), np.log(w.mean()))
    np.testing.assert_allclose(Renyi(0.3).reduce(l), np.log((w**0.7).mean()) / 0.7)
    np.testing.assert_allclose(Renyi(2.5).reduce(l), np.log((w**-1.5).mean()) / -1.5)
    np.testing.assert_allclose(CUBO(3.0).reduce(l), np.log((w**3).mean()) / 3)
    assert Renyi(2.0).reduce(l) < ELBO().reduce(l) < Renyi(0.5).reduce(l) < IWAE().reduce(l) < CUBO().reduce(l)


def table_model():
    """Three binary latents with arbitrary log-joint."""
    theta = jr.normal(jr.key(5), (2, 2, 2))
    return LogDensity(lambda z: theta[tuple(z.astype(int))], (3,)), float(logsumexp(theta)), theta


def test_the_evidence_lies_between_the_bounds():
    model, evidence, _ = table_model()
    q = Bernoulli([0.5, -0.4, 0.9])
    states = q.support()
    p, log_q = jnp.exp(jax.vmap(q.log_prob)(states)), jax.vmap(q.log_prob)(states)
    log_w = jax.vmap(lambda z: model.log_density(z, Batch()))(states) - log_q
    elbo, cubo = (p * log_w).sum(), 0.5 * jnp.log((p * jnp.exp(2 * log_w)).sum())
    assert elbo < evidence < cubo
    np.testing.assert_allclose(estimate(model, q, ELBO(), Enumerate(), jr.key(0), 1).value, elbo, atol=1e-12)
    two = estimate(model, q, IWAE(), Enumerate(), jr.key(0), 2).value
    assert elbo < two < evidence


@pytest.mark.parametrize(
    "q", [Bernoulli([0.5, -0.4]), Categorical([0.2, -0.3, 1.0, 0.4])], ids=["Bernoulli", "Categorical"]
)
@pytest.mark.parametrize("objective", [ELBO(), IWAE(), CUBO()], ids=repr)
def test_enumeration_is_the_brute_force_sum(q, objective):
    """Written out in NumPy, with the gradient by central differences."""
    fn = lambda z: 0.7 * jnp.sin(3 * z[0]) + z[1] - 0.2 * z.sum() ** 2
    q = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), q)
    model, states = LogDensity(fn, q.logits.shape), np.asarray(q.support())
    log_p = np.array([fn(z) for z in states])

    def brute(logits):
        one = eqx.tree_at(lambda q: q.logits, q, jnp.asarray(logits))
        log_q = np.array([one.log_prob(z) for z in states])
        l = log_p - log_q
        pairs = [(i, j) for i in range(len(l)) for j in range(len(l))]
        return sum(np.exp(log_q[i] + log_q[j]) * float(objective.reduce(jnp.array([l[i], l[j]]))) for i, j in pairs)

    e = estimate(model, q, objective, Enumerate(), jr.key(0), 2)
    np.testing.assert_allclose(e.value, brute(q.logits), atol=1e-12)
    unit = np.eye(q.logits.size) * 1e-5
    slope = [(brute(q.logits + u) - brute(q.logits - u)) / 2e-5 for u in unit]
    np.testing.assert_allclose(-objective.sense * e.grads.family.logits, slope, atol=1e-8)


def test_full_rank_reaches_a_correlated_posterior_exactly():
    precision = jnp.array([[2.0, 0.9], [0.9, 1.0]])
    chol = np.linalg.cholesky(np.linalg.inv(precision))
    q = FullRank((2,))
    unit = chol / np.diag(chol)[:, None]
    q = eqx.tree_at(lambda q: (q.log_scale, q.lower), q, (jnp.log(np.diag(chol)), jnp.asarray(unit)))
    model = LogDensity(lambda z: -0.5 * z @ precision @ z, (2,))
    e = estimate(model, q, ELBO(), DoublyReparameterised(), jr.key(0), 1)
    np.testing.assert_allclose(e.value, 0.5 * np.linalg.slogdet(2 * np.pi * np.linalg.inv(precision))[1], atol=1e-12)
    np.testing.assert_allclose(ravel_pytree(e.grads.family)[0], 0, atol=1e-12)
