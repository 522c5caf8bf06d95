"""Pytrees: what is trained, what is frozen, and how a tree of latents lies in one vector."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

T = TypeVar("T")


class Frozen(eqx.Module, Generic[T]):
    """Marks a subtree whose arrays are data or constants: arguments of the compiled step, never trained."""

    value: T


class Shared(eqx.Module, Generic[T]):
    """Marks weights of q(. | x) that are the same for every x: trained, but never copied along the rows."""

    value: T


def is_frozen(node: Any) -> bool:
    return isinstance(node, Frozen)


def _is_shared(node: Any) -> bool:
    return isinstance(node, Shared)


def split_shared(tree: PyTree) -> tuple[PyTree, PyTree]:
    """(what each row has of its own, what is `Shared`); `eqx.combine` puts them together."""
    spec = jax.tree.map(lambda a: not _is_shared(a), tree, is_leaf=_is_shared)
    return eqx.partition(tree, spec)


def row_axes(tree: PyTree) -> PyTree:
    """For `vmap` over rows: 0 at every array, None at what is no array and under `Shared`."""
    has_rows = lambda a: eqx.is_array(a) or isinstance(a, jax.ShapeDtypeStruct)
    return jax.tree.map(lambda a: 0 if has_rows(a) else None, tree, is_leaf=_is_shared)


def row_leaves(fn: Callable, *trees: PyTree) -> PyTree:
    """`jax.tree.map(fn, *trees)` on what has a row axis; the rest as it is in the first tree."""
    return jax.tree.map(lambda a, *b: fn(a, *b) if eqx.is_array(a) else a, *trees, is_leaf=_is_shared)


def split_trainable(tree: PyTree) -> tuple[PyTree, PyTree]:
    """(trainable, rest): inexact arrays outside `Frozen`, and everything else; `eqx.combine` puts them together."""
    spec = jax.tree.map(lambda a: not is_frozen(a) and eqx.is_inexact_array(a), tree, is_leaf=is_frozen)
    return eqx.partition(tree, spec)


def replaced(part: T, **fields: Any) -> T:
    """The same module with other values in these fields, static ones too. Its class and its other fields stay: so a
    subclass is still itself after it was sized."""
    new = object.__new__(type(part))
    for name, value in (vars(part) | fields).items():
        object.__setattr__(new, name, value)
    return new


def stop(tree: PyTree) -> PyTree:
    """The same tree with `stop_gradient` on every inexact array."""
    return jax.tree.map(lambda a: jax.lax.stop_gradient(a) if eqx.is_inexact_array(a) else a, tree)


def length(tree: PyTree) -> int:
    """Size of the leading axis of a batched tree."""
    return jax.tree.leaves(tree)[0].shape[0]


def tile_trainable(tree: T, n: int) -> T:
    """The same module with a new leading axis of size `n` on what is trained and not `Shared`."""
    params, rest = split_trainable(tree)
    return eqx.combine(row_leaves(lambda a: jnp.broadcast_to(a[None], (n, *a.shape)), params), rest)


def row_spec(tree: PyTree) -> PyTree:
    """Shapes and dtypes of one row of a batched tree."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), tree)


def default_float() -> np.dtype:
    """float32, or float64 where the caller enabled it."""
    return jnp.result_type(float)


class Layout:
    """How a pytree of latents lies in one vector. Static and hashable: it may key a compilation cache.

    Arguments:  spec: a shape tuple, or a pytree of shape tuples or of arrays / `ShapeDtypeStruct`s.
    """

    def __init__(self, spec: PyTree):
        is_shape = lambda s: isinstance(s, tuple) and all(isinstance(i, (int, np.integer)) for i in s)
        leaves, self.treedef = jax.tree.flatten(spec, is_leaf=is_shape)
        self.shapes = tuple(tuple(int(i) for i in (s if is_shape(s) else s.shape)) for s in leaves)
        self.sizes = tuple(math.prod(s) for s in self.shapes)
        self.size = sum(self.sizes)
        self._offsets = np.concatenate([[0], np.cumsum(self.sizes)]).astype(int)

    def unravel(self, vector: Array) -> PyTree:
        """(size,) to the tree."""
        if len(self.shapes) == 1:
            return jax.tree.unflatten(self.treedef, [vector.reshape(self.shapes[0])])
        parts = [
            vector[a:b].reshape(s) for a, b, s in zip(self._offsets[:-1], self._offsets[1:], self.shapes, strict=True)
        ]
        return jax.tree.unflatten(self.treedef, parts)

    def ravel(self, tree: PyTree) -> Array:
        """The tree to (size,)."""
        leaves = self.treedef.flatten_up_to(tree)
        if len(leaves) == 1:
            return jnp.asarray(leaves[0]).reshape(-1)
        return jnp.concatenate([jnp.asarray(a).reshape(-1) for a in leaves])

    def spec(self) -> PyTree:
        """The tree of `ShapeDtypeStruct`s."""
        dtype = default_float()
        return jax.tree.unflatten(self.treedef, [jax.ShapeDtypeStruct(s, dtype) for s in self.shapes])

    def shape_tree(self) -> PyTree:
        """The tree of shape tuples."""
        return jax.tree.unflatten(self.treedef, list(self.shapes))

    def names(self) -> list[str]:
        """One name a coordinate: `site[i,j]`, in the vector's order."""
        paths = [jax.tree_util.keystr(p, simple=True, separator=".") or "z" for p, _ in self._paths()]
        indices = lambda s: [",".join(map(str, i)) for i in np.ndindex(*s)]
        return [f"{p}[{i}]" if i else p for p, s in zip(paths, self.shapes, strict=True) for i in indices(s)]

    def _paths(self):
        return jax.tree_util.tree_flatten_with_path(self.spec())[0]

    def __hash__(self) -> int:
        return hash((self.treedef, self.shapes))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and (self.treedef, self.shapes) == (other.treedef, other.shapes)

    def __repr__(self) -> str:
        return f"Layout({self.shape_tree()})"


def is_record(kind: type) -> bool:
    """A dataclass or a named tuple of jensen, and no module."""
    named = issubclass(kind, tuple) and hasattr(kind, "_fields")
    plain = dataclasses.is_dataclass(kind) and not issubclass(kind, eqx.Module)
    return kind.__module__.partition(".")[0] == "jensen" and (named or plain)
