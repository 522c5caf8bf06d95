"""Fresh draws from a fitted q, with log p and log q: what the verdict, the summary and the plots are made of."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree

from ..batch import Batch
from ..compiled import compiled, key_for
from ..facts import Fact
from ..families.base import AbstractDistribution, AbstractFamily
from ..function import Static
from ..models.base import AbstractModel
from ..tree import default_float, length, row_spec
from .minibatch import MappedArray

FEW = 4  # draws of a call where they are dear
BLOCK, ROW_BLOCK = 512, 10  # draws, and rows with all their draws, evaluated at once: bounds the memory


def log_density_forms(model: AbstractModel, rows: Any, first: Batch) -> list:
    """The forms of data that a fit by steps and its verdict call `log_density` with: see `AbstractModel.traced`."""
    if model.plated:
        return [row_spec(first.rows)]
    if not isinstance(rows, MappedArray):
        return [first, Batch(rows, None)]
    block = jax.tree.map(lambda a: jax.ShapeDtypeStruct((STREAM_BLOCK, *a.shape[1:]), a.dtype), first.rows)
    return [first, Batch(block, jax.ShapeDtypeStruct((STREAM_BLOCK,), default_float()))]


def _draw(family: AbstractFamily, q: AbstractDistribution, noise: PyTree) -> tuple[PyTree, Array]:
    """(latent, log q), NaN for a family that cannot evaluate log q."""
    if Fact.LOG_RATIO not in family.facts:
        return q.latent(q.transform(noise)), jnp.asarray(jnp.nan, default_float())
    draw, log_q = q.transform_and_log_ratio(noise)
    return q.latent(draw), log_q


@compiled(0, 3, 4)
def _global(static: Static, arrays, key_data, n_blocks: int, size: int, batch: Batch):
    model, family = eqx.combine(arrays, static.tree)
    q = family.sharpened()(batch)

    def one(noise):
        z, log_q = _draw(family, q, noise)
        return z, model.log_density(z, batch), log_q

    def block(key):
        return jax.vmap(one)(q.noise(key, (size,)))

    keys = jr.split(jr.wrap_key_data(key_data), n_blocks)
    return jax.tree.map(lambda a: a.reshape((-1, *a.shape[2:])), jax.lax.map(block, keys))


def draws_global(
    model: AbstractModel, family: AbstractFamily, batch: Batch, n: int, seed: int
) -> tuple[Any, np.ndarray, np.ndarray]:
    """(z: tree with a leading axis n, log p(z, x), log q(z)) of n draws, on the host."""
    arrays, static = eqx.partition((model, family), eqx.is_array)
    key = jr.key_data(key_for(seed, "verdict"))
    out = jax.device_get(_global(Static(static), arrays, key, -(-n // BLOCK), BLOCK, batch))
    return jax.tree.map(lambda a: a[:n], out)


def draws_within(
    model: AbstractModel, family: AbstractFamily, batch: Batch, n: int, seed: int, spent: Callable[[], bool]
) -> tuple[Any, np.ndarray, np.ndarray]:
    """As `draws_global`, a few at a time, until the budget is spent: n at most, `FEW` at least."""
    arrays, static = eqx.partition((model, family), eqx.is_array)
    key, frozen, parts = key_for(seed, "verdict"), Static(static), []
    while not parts or (len(parts) * FEW < n and not spent()):
        key, sub = jr.split(key)
        parts.append(jax.device_get(_global(frozen, arrays, jr.key_data(sub), 1, FEW, batch)))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


STREAM_DRAWS, STREAM_ROWS, STREAM_BLOCK = 512, 200_000, 2048


def draws_streamed(model: AbstractModel, family: AbstractFamily, rows: Any, seed: int) -> tuple[Any, Any, Any, bool]:
    """As `draws_global`, for rows on disk, block by block; the last value tells whether all rows were read.

    Above 200,000 rows an evenly spaced 200,000 of them stand for all (each weighing N/n), and log p is an estimate.
    """
    n = len(rows)
    index = np.unique(np.linspace(0, n - 1, min(n, STREAM_ROWS)).astype(int))
    weight = np.full(index.size, n / index.size)
    block = lambda at: (rows[index[at : at + STREAM_BLOCK]], weight[at : at + STREAM_BLOCK])

    def padded(x: np.ndarray, w: np.ndarray) -> Batch:
        pad = STREAM_BLOCK - len(w)
        x = np.concatenate([x, np.repeat(x[:1], pad, axis=0)]) if pad else x
        return Batch(jnp.asarray(x), jnp.asarray(np.concatenate([w, np.zeros(pad)]), default_float()))

    first = padded(*block(0))
    prior = Batch(first.rows, jnp.zeros(STREAM_BLOCK, default_float()))
    z, log_prior, log_q = draws_global(model, family, prior, STREAM_DRAWS, seed)
    total = np.asarray(log_prior, np.float64)
    for at in range(0, index.size, STREAM_BLOCK):
        batch = first if at == 0 else padded(*block(at))
        total = total + np.asarray(draws_global(model, family, batch, STREAM_DRAWS, seed)[1], np.float64) - log_prior
    return z, total, log_q, index.size == n


@compiled(0, 3)
def _rows(static: Static, arrays, key_data, n: int, rows: PyTree):
    model, family = eqx.combine(arrays, static.tree)
    family = family.sharpened()

    def cell(key, x):
        q = family(x)

        def one(noise):
            z, log_q = _draw(family, q, noise)
            return z, model.log_density(z, x), log_q

        return jax.vmap(one)(q.noise(key, (n,)))

    keys = jr.split(jr.wrap_key_data(key_data), length(rows))
    each = jax.lax.map(lambda row: cell(*row), (keys, rows), batch_size=ROW_BLOCK)
    return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), each)


def draws_rows(
    model: AbstractModel, family: AbstractFamily, rows: PyTree, n: int, seed: int
) -> tuple[Any, np.ndarray, np.ndarray]:
    """For each row: (z (n, R, ...), log p (n, R), log q (n, R))."""
    arrays, static = eqx.partition((model, family), eqx.is_array)
    key = jr.key_data(key_for(seed, "verdict"))
    return jax.device_get(_rows(Static(static), arrays, key, n, jax.tree.map(jnp.asarray, rows)))


@compiled(0)
def _gradients(static: Static, arrays, z: PyTree, batch: Batch):
    model = eqx.combine(arrays, static.tree)
    return jax.lax.map(jax.grad(lambda z: model.log_density(z, batch)), z, batch_size=BLOCK)


@compiled(0)
def _row_gradients(static: Static, arrays, z: PyTree, rows: PyTree):
    model = eqx.combine(arrays, static.tree)
    return jax.vmap(jax.vmap(jax.grad(model.log_density)), in_axes=(0, None))(z, rows)


def gradients_of(model: AbstractModel, z: PyTree, rows: PyTree) -> PyTree | None:
    """grad_z log p(z, x) at draws as `draws_global` or `draws_rows` give them; None where log p has no gradient in z, or
    the rows are on disk."""
    real = all(jnp.issubdtype(a.dtype, jnp.floating) for a in jax.tree.leaves(z))
    if Fact.DIFFERENTIABLE not in model.facts or not real or isinstance(rows, MappedArray):
        return None
    arrays, static = eqx.partition(model, eqx.is_array)
    if model.plated:
        return jax.device_get(_row_gradients(Static(static), arrays, z, jax.tree.map(jnp.asarray, rows)))
    return jax.device_get(_gradients(Static(static), arrays, z, Batch(rows, None)))
