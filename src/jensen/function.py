"""Functions as cache keys: two functions are equal if they were written and captured alike."""

import dataclasses
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
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, *(inner(getattr(value, f.name, None)) for f in dataclasses.fields(value))]
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    return getattr(value, "__qualname__", type(value).__qualname__)


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
