"""Functions as cache keys: two functions are equal if they were written and captured alike."""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax


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
    """A user's function as a static field: equal if code, globals, defaults and captured values are equal, so that a
    notebook cell run twice, or `optax.adam(1e-2)` made twice, compiles once. As safe as identity: tracing freezes
    captured values either way. A captured array cannot be compared: then identity decides."""

    def __init__(self, fn: Callable):
        self.fn = fn
        try:
            self.key = _freeze(fn)
            self._hash = hash(self.key)
        except (TypeError, ValueError, AttributeError):
            self.key = ("identity", id(fn))
            self._hash = hash(self.key)

    def __call__(self, *args, **kwargs):
        return self.fn(*args, **kwargs)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self.key == other.key

    def __repr__(self) -> str:
        return getattr(self.fn, "__name__", repr(self.fn))


class Static:
    """The non-array half of a module as a dictionary key: hashed once, compared by identity first."""

    def __init__(self, tree: Any):
        leaves, treedef = jax.tree.flatten(tree)
        self.tree, self.key = tree, (tuple(Function(a) if callable(a) else a for a in leaves), treedef)
        self._hash = hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Static) and self.key == other.key)
