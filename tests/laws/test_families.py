"""Every fact a family declares is a promise; each is kept here."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from members import NAMES, expectation, members, moments, without_member

from jensen.facts import Fact
from jensen.families.noise import iid
from jensen.tree import split_trainable

Z_MAX = 5.5  # about 100 numbers at level 1e-5 each, two-sided


def having(fact):
    return [n for n in NAMES if fact in members()[n].q.facts]


@pytest.fixture(params=NAMES)
def member(request):
    return members()[request.param]


def test_every_exported_distribution_has_a_member():
    assert not without_member(), f"add a member in tests/laws/members.py: {without_member()}"


@pytest.mark.parametrize("name", [n for n in NAMES if n != "Product of normals"])
def test_the_density_integrates_to_one(name):
    member = members()[name]
    np.testing.assert_allclose(expectation(member.q, lambda z: 1.0), 1, atol=0.1 * member.accuracy)


@pytest.mark.parametrize("name", [n for n in NAMES if members()[n].twin is not None])
def test_log_prob_is_the_twins(name):
    q, twin, value, _ = members()[name]
    draws = jax.vmap(q.sample)(jr.split(jr.key(1), 50))
    np.testing.assert_allclose(
        jax.vmap(q.log_prob)(draws), jax.vmap(lambda z: twin.log_prob(value(z)))(draws), atol=1e-12
    )


@pytest.mark.parametrize("name", [n for n in NAMES if "Product" in n])
def test_a_product_adds_its_factors(name):
    q = members()[name].q
    draw = q.sample(jr.key(2))
    terms = [f.log_prob(draw[n] if isinstance(n, str) else {s: draw[s] for s in n}) for n, f in q.sites.items()]
    np.testing.assert_allclose(q.log_prob(draw), sum(terms), atol=1e-12)
    assert list(q.site_log_probs(draw)) == list(q.names)


def test_transform_and_log_ratio_are_transform_and_log_ratio(member):
    noise = member.q.noise(jr.key(3), (40,))
    draws, log_ratio = jax.vmap(member.q.transform_and_log_ratio)(noise)
    jax.tree.map(np.testing.assert_array_equal, draws, jax.vmap(member.q.transform)(noise))
    np.testing.assert_allclose(log_ratio, jax.vmap(member.q.log_ratio)(draws), atol=1e-11)
    np.testing.assert_allclose(jax.vmap(member.q.log_prob)(draws), jax.vmap(member.q.log_ratio)(draws), atol=1e-11)


def test_draws_have_the_density(member):
    """Mean and covariance of transform(noise), and E log q, against the exact ones."""
    q, n = member.q, 40_000
    draws = jax.jit(jax.vmap(lambda e: q.transform(e)))(q.noise(jr.key(4), (n,)))
    flat = jax.vmap(lambda z: ravel_pytree(z)[0])(draws)
    mean, variance = (ravel_pytree(m)[0] for m in moments(q))
    centred = (flat - mean) / jnp.sqrt(variance)
    se = 1 / n**0.5
    assert jnp.abs(centred.mean(0)).max() < Z_MAX * se
    second = centred**2
    assert jnp.abs((second.mean(0) - 1) / (second.std(0) + 1e-12)).max() < Z_MAX * se
    log_q = jax.jit(jax.vmap(lambda z: q.log_prob(z)))(draws)
    entropy = q.entropy() if Fact.ENTROPY in q.facts else -expectation(q, q.log_prob)
    assert abs(log_q.mean() + entropy) < Z_MAX * se * log_q.std() + member.accuracy


@pytest.mark.parametrize("name", having(Fact.ENTROPY))
def test_entropy_is_minus_the_mean_of_log_prob(name):
    q = members()[name].q
    if name == "Product of normals":
        np.testing.assert_allclose(q.entropy(), sum(f.entropy() for f in q.factors))
        return
    np.testing.assert_allclose(q.entropy(), -expectation(q, q.log_prob), atol=1e-9)


@pytest.mark.parametrize("name", [n for n in having(Fact.MOMENTS) if n != "Product of normals"])
def test_moments_are_those_of_the_density(name):
    q = members()[name].q
    mean, variance = q.moments()
    found = expectation(q, lambda z: z)
    spread = expectation(q, lambda z: jax.tree.map(lambda a, m: (a - m) ** 2, z, mean))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), found, mean)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), spread, variance)


@pytest.mark.parametrize("name", [n for n in having(Fact.ZERO_MEAN_SCORE) if n != "Product of normals"])
def test_the_score_of_log_ratio_has_mean_zero(name):
    q = members()[name].q
    params, rest = split_trainable(q)
    score = lambda z: ravel_pytree(jax.grad(lambda p: eqx.combine(p, rest).log_ratio(z))(params))[0]
    np.testing.assert_allclose(expectation(q, score), 0, atol=members()[name].accuracy)


@pytest.mark.parametrize("name", having(Fact.ENUMERABLE))
def test_the_support_is_every_draw_once(name):
    q = members()[name].q
    states = np.asarray(jax.vmap(lambda z: ravel_pytree(z)[0])(q.support()))
    assert len(np.unique(states, axis=0)) == len(states)
    draws = np.asarray(jax.vmap(lambda k: ravel_pytree(q.sample(k))[0])(jr.split(jr.key(5), 500)))
    assert {tuple(d) for d in draws} <= {tuple(s) for s in states}


@pytest.mark.parametrize("name", having(Fact.REPARAMETERISED))
def test_the_path_gradient_of_a_moment(name):
    """d E z^2 / d parameters along the path equals that of the closed form."""
    q = members()[name].q
    params, rest = split_trainable(q)
    noise = q.noise(jr.key(6), (40_000,))
    square = lambda p, e: sum(jnp.sum(a**2) for a in jax.tree.leaves(eqx.combine(p, rest).transform(e)))
    grads = jax.jit(jax.vmap(lambda e: ravel_pytree(jax.grad(square)(params, e))[0]))(noise)

    def exact(p):
        mean, variance = (ravel_pytree(m)[0] for m in moments(eqx.combine(p, rest)))
        return (mean**2 + variance).sum()

    off = grads.mean(0) - ravel_pytree(jax.jit(jax.grad(exact))(params))[0]
    assert jnp.all(jnp.abs(off) < Z_MAX * grads.std(0) / 200 + 0.1 * members()[name].accuracy)


def test_the_noise_law_reads_only_shapes(member):
    spec = eqx.filter_eval_shape(lambda: member.q)
    noise = iid(jr.key(7), spec.noise_law(), (3,))
    jax.tree.map(np.testing.assert_array_equal, noise, member.q.noise(jr.key(7), (3,)))


@pytest.mark.parametrize("name", [n for n in having(Fact.MOMENT_LOG_PROB) if n != "Product of normals"])
def test_expected_log_prob_is_the_mean_under_another_law(name):
    """E_r log q(z) from the moments of r alone."""
    q = members()[name].q
    params, rest = split_trainable(q)
    other = eqx.combine(jax.tree.map(lambda a: 0.5 * a + 0.3, params), rest)
    np.testing.assert_allclose(q.expected_log_prob(*other.moments()), expectation(other, q.log_prob), atol=1e-9)
