"""How large the terms are that cancel in a gradient: what its rounding is made of."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, PyTree

from ..batch import Batch
from ..compiled import compiled, key_for
from ..facts import Fact
from ..function import Static
from ..gradients.base import Bound
from ..gradients.plans import IID
from ..tree import length, row_spec, split_trainable
from .subject import Subject

DRAWS = 32


@compiled(0)
def _squares(static: Static, arrays: PyTree, params: PyTree, fixed: Batch, key_data: Array) -> PyTree:
    """Mean squares, over draws and signs, of the gradient of sum over draws and rows of (+-log p +-log q)."""
    model, family, objective = eqx.combine(arrays, static.tree)
    rest = split_trainable((model, family))[1]
    facts = family.facts
    path = Fact.REPARAMETERISED in facts and Fact.DIFFERENTIABLE in model.facts
    spec = eqx.filter_eval_shape(family, row_spec(fixed.rows) if model.plated else fixed)
    plate = (length(fixed.rows),) if model.plated else ()
    has_density = Fact.LOG_RATIO in facts

    def signed(params: PyTree, noise: PyTree, key: Array) -> Array:
        model, family = eqx.combine(params, rest)
        bound = Bound.make(model, family, objective, fixed)

        def cell(m: Any, q: Any, x: Any, e: Any) -> tuple[Array, ...]:
            draw = q.transform(e) if path else stop_gradient(q.transform(e))
            log_p = m.log_density(q.latent(draw), x)
            if not has_density:
                return log_p, jnp.zeros_like(log_p)
            log_q = q.log_ratio(draw)
            return log_p, log_q if path else (1 + stop_gradient(jnp.abs(log_p) + jnp.abs(log_q))) * log_q

        terms = jnp.stack(bound.map(cell, noise))
        weight = 1.0 if fixed.weight is None or not bound.plate else fixed.weight
        return (jr.rademacher(key, terms.shape, terms.dtype) * terms * weight).sum()

    def one(key: Array) -> PyTree:
        k1, k2 = jr.split(key)
        noise = IID().draw(k1, spec.noise_law(), (1, *plate))
        return jax.tree.map(jnp.square, jax.grad(signed)(params, noise, k2))

    add = lambda total, key: (jax.tree.map(jnp.add, total, one(key)), None)
    keys = jr.split(jr.wrap_key_data(key_data), DRAWS)
    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), keys)[0]


def term_sizes(subject: Subject, parameters: PyTree | None, fixed: Batch) -> np.ndarray:
    """Of each parameter of model and family: the root mean square of what its gradient is a sum of.

    Definition: of the derivatives of log p and of log q at a draw, rows apart, with random signs so that none cancels another;
                without a path, of the score times |log p| + |log q|. `parameters`: of (model, family); None: the first ones.
    """
    if parameters is None:
        parameters = split_trainable((subject.model, subject.family))[0]
    arrays, static = eqx.partition((subject.model, subject.family, subject.objective), eqx.is_array)
    key = jr.key_data(key_for(subject.seed, "sizes"))
    squares = jax.device_get(_squares(Static(static), arrays, parameters, fixed, key))
    flat = [np.ravel(np.asarray(a, np.float64)) for a in jax.tree.leaves(squares)]
    size = np.sqrt(np.concatenate([*flat, np.zeros(0)]) / DRAWS)
    return np.where(np.isfinite(size), size, 0.0)
