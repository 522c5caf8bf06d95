"""What the estimators for layers of discrete variables share."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..facts import Fact
from ..kernels import bernoulli_log_prob


def log_prob_of(q: Any, logits: Array, value: Array) -> Array:
    """log q of one layer's (hard or relaxed) value, given its logits; a scalar."""
    if Fact.BINARY in q.facts:
        return bernoulli_log_prob(logits, value).sum()
    return (value * jax.nn.log_softmax(logits)).sum()


def mean_of(q: Any, logits: Array) -> Array:
    """The mean of one layer, given its logits."""
    return jax.nn.sigmoid(logits) if Fact.BINARY in q.facts else jax.nn.softmax(logits)


def layer_logits(q: Any, draw: Any) -> list[Array]:
    """The logits of each layer given the draws of those before."""
    h = q.layers(draw)
    return [q.next_logits(h[:i]) for i in range(q.n_layers)]


def layer_log_probs(q: Any, draw: Any) -> Array:
    """log q(h_l | h_<l) of each layer, (L,)."""
    pairs = zip(layer_logits(q, draw), q.layers(draw), strict=True)
    return jnp.stack([log_prob_of(q, a, h) for a, h in pairs])


def mean_field_pass(q: Any) -> tuple[Array, ...]:
    """The layers' means, each computed from the means before it."""
    means: tuple[Array, ...] = ()
    for _ in range(q.n_layers):
        means = (*means, mean_of(q, q.next_logits(means)))
    return means
