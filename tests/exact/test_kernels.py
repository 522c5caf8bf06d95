"""The hand-written Bernoulli kernel, and how latents lie in a vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jensen.kernels import bernoulli_log_prob
from jensen.tree import Layout

LOGITS = np.array([-50.0, -3.0, -1e-9, 0.0, 0.4, 7.0, 50.0])


def plain(logits, x):
    return x * logits - np.logaddexp(0, logits)


@pytest.mark.parametrize("x", [0.0, 1.0, 0.3])
def test_values_and_gradients(x):
    xs = jnp.full(len(LOGITS), x)
    np.testing.assert_allclose(bernoulli_log_prob(LOGITS, xs), plain(LOGITS, x), rtol=1e-13, atol=1e-15)
    by_logits, by_x = jax.grad(lambda l, x: bernoulli_log_prob(l, x).sum(), (0, 1))(jnp.asarray(LOGITS), xs)
    np.testing.assert_allclose(by_logits, x - 1 / (1 + np.exp(-LOGITS)), rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(by_x, LOGITS)


def test_second_derivative_and_forward_mode():
    at = lambda l: bernoulli_log_prob(l, 0.3)
    sigmoid = 1 / (1 + np.exp(-0.7))
    np.testing.assert_allclose(jax.grad(jax.grad(at))(0.7), -sigmoid * (1 - sigmoid))
    np.testing.assert_allclose(jax.jvp(at, (0.7,), (1.0,))[1], 0.3 - sigmoid)
    assert jnp.isfinite(jnp.array([jax.grad(jax.grad(at))(l) for l in (-50.0, 50.0)])).all()


def test_single_precision_ends():
    with jax.enable_x64(False):
        l = jnp.array([-50.0, 50.0], jnp.float32)
        assert bernoulli_log_prob(l, jnp.array([0.0, 1.0])).max() <= 0
        np.testing.assert_allclose(bernoulli_log_prob(l, jnp.array([1.0, 0.0])), [-50, -50])


@pytest.mark.parametrize("spec", [(), (3,), {"b": (2, 2), "a": ()}, [(1,), {"z": (2,)}]], ids=repr)
def test_layout_round_trip(spec):
    layout = Layout(spec)
    vector = jnp.arange(float(layout.size))
    np.testing.assert_array_equal(layout.ravel(layout.unravel(vector)), vector)
    assert jax.tree.map(lambda a: a.shape, layout.unravel(vector)) == layout.shape_tree()
    assert layout == Layout(layout.spec())
    assert hash(layout) == hash(Layout(layout.spec()))
    assert len(set(layout.names())) == layout.size


def test_layout_names():
    assert Layout({"b": (2,), "a": ()}).names() == ["a", "b[0]", "b[1]"]
