"""Functions and modules as keys of what is compiled."""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .environment import Twin, is_foreign, of_library
from .environment import _file_of as file_of
from .program import Program, Read


def _freeze(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """A hashable stand-in: equal stand-ins mean equal behaviour. Types count, since 1 == 1.0 == True in Python."""
    if isinstance(value, Function):
        return value.key
    if isinstance(value, types.FunctionType):
        if id(value) in seen:
            return ("recursive", seen.index(id(value)))
        seen = (*seen, id(value))
        cells = tuple(_freeze(c.cell_contents, seen) for c in value.__closure__ or ())
        defaults = _freeze(value.__defaults__ or (), seen), _freeze(value.__kwdefaults__ or {}, seen)
        return (value.__code__, id(value.__globals__), cells, defaults)
    if isinstance(value, functools.partial):
        return ("partial", *(_freeze(v, seen) for v in (value.func, value.args, value.keywords)))
    if isinstance(value, types.MethodType):
        return ("method", _freeze(value.__func__, seen), _freeze(value.__self__, seen))
    if isinstance(value, (tuple, list)):
        return (type(value), *(_freeze(v, seen) for v in value))
    if isinstance(value, dict):
        return (dict, *((k, _freeze(v, seen)) for k, v in value.items()))
    hash(value)  # an array has no hash: TypeError
    return (type(value), value)


class Function:
    """A function as a static field.

    One of a library (`optax.adam(1e-2)`'s update, an activation) is equal to another of equal code, captured values and
    defaults, so that what is made twice compiles once. A user's own is equal to itself only: what it computes depends on
    all that it reads, and is known by its trace (`program.Traced`, `compiled.Compiled`).

    foreign: is it, or anything it closes over, a user's own?   read: what a twin reads; None of what is no twin.
    """

    def __init__(self, fn: Callable, read: Read | None = None):
        self.fn, self.read = fn, read
        self.foreign = is_foreign(fn)
        self.key: Any = ("identity", id(self))
        if not self.foreign:
            try:
                self.key = _freeze(fn)
                hash(self.key)
            except (TypeError, ValueError, AttributeError):
                self.key = ("identity", id(self))
        self._hash = hash(self.key)

    def twin(self) -> "Function":
        """A function that reads copies of all that this one reads now; a twin is its own."""
        if self.read is not None:
            return self
        found = Twin()
        fn = found.of(self.fn)
        return Function(fn, Read(frozenset(found.numbers), frozenset(found.constants), tuple(found.arrays)))

    def copied(self) -> "Function":
        """The same, reading copies of its own."""
        return Function(Twin().of(self.fn), self.read)

    def __call__(self, *args, **kwargs):
        return self.fn(*args, **kwargs)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Function) and not self.foreign and self.key == other.key)

    def __repr__(self) -> str:
        return getattr(self.fn, "__name__", repr(self.fn))


def description(value: Any, depth: int = 0) -> Any:
    """What a value is, in words that are the same in another process: for checkpoints, which must tell a changed model.

    Functions by their bytecode and captured values, modules and dataclasses by their fields, arrays by shape and dtype.
    """
    if depth > 12:
        return "..."
    inner = lambda v: description(v, depth + 1)
    if isinstance(value, Function):
        return inner(value.fn)
    if isinstance(value, types.FunctionType):
        cells = [inner(c.cell_contents) for c in value.__closure__ or ()]
        return ["function", inner(value.__code__), cells, inner(value.__defaults__ or ())]
    if isinstance(value, types.CodeType):
        return ["code", value.co_code.hex(), value.co_names, [inner(c) for c in value.co_consts]]
    if isinstance(value, (tuple, list)):
        return [type(value).__name__, *map(inner, value)]
    if isinstance(value, dict):
        return ["dict", *([inner(k), inner(v)] for k, v in value.items())]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return ["array", tuple(value.shape), str(value.dtype)]
    if hasattr(value, "digest"):
        return ["program", value.digest]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, *(inner(getattr(value, f.name, None)) for f in dataclasses.fields(value))]
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    return getattr(value, "__qualname__", type(value).__qualname__)


def _is_ours(value: Any, depth: int = 0) -> bool:
    """Does this static half run the code of libraries only?"""
    inner = lambda v: _is_ours(v, depth + 1)
    if value is None or isinstance(value, (str, int, float, complex, bytes, jax.ShapeDtypeStruct, Program)):
        return True
    if depth > 40 or isinstance(value, np.ndarray):
        return False
    if isinstance(value, Function):
        return not value.foreign
    if isinstance(value, (tuple, list)):
        return all(map(inner, value))
    if isinstance(value, dict):
        return all(map(inner, value.values()))
    if not of_library(file_of(type(value))):
        return False
    if isinstance(value, eqx.Module) or dataclasses.is_dataclass(type(value)):
        return isinstance(value, type) or all(inner(getattr(value, f.name, None)) for f in dataclasses.fields(value))
    if callable(value) and not type(value).__module__.startswith("jensen."):
        return not is_foreign(value)
    if type(value).__module__.startswith("jensen.") and isinstance(getattr(value, "__dict__", None), dict):
        return all(inner(v) for v in vars(value).values() if not isinstance(v, np.ndarray))  # e.g. Layout's offsets
    return True


class Static:
    """The non-array half of a module as a dictionary key: hashed once, compared by identity first.

    Where it runs code of a user's own (`foreign`) it is no key: what it computes is known by its trace, which is made once
    for this object and kept in `programs`.
    """

    def __init__(self, tree: Any):
        self.tree, self.foreign = tree, not _is_ours(tree)
        self.programs: dict[Any, Any] = {}
        if self.foreign:
            self.key: Any = ("identity", id(self))
        else:
            leaves, treedef = jax.tree.flatten(tree)
            self.key = tuple(Function(a) if callable(a) else a for a in leaves), treedef
        self._hash = hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Static) and not self.foreign and self.key == other.key)
