"""Mixtures: how they start, what they accept, and the implicit path gradient."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from members import grid

from jensen import ModelError, OptionError
from jensen.cell_models import generic
from jensen.facts import Fact
from jensen.families import Bernoulli, FullRank, MeanField, Mixture, RealNVP
from jensen.tree import split_trainable

SPEC = jax.ShapeDtypeStruct((2,), jnp.float64)


def test_components_given_are_used_as_they_are():
    parts = FullRank((2,), loc=jnp.array([1.0, 2.0])), FullRank((2,), loc=jnp.array([-1.0, 0.0]), scale=0.5)
    q = Mixture(parts, weights=(3, 7)).bind(SPEC, None, jr.key(0))
    np.testing.assert_allclose(jax.nn.softmax(q.logits), [0.3, 0.7])
    z = jnp.array([0.3, 0.9])
    exact = jnp.log(0.3 * jnp.exp(parts[0].log_prob(z)) + 0.7 * jnp.exp(parts[1].log_prob(z)))
    np.testing.assert_allclose(q.log_prob(z), exact)
    np.testing.assert_allclose(q.moments()[0], [-0.4, 0.6])


@pytest.mark.parametrize("component", [FullRank(), MeanField((2,)), Bernoulli()])
def test_unsized_components_start_apart(component):
    q = Mixture(n=4, component=component).bind(SPEC, None, jr.key(0))
    where = q.components.loc if Fact.REPARAMETERISED in q.facts else q.components.logits
    assert np.linalg.norm(where[:, None] - where[None], axis=-1)[np.triu_indices(4, 1)].min() > 0.1
    np.testing.assert_array_equal(q.logits, 0)


def test_what_it_promises():
    assert Fact.REPARAMETERISED in Mixture().facts
    assert Fact.ENTROPY not in Mixture().facts
    assert Fact.REPARAMETERISED not in Mixture(component=RealNVP()).facts
    assert Mixture(component=Bernoulli()).facts >= {Fact.ENUMERABLE, Fact.MOMENTS, Fact.LOG_PROB}


@pytest.mark.parametrize("component", [MeanField(scale=0.7), FullRank(scale=0.7)])
def test_the_implicit_path_gradient_is_that_of_the_mean(component):
    """Of a function in which every parameter matters, the weights too; |z| < 5.5 at level 1e-5 for some 20 numbers.
    Control: without the implicit term the weights have no gradient, and the test fails."""
    q = generic(Mixture(n=3, component=component).bind(SPEC, None, jr.key(3)))
    params, rest = split_trainable(q)
    fn = lambda z: jnp.sin(1.3 * z[0]) + z[1] ** 2 * jnp.cos(z[0]) + z[0] ** 2
    points, cell = grid(q)
    mean = lambda p: (jnp.exp(jax.vmap(eqx.combine(p, rest).log_prob)(points)) * jax.vmap(fn)(points)).sum() * cell
    exact = ravel_pytree(jax.jit(jax.grad(mean))(params))[0]
    path = lambda e: ravel_pytree(jax.grad(lambda p: fn(eqx.combine(p, rest).transform(e)))(params))[0]
    found = jax.jit(jax.vmap(path))(q.noise(jr.key(0), (40_000,)))
    z = lambda g: jnp.abs((g.mean(0) - exact) / (g.std(0) / 200 + 1e-10)).max()
    assert z(found) < 5.5
    assert z(found.at[:, : q.logits.size].set(0.0)) > 5.5


def test_a_component_far_away_gives_finite_gradients():
    """In single precision, where its responsibility is zero."""
    with jax.enable_x64(False):
        q = Mixture((FullRank((2,), loc=jnp.array([-50.0, 3.0])), FullRank((2,), loc=jnp.array([80.0, 0.0]))))
        params, rest = split_trainable(q)
        path = lambda e: jax.grad(lambda p: eqx.combine(p, rest).transform(e).sum())(params)
        grads = jax.jit(jax.vmap(path))(q.noise(jr.key(0), (2000,)))
        assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(grads))


def test_refusals():
    with pytest.raises(OptionError, match="no component"):
        Mixture(())
    with pytest.raises(OptionError, match="not 2 positive numbers"):
        Mixture(weights=(1.0, 0.0))
    with pytest.raises(OptionError, match="not 2 positive numbers"):
        Mixture(weights=(1.0, 1.0, 1.0))
    with pytest.raises(ModelError, match="FullRank, MeanField, of 2 kinds"):
        Mixture((FullRank((2,)), MeanField((2,))))
    with pytest.raises(ModelError, match="of 2 kinds"):
        Mixture((FullRank((2,)), FullRank((3,))))
    with pytest.raises(ModelError, match="the shapes differ"):
        Mixture((FullRank((2,)), FullRank((2,)))).bind(jax.ShapeDtypeStruct((3,), jnp.float64), None, jr.key(0))
