"""A q of its own for each row of data, looked up: local latents without an encoder."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

from ..errors import ModelError, explain
from ..tree import length, replaced, row_leaves, split_trainable, tile_trainable
from .base import AbstractDistribution, AbstractFamily
from .mean_field import MeanField

_SEEDS = (np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B))
_BLOCK = 4096  # rows whose keys are made at once


class Table(AbstractFamily):
    """One set of parameters a row, looked up by the row itself: non-amortised local latents.

    Definition: q(z | x_i) = q(z; phi_i), a phi for each row x_i of the data that `bind` is given. Rows are told apart by 64
                bits made of their numbers, in single precision; equal rows share one phi (their posteriors are equal).
                Under a plate of a NumPyro model rows are numbers, and phi_i is that of row i.
    Arguments:  distribution: over one row's latents (default `MeanField()`).   n_rows, keys, order: filled in by `bind`.
    Raises:     ModelError for rows that it was not fitted to: there is no q for them.
    Cost:       parameters grow with the data, and each is moved only when its row is in the batch; `Amortised` does not.
    Reference:  Hoffman, Blei, Wang and Paisley (2013).  [hoffman2013svi]
    """

    distribution: AbstractDistribution
    keys: UInt32[Array, "N 2"] | None  # sorted; None where rows are numbers
    order: Array | None  # row i of the keys is this row of the table
    n_rows: int | None = eqx.field(static=True)

    def __init__(self, distribution: AbstractDistribution | None = None, n_rows: int | None = None):
        self.distribution = MeanField() if distribution is None else distribution
        self.n_rows, self.keys, self.order = n_rows, None, None

    @property
    def facts(self):
        return self.distribution.facts

    @property
    def any_row(self):
        return False

    def kind_of(self, site):
        return self.distribution.kind_of(site)

    def sharpened(self):
        return replaced(self, distribution=self.distribution.sharpened())

    def bind(self, latents, rows, key):
        if self.n_rows is not None:
            return self
        if rows is None:
            because, instead = "each row of data has a set of parameters", "MeanField(), or another q for all rows"
            raise ModelError(explain("`Table` for a model with global latents", "there are no rows", because, instead))
        n_rows = _n_rows(rows)
        one = self.distribution.bind(latents, None, key)
        keys, order = (None, None) if _numbered(rows) else _sorted_keys(rows, n_rows)
        return replaced(self, distribution=tile_trainable(one, n_rows), n_rows=n_rows, keys=keys, order=order)

    def __call__(self, x: PyTree) -> AbstractDistribution:
        params, rest = split_trainable(self.distribution)
        if self.keys is None or self.order is None:
            return eqx.combine(row_leaves(lambda a: a[x["index"]], params), rest)
        at, known = _found(self.keys, _key(x))
        row = self.order[at]
        return eqx.combine(row_leaves(lambda a: jnp.where(known, a[row], jnp.nan), params), rest)

    def check_rows(self, rows):
        if self.keys is None:
            return
        have = _packed(np.asarray(self.keys))
        strange = ~np.isin(_packed(_keys(rows, _n_rows(rows))), have)
        if strange.any():
            wrong = f"{int(strange.sum())} of {strange.size} rows are not among the {self.n_rows} that were fitted"
            because = "each row has parameters of its own, found by fitting it"
            instead = "Amortised(), whose encoder gives q(z | x) for any x; or a fit to these rows"
            raise ModelError(explain("`Table` for other rows", wrong, because, instead))


def _n_rows(rows: Any) -> int:
    return rows.shape[0] if hasattr(rows, "shape") else length(rows)


def _numbered(rows: Any) -> bool:
    """Are the rows their numbers, 0, 1, ...?"""
    if not (isinstance(rows, dict) and set(rows) == {"index"}):
        return False
    index = rows["index"]
    return isinstance(index, jax.ShapeDtypeStruct) or np.array_equal(np.asarray(index), np.arange(len(index)))


# ---- a row's key ----------------------------------------------------------------------------------------------------
def _mixed(bits: Array) -> Array:
    """Each word of 32 bits, scrambled (the finaliser of MurmurHash3)."""
    bits = (bits ^ (bits >> 16)) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def _key(x: PyTree) -> UInt32[Array, " 2"]:
    """64 bits of one row: its numbers in single precision, all zeros alike, and all NaNs."""
    flat = jnp.concatenate([jnp.ravel(a).astype(jnp.float32) for a in jax.tree.leaves(x)])
    flat = jnp.where(jnp.abs(flat) < jnp.finfo(jnp.float32).tiny, 0.0, flat)
    bits = jax.lax.bitcast_convert_type(flat.astype(jnp.float32), jnp.uint32)
    bits = jnp.where(jnp.isnan(flat), jnp.uint32(0x7FC00000), bits)
    place = _mixed(jnp.arange(1, flat.size + 1, dtype=jnp.uint32))
    return jnp.stack([_mixed(bits ^ (place * seed)).sum(dtype=jnp.uint32) for seed in _SEEDS])


_block_keys = jax.jit(jax.vmap(_key))


def _keys(rows: Any, n: int) -> np.ndarray:
    """(N, 2) of all rows, block by block: they may lie on disk."""
    out = np.empty((n, 2), np.uint32)
    for at in range(0, n, _BLOCK):
        index = np.minimum(np.arange(at, at + min(_BLOCK, n)), n - 1)
        take = lambda a, index=index: jnp.asarray(np.asarray(a[index]))
        block = jax.device_get(_block_keys(jax.tree.map(take, rows)))
        out[at : at + len(block)] = block[: n - at]
    return out


def _packed(keys: np.ndarray) -> np.ndarray:
    return (keys[:, 0].astype(np.uint64) << np.uint64(32)) | keys[:, 1]


def _sorted_keys(rows: Any, n: int) -> tuple[Array, Array]:
    """(keys in increasing order, the row of each). Raises: ModelError for rows that differ and have one key."""
    if any(isinstance(a, jax.ShapeDtypeStruct) for a in jax.tree.leaves(rows)):
        because, instead = "rows are looked up by their numbers", "bind(latents, rows, key) with the data"
        raise ModelError(explain("`Table`", "the rows have shapes only", because, instead))
    keys = _keys(rows, n)
    order = np.argsort(_packed(keys), kind="stable")
    keys = keys[order]
    twins = np.flatnonzero((keys[1:] == keys[:-1]).all(1))
    for at in range(0, len(twins), _BLOCK):
        first, second = order[twins[at : at + _BLOCK]], order[1 + twins[at : at + _BLOCK]]
        same = lambda a, i=first, j=second: np.array_equal(np.asarray(a[i]), np.asarray(a[j]), equal_nan=True)
        if not all(same(a) for a in jax.tree.leaves(rows)):
            wrong = "two rows that differ are alike in single precision"
            because = "rows are told apart by their numbers, and would share one q"
            raise ModelError(explain("`Table`", wrong, because, "data in smaller units, or less their mean"))
    return jnp.asarray(keys), jnp.asarray(order)


def _found(keys: UInt32[Array, "N 2"], key: UInt32[Array, " 2"]) -> tuple[Array, Array]:
    """(the first place of a key, is it there?), by bisection."""
    n = keys.shape[0]

    def halve(_, edges):
        low, high = edges
        middle = (low + high) // 2
        mine = keys[jnp.minimum(middle, n - 1)]
        less = (mine[0] < key[0]) | ((mine[0] == key[0]) & (mine[1] < key[1]))
        open_ = low < high
        return jnp.where(open_ & less, middle + 1, low), jnp.where(open_ & ~less, middle, high)

    low, _ = jax.lax.fori_loop(0, n.bit_length() + 1, halve, (jnp.int32(0), jnp.int32(n)))
    at = jnp.minimum(low, n - 1)
    return at, (keys[at] == key).all()
