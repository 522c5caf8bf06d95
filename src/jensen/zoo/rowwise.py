"""What a fitted decoder and encoder say of rows, compiled once for all numbers of rows.

Rows go through in padded blocks of one fixed size, and a row's random numbers are a function of (seed, the row's own
bits): what is said of a row depends neither on its neighbours nor on its place, bit for bit.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, UInt32

from ..batch import Batch
from ..compiled import compiled, key_for
from ..facts import Fact
from ..families.base import AbstractFamily
from ..families.relaxation import mean_field_pass
from ..function import Static
from ..gradients.base import Bound
from ..models.latent_variable import LatentVariable
from ..objectives import ELBO
from ..tree import Layout, default_float, row_spec

BLOCK = 256  # rows at once through encoder or decoder alone
AVERAGED = 64  # draws whose mean stands for E[z]
CELLS = 64, 32  # rows and draws at once through both: bounds the memory of the log-weights


def row_hash(rows: Float[np.ndarray, "n d"]) -> UInt32[np.ndarray, " n"]:
    """32 bits a row, from the row's bits: multiply-shift hashing with fixed odd multipliers."""
    bits = (np.ascontiguousarray(rows, np.float32) + 0).view(np.uint32).astype(np.uint64)  # + 0: -0.0 is 0.0
    odd = np.random.default_rng(0).integers(2**64, size=bits.shape[1], dtype=np.uint64) | np.uint64(1)
    return ((bits * odd).sum(1, dtype=np.uint64) >> np.uint64(32)).astype(np.uint32)


def _in_blocks(fn: Callable, size: int, *columns: np.ndarray) -> Any:
    """`fn` on blocks of `size` rows, the last one padded with zeros; the tree of results, on the host."""
    n, out = len(columns[0]), []
    for start in range(0, n, size):
        part = [c[start : start + size] for c in columns]
        pad = size - len(part[0])
        out.append(fn(*(np.pad(p, [(0, pad)] + [(0, 0)] * (p.ndim - 1)) if pad else p for p in part)))
    return jax.tree.map(lambda *a: np.concatenate(a)[:n], *jax.device_get(out))


def _split(*modules: Any) -> tuple[Any, Static]:
    arrays, static = eqx.partition(modules, eqx.is_array)
    return arrays, Static(static)


def _mean(q: Any) -> Any:
    """E[z]; of binary layers without closed moments the first exactly, the others by a mean-field pass: each given the
    probabilities of the one before; of any other q the mean of draws, their noise the same for all rows."""
    if Fact.MOMENTS in q.facts:
        return q.moments()[0]
    if Fact.LAYERS in q.facts:
        return q.unlayered(mean_field_pass(q))
    draws = jax.vmap(lambda e: q.latent(q.transform(e)))(q.noise(key_for(0, "mean"), (AVERAGED,)))
    return jax.tree.map(lambda a: a.mean(0), draws)


@compiled(0)
def _encode(static: Static, arrays, rows: Array) -> Array:
    (family,) = eqx.combine(arrays, static.tree)

    def one(x: Array) -> Array:
        mean = _mean(family(x))
        return Layout(mean).ravel(mean)

    return jax.vmap(one)(rows)


def encode(family: AbstractFamily, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n latent"]:
    """E[z] under q(z | x) of each row, its arrays one after another."""
    arrays, static = _split(family)
    return _in_blocks(lambda x: _encode(static, arrays, x), BLOCK, rows.astype(default_float()))


@compiled(0)
def _decode(static: Static, arrays, latents: Array) -> Array:
    (model,) = eqx.combine(arrays, static.tree)
    layout = Layout(model.latents)
    return jax.vmap(lambda z: model.decode(layout.unravel(z)))(latents)


def decode(model: LatentVariable, latents: Float[np.ndarray, "n latent"]) -> Float[np.ndarray, "n d"]:
    """E[x | z] of each latent."""
    arrays, static = _split(model)
    return _in_blocks(lambda z: _decode(static, arrays, z), BLOCK, latents.astype(default_float()))


@compiled(0)
def _sample(static: Static, arrays, key_data, index: Array) -> Array:
    (model,) = eqx.combine(arrays, static.tree)
    key = jr.wrap_key_data(key_data)
    return jax.vmap(lambda i: model.sample(jr.fold_in(key, i)))(index)


def sample(model: LatentVariable, n: int, seed: int) -> Float[np.ndarray, "n d"]:
    """n rows from the model; the first of them do not depend on n."""
    arrays, static = _split(model)
    key = jr.key_data(key_for(seed, "sample"))
    return _in_blocks(lambda i: _sample(static, arrays, key, i), BLOCK, np.arange(n, dtype=np.uint32))


@compiled(0, 5)
def _bounds(static: Static, arrays, key_data, hashes: Array, rows: Array, n_draws: int) -> tuple[Array, Array]:
    model, family = eqx.combine(arrays, static.tree)
    bound = Bound.make(model, family, ELBO(), Batch(rows, None))
    q_spec = eqx.filter_eval_shape(family, row_spec(rows))
    key, n_at_once = jr.wrap_key_data(key_data), min(CELLS[1], n_draws)

    def log_weights(i: Array) -> Array:
        keys = jax.vmap(lambda h: jr.fold_in(jr.fold_in(key, h), i))(hashes)
        noise = jax.vmap(lambda k: q_spec.noise(k, (n_at_once,)), out_axes=1)(keys)
        return bound.draw_and_log_weight(noise)[1]

    log_w = jax.lax.map(log_weights, jnp.arange(-(-n_draws // n_at_once)))
    log_w = log_w.reshape(-1, log_w.shape[-1])[:n_draws]
    return jax.nn.logsumexp(log_w, axis=0) - np.log(n_draws), log_w.mean(0)


def bounds(
    model: LatentVariable, family: AbstractFamily, rows: Float[np.ndarray, "n d"], n_draws: int, seed: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(log mean w, mean log w) of `n_draws` importance weights a row, w = p(x, z) / q(z | x): estimates of log p(x)
    (from below, on average) and of the ELBO, in nats."""
    arrays, static = _split(model, family)
    key = jr.key_data(key_for(seed, "weights"))
    rows = rows.astype(default_float())
    return _in_blocks(lambda h, x: _bounds(static, arrays, key, h, x, n_draws), CELLS[0], row_hash(rows), rows)
