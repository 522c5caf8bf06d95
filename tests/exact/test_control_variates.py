"""What theory promises of control variates, on small models whose every moment is a finite sum.

Variances are compared with their exact values (or with one another) at a stated error level; each test has a control
that must fail.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.stats import norm

from jensen import families, gradients, models, objectives
from jensen.batch import Batch
from jensen.gradients.base import Bound, Parts, value_and_grad
from jensen.gradients.plans import IID
from jensen.models.latent_variable import LatentVariable

LEVEL = 1e-4
N = 40_000


class Points:
    """A log density of two bits, and everything about it."""

    states = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    values = np.array([0.3, -1.1, 0.8, 2.0])
    logits = np.array([0.4, -0.7])

    def log_p(self, b):
        return jnp.asarray(self.values)[(2 * b[0] + b[1]).astype(int)]


def samples(parts, objective, batch, carry, k, n=N, seed=0):
    """Gradients of the loss in q's parameters, (n, P)."""

    def one(key):
        e = value_and_grad(key, parts, objective, IID(), batch, carry, n_samples=k)
        return ravel_pytree(e.grads.family)[0], e.carry

    return jax.jit(jax.vmap(one))(jr.split(jr.key(seed), n))


def bits(estimator, k, carry=None, n=N):
    p = Points()
    parts = Parts(models.LogDensity(p.log_p, (2,)), families.Bernoulli(p.logits), estimator)
    # what is sampled is f alone: the entropy is added in closed form
    bound = Bound.make(parts.model, parts.family, objectives.ELBO("entropy"), Batch(None))
    carry = estimator.init(bound) if carry is None else carry
    g, carries = samples(parts, objectives.ELBO("entropy"), Batch(None), carry, k, n)
    return np.asarray(g, np.float64), carries


def exact():
    """q(b), f(b) and the scores (4, 2)."""
    p = Points()
    on = 1 / (1 + np.exp(-p.logits))
    q = np.prod(np.where(p.states > 0, on, 1 - on), 1)
    return q, p.values, p.states - on


def variance_within(x, expected):
    """|z| of the sample variance of each column against its expected value, from the fourth moment."""
    centred = (x - x.mean(0)) ** 2
    return np.abs(centred.mean(0) - expected) / (centred.std(0) / len(x) ** 0.5)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("controls", ["none", "regression", "full-regression"])
def test_the_variance_of_the_regression_estimator(controls, k):
    """Var (1 - R^2) / K, R the multiple correlation of f s with the controls: no control, the own score, all scores."""
    q, f, s = exact()
    mean = lambda a: np.tensordot(q, a, 1)
    target = f[:, None] * s
    var = mean(target**2) - mean(target) ** 2
    gram, cross = mean(s[:, :, None] * s[:, None]), mean(target[:, :, None] * s[:, None])
    if controls == "none":
        carry, r2 = (), np.zeros(2)
    elif controls == "regression":
        own, square = np.diag(cross), np.diag(gram)
        r2 = own**2 / square / var
        carry = tuple(families.Bernoulli(a) for a in (own, square))
    else:
        r2 = np.diag(cross @ np.linalg.solve(gram, cross.T)) / var
        carry = tuple(jnp.asarray(a, jnp.float32) for a in (cross.T, gram))
    g, _ = bits(gradients.ScoreFunction(controls), k, carry)
    limit = norm.isf(LEVEL / 4)
    assert (variance_within(g, var * (1 - r2) / k) < limit).all()
    if controls != "none":
        assert (variance_within(g, var / k) > limit).any()  # the control variate does act


def test_the_running_moments_find_the_coefficients():
    g0, _ = bits(gradients.ScoreFunction("none"), 4, n=4000)
    estimator = gradients.ScoreFunction("full-regression")
    _, carries = bits(estimator, 4, n=4000)
    late = jax.tree.map(lambda a: a[:2000].mean(0), carries)
    g1, _ = bits(estimator, 4, late, n=4000)
    assert (g1.var(0) < 0.9 * g0.var(0)).all()


def _belief_net():
    model = LatentVariable.belief_net(jr.key(1), (3, 3), (4,))
    q = families.Amortised(families.Layers(("h1", "h2")), hidden=()).bind(model.latents, jnp.zeros((2, 4)), jr.key(2))
    return model, q, Batch(jnp.array([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]]), jnp.ones(2))


def _total_variance(estimator, k, n=8000):
    model, q, batch = _belief_net()
    parts = Parts(model, q, estimator.bind(model.latents, batch.rows, jr.key(3)))
    carry = parts.estimator.init(Bound.make(model, q, objectives.ELBO(), batch))
    g = np.asarray(samples(parts, objectives.ELBO(), batch, carry, k, n)[0], np.float64)
    each = ((g - g.mean(0)) ** 2).sum(1)
    return each.mean(), each.std() / n**0.5


def _is_below(a, b):
    """One-sided test that the variance of a is above that of b fails to reject at LEVEL."""
    return (a[0] - b[0]) / np.hypot(a[1], b[1]) < norm.isf(LEVEL)


def test_local_signals_have_less_variance_than_the_whole_one():
    local, whole = _total_variance(gradients.RaoBlackwell(), 3), _total_variance(gradients.LeaveOneOut(), 3)
    assert _is_below(local, whole)
    assert not _is_below(whole, local)


def test_control_variates_beat_plain_reinforce():
    plain = _total_variance(gradients.ScoreFunction("none"), 3)
    for better in (gradients.MuProp(), gradients.LeaveOneOut()):
        assert _is_below(_total_variance(better, 3), plain)
        assert not _is_below(plain, _total_variance(better, 3))
