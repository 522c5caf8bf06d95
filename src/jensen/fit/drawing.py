"""Draws of a fitted q and their density, in the model's own coordinates: compiled once for all fits of one form."""

from typing import Any

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, PyTree

from ..batch import Batch
from ..compiled import compiled
from ..function import Static
from ..models.base import unconstrained


@compiled(0, 3, 5)
def draw(static: Static, arrays: PyTree, key_data: Array, n: int, rows: PyTree, plated: bool) -> PyTree:
    """n draws of (family, what constrains them), leading axis n (n, rows for a latent with each row)."""
    family, own = eqx.combine(arrays, static.tree)
    constrain = (lambda z: z) if own is None else own.constrain

    def of(q, key):
        return jax.vmap(lambda e: constrain(q.latent(q.transform(e))))(q.noise(key, (n,)))

    key = jr.wrap_key_data(key_data)
    if not plated:
        return of(family(Batch(rows, None)), key)
    n_rows = jax.tree.leaves(rows)[0].shape[0]
    return jax.vmap(lambda k, x: of(family(x), k), out_axes=1)(jr.split(key, n_rows), rows)


@compiled(0, 4)
def log_prob(static: Static, arrays: PyTree, z: PyTree, rows: PyTree, plated: bool) -> Array:
    """log q of constrained values, (n,) or (n, rows), change of variables included."""
    family, own = eqx.combine(arrays, static.tree)

    def one(q, z):
        u, log_jacobian = unconstrained(own, z)
        return q.log_prob(u) - log_jacobian

    if not plated:
        q = family(Batch(rows, None))
        return jax.vmap(lambda z: one(q, z))(z)
    return jax.vmap(lambda z, x: jax.vmap(lambda z: one(family(x), z))(z), in_axes=(1, 0), out_axes=1)(z, rows)


@compiled(0)
def predict(static: Static, arrays: PyTree, keys: Array, z: PyTree) -> PyTree:
    """Draws of data, one a key and latent, of (model, its arguments that are new)."""
    model, new = eqx.combine(arrays, static.tree)
    return jax.vmap(lambda key, z: model.predict(key, z, **new))(keys, z)


def constrained(own: Any, z: PyTree, n_axes: int = 1) -> PyTree:
    """Latents (so many leading axes) in the coordinates of a model or its supports, on the host."""
    if getattr(own, "sites", own) is None:
        return jax.device_get(z)
    arrays, static = eqx.partition(own, eqx.is_array)
    return jax.device_get(_constrained(Static(static), arrays, z, n_axes))


@compiled(0, 3)
def _constrained(static: Static, arrays: PyTree, z: PyTree, n_axes: int) -> PyTree:
    constrain = eqx.combine(arrays, static.tree).constrain
    for _ in range(n_axes):
        constrain = jax.vmap(constrain)
    return constrain(z)
