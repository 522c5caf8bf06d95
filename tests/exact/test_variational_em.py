"""Variational EM: each half leaves the other alone, and with a q that can be exact it ends at maximum likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.decomposition import PCA

import jensen as jn
from jensen.algorithms import VariationalEM
from jensen.algorithms.descent import Optimiser
from jensen.batch import Batch
from jensen.gradients import Pathwise, plans
from jensen.gradients.base import Parts
from jensen.objectives import ELBO


def linear(seed=0):
    """Two latents, five columns, one noise scale each: factor analysis of rows with equal noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(300, 5))
    model = jn.models.LatentVariable.mlp(jax.random.key(1), 2, (5,), hidden=(), likelihood="gaussian")
    return model, x - x.mean(0)


def leaves(tree):
    return [np.asarray(a) for a in jax.tree.leaves(tree)]


def same(a, b):
    return all(np.array_equal(u, v) for u, v in zip(leaves(a), leaves(b), strict=True))


@pytest.mark.parametrize("adam", [False, True], ids=["plain", "with momentum"])
def test_each_half_leaves_the_other_alone(adam):
    model, x = linear()
    family = jn.families.Amortised(jn.families.MeanField(), hidden=(4,))
    bound = jn.fit(model, x, family=family, n_steps=1, n_draws=64, progress=False).family
    optimiser = Optimiser(optax.adam(0.01) if adam else optax.sgd(1e-6))
    algorithm = VariationalEM(Parts(model, bound, Pathwise()), ELBO(), plans.IID(), optimiser, 1, e_steps=3, m_steps=2)
    batch = Batch(jnp.asarray(x))
    state = algorithm.init(jax.random.key(0), batch)
    moved = []
    for i in range(10):
        before = algorithm.parameters(state)
        state, _ = algorithm.step(algorithm.noise(jax.random.key(i), batch), state, batch, jnp.ones(()))
        after = algorithm.parameters(state)
        moved.append((not same(before.family, after.family), not same(before.model, after.model)))
    assert moved == 2 * (3 * [(True, False)] + 2 * [(False, True)])


def test_an_exact_e_step_ends_at_maximum_likelihood():
    """A Gaussian q for each row holds the posterior of a linear model: the bound reaches the likelihood at its maximum."""
    model, x = linear()
    q = jn.families.Amortised(jn.families.FullRank(), hidden=())
    fit = jn.fit(
        model, x, family=q, method=jn.methods.VariationalEM(3, 3), optimizer=0.02, n_steps=4000, batch_size=None,
        progress=False,
    )  # fmt: skip
    best = PCA(2).fit(x).score(x) * len(x)
    assert best - 0.05 * len(x) < fit.history[-500:].mean() < best + 0.05 * len(x)
    assert fit.options["steps"] == "VariationalEM(e_steps=3, m_steps=3)"


def test_discrete_latents_and_names():
    """Any family and estimator is the E-step: two bits, enumerated."""
    _, x = linear()
    prior = jn.families.Bernoulli(jnp.zeros(2))
    decoder = jn.models.LatentVariable(prior, jn.nets.MLP(jax.random.key(0), 2, (), 5), "gaussian", shape=(5,))
    fit = jn.fit(decoder, x, method="variational-em", optimizer=0.02, n_steps=400, n_draws=200, progress=False)
    assert fit.history[-20:].mean() > fit.history[:20].mean() + 100


def test_refusals():
    density = jn.models.LogDensity(lambda z: -0.5 * (z**2).sum(), (2,))
    with pytest.raises(jn.IncompatibleComposition, match="no M-step"):
        jn.fit(density, method="variational-em")
    model, x = linear()
    with pytest.raises(jn.OptionError, match="e_steps=0"):
        jn.fit(model, x, method=jn.methods.VariationalEM(e_steps=0), progress=False)
