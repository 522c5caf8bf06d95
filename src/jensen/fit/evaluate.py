"""Fresh draws from a fitted q, with log p and log q: what the verdict, the summary and the plots are made of."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from ..batch import Batch
from ..families.base import AbstractFamily
from ..function import Static
from ..models.base import AbstractModel
from ..tree import length

BLOCK = 512  # draws evaluated at once: bounds the memory


@functools.partial(jax.jit, static_argnums=(0, 3))
def _global(static: Static, arrays, key_data, n_blocks: int, batch: Batch):
    model, family = eqx.combine(arrays, static.tree)
    q = family(batch)

    def one(noise):
        draw, log_q = q.transform_and_log_ratio(noise)
        z = q.latent(draw)
        return z, model.log_density(z, batch), log_q

    def block(key):
        return jax.vmap(one)(q.noise(key, (BLOCK,)))

    keys = jr.split(jr.wrap_key_data(key_data), n_blocks)
    return jax.tree.map(lambda a: a.reshape((-1, *a.shape[2:])), jax.lax.map(block, keys))


def draws_global(
    model: AbstractModel, family: AbstractFamily, batch: Batch, n: int, seed: int
) -> tuple[Any, np.ndarray, np.ndarray]:
    """(z: tree with a leading axis n, log p(z, x), log q(z)) of n draws, on the host."""
    arrays, static = eqx.partition((model, family), eqx.is_array)
    key = jr.key_data(jr.fold_in(jr.key(seed), 0x5EED))
    out = jax.device_get(_global(Static(static), arrays, key, -(-n // BLOCK), batch))
    return jax.tree.map(lambda a: a[:n], out)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _rows(static: Static, arrays, key_data, n: int, rows: PyTree):
    model, family = eqx.combine(arrays, static.tree)

    def cell(key, x):
        q = family(x)

        def one(noise):
            draw, log_q = q.transform_and_log_ratio(noise)
            z = q.latent(draw)
            return z, model.log_density(z, x), log_q

        return jax.vmap(one)(q.noise(key, (n,)))

    return jax.vmap(cell, out_axes=1)(jr.split(jr.wrap_key_data(key_data), length(rows)), rows)


def draws_rows(
    model: AbstractModel, family: AbstractFamily, rows: PyTree, n: int, seed: int
) -> tuple[Any, np.ndarray, np.ndarray]:
    """For each row: (z (n, R, ...), log p (n, R), log q (n, R))."""
    arrays, static = eqx.partition((model, family), eqx.is_array)
    key = jr.key_data(jr.fold_in(jr.key(seed), 0x5EED))
    return jax.device_get(_rows(Static(static), arrays, key, n, jax.tree.map(jnp.asarray, rows)))
