"""What a user's function reads: its closure, globals, defaults, helpers and objects; and a copy of it that reads copies.

A model is what its trace says at the moment of the fit. JAX remembers what it derived of a NumPy array by the array's identity,
in whatever precision it first met it and whatever was written to it since. So nothing here traces a user's function as it
is: it traces a twin, whose arrays are copies, and nothing of the user's own is touched or kept.
"""

import copy
import functools
import inspect
import math
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

_HERE = str(Path(__file__).resolve().parent)
_LIBRARIES = tuple(
    {*(sysconfig.get_path(p) for p in ("stdlib", "purelib", "platlib")), str(Path(jax.__file__).parents[1])}
)
_DYNAMIC = {"globals", "eval", "exec", "locals", "vars"}  # a function that names one of these may read any global
_MODULE_NAMES = ("__builtins__", "__name__", "__package__", "__spec__", "__loader__", "__file__")
DEPTH = 24  # of objects within objects


def of_library(file: str | None) -> bool:
    """Is this source file part of Python, of an installed package, or of jensen?"""
    return file is None or file.startswith("<frozen") or file.startswith((*_LIBRARIES, _HERE))


def is_foreign(function: Callable) -> bool:
    """Does it, or anything it closes over, run code that is neither jensen's nor an installed package's?"""
    return _foreign(function, 0)


def _foreign(value: Any, depth: int) -> bool:
    if depth > DEPTH:
        return True
    inner = lambda v: _foreign(v, depth + 1)
    if isinstance(value, types.FunctionType):
        held = [c.cell_contents for c in value.__closure__ or () if is_full(c)]
        held += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return not of_library(value.__code__.co_filename) or any(map(inner, held))
    if isinstance(value, functools.partial):
        return any(map(inner, (value.func, *value.args, *value.keywords.values())))
    if isinstance(value, types.MethodType):
        return inner(value.__func__) or inner(value.__self__)
    if isinstance(value, (tuple, list)):
        return any(map(inner, value))
    if isinstance(value, dict):
        return any(map(inner, value.values()))
    if isinstance(value, (np.ndarray, jax.Array)):
        return value.size > 1  # data, which no cache may hold
    if isinstance(value, type):
        return not of_library(_file_of(value))
    wrapped = getattr(value, "__wrapped__", None)
    if wrapped is not None and callable(value):
        return inner(wrapped)
    if getattr(value, "foreign", False) is True:  # a `Function` that has looked
        return True
    if not _has_state(value):
        return False
    held = (v for v in vars(value).values() if _holds_data(v) or hasattr(v, "foreign"))
    return not of_library(_file_of(type(value))) or any(map(inner, held))


def _file_of(cls: type) -> str | None:
    if cls.__module__ == "__main__":
        return "__main__"
    module = sys.modules.get(cls.__module__)
    return getattr(module, "__file__", None)


def is_full(cell: types.CellType) -> bool:
    """Has the variable that a function closes over a value yet?"""
    try:
        return bool(cell.cell_contents is not cell)
    except ValueError:  # empty
        return False


def _has_state(value: Any) -> bool:
    return isinstance(getattr(value, "__dict__", None), dict)


class Twin:
    """Copies of what functions read, each once.

    numbers:    the numbers that were found as values: data, where the trace meets them again.
    constants:  the numbers written in the code of the functions.   arrays: the copies.
    """

    def __init__(self):
        self.numbers: set[float] = set()
        self.constants: set[float] = set()
        self.arrays: list[np.ndarray] = []
        self._made: dict[int, Any] = {}
        self._alive: list[Any] = []  # an id is an object's only while the object lives

    def of(self, value: Any, depth: int = 0) -> Any:
        """The value with all arrays in it copied, and functions that read the copies; itself where there are none."""
        if id(value) in self._made:
            return self._made[id(value)]
        if depth > DEPTH or value is None or isinstance(value, (str, bytes, bool)):
            return value
        if isinstance(value, (int, float, np.number)):
            self._number(value)
            return value
        if hasattr(value, "twin") and hasattr(value, "read"):  # a `Function`: it knows what it reads
            return self._joined(value.twin())
        new = self._copy(value, depth + 1)
        if new is not value:
            self._keep(value, new)
        return new

    def _joined(self, twin: Any) -> Any:
        self.numbers |= twin.read.numbers
        self.constants |= twin.read.constants
        self.arrays += twin.read.arrays
        return twin

    def _keep(self, old: Any, new: Any) -> None:
        self._made[id(old)] = new
        self._alive.append(old)

    def _number(self, value: Any) -> None:
        number = float(value) if not isinstance(value, np.complexfloating) else math.nan
        if math.isfinite(number):
            self.numbers.add(number)

    def _copy(self, value: Any, depth: int) -> Any:
        inner = lambda v: self.of(v, depth)
        if isinstance(value, np.ndarray):
            return value if value.dtype.hasobject else self._array(value)
        if isinstance(value, types.FunctionType):
            return self._function(value, depth)
        if isinstance(value, types.MethodType):
            return _changed(value, (value.__func__, value.__self__), inner, lambda f, s: types.MethodType(f, s))
        if isinstance(value, functools.partial):
            rebuilt = lambda f, a, k: functools.partial(f, *a, **k)
            return _changed(value, (value.func, value.args, value.keywords), inner, rebuilt)
        if type(value) is dict:
            return _changed(value, tuple(value.values()), inner, lambda *v: dict(zip(value, v, strict=True)))
        if type(value) in (list, tuple, set, frozenset):
            return _changed(value, tuple(value), inner, lambda *v: type(value)(v))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return _changed(value, tuple(value), inner, lambda *v: type(value)(*v))
        if isinstance(value, types.ModuleType):
            return value  # its attributes are copied where a function names them
        if isinstance(value, type):
            return self._namespace(value, depth)
        if isinstance(value, (jax.Array, jax.core.Tracer)):
            return value
        if _is_jitted(value):  # traced anew within our own trace: its cache may hold what its globals were
            return self.of(value.__wrapped__, depth)
        return self._object(value, depth)

    def _array(self, value: np.ndarray) -> np.ndarray:
        self.arrays.append(value.copy())
        return self.arrays[-1]

    def _object(self, value: Any, depth: int) -> Any:
        """An object whose fields are its state; of an installed package's, only where they hold arrays themselves."""
        if not _has_state(value):
            return value
        fields = value.__dict__
        if of_library(_file_of(type(value))) and not any(_holds_data(v) for v in fields.values()):
            return value
        try:
            new = copy.copy(value)
        except Exception:  # it cannot be copied: a lock, a file, a handle
            return value
        if type(new) is not type(value) or not _has_state(new) or new is value:
            return value
        self._keep(value, new)  # before its fields: it may hold itself
        changed = False
        for name, old in list(fields.items()):
            made = self.of(old, depth)
            if made is not old:
                object.__setattr__(new, name, made)
                changed = True
        if not changed:
            self._made[id(value)] = value
            return value
        return new

    def _namespace(self, cls: type, depth: int) -> Any:
        """A class that is used as a bag of values (`class Data: x = ...`)."""
        own = {n: v for n, v in vars(cls).items() if not (n.startswith("__") and n.endswith("__"))}
        bare = cls.__bases__ == (object,) and type(cls) is type and not any(map(callable, own.values()))
        if not bare or of_library(_file_of(cls)) or not any(_holds_data(v) for v in own.values()):
            return cls
        return types.SimpleNamespace(**{n: self.of(v, depth) for n, v in own.items()})

    def _function(self, f: types.FunctionType, depth: int) -> Any:
        library = of_library(f.__code__.co_filename)
        if library and not any(is_full(c) for c in f.__closure__ or ()):
            return f
        if not library:
            self.constants |= set(_constants(f.__code__))
        cells = tuple(types.CellType() for _ in f.__closure__ or ())
        namespace = f.__globals__ if library else self._globals(f)
        new = types.FunctionType(f.__code__, namespace, f.__name__, f.__defaults__, cells)
        self._keep(f, new)
        changed = not library
        for cell, old in zip(cells, f.__closure__ or (), strict=True):
            if is_full(old):
                cell.cell_contents = self.of(old.cell_contents, depth)
                changed |= cell.cell_contents is not old.cell_contents
        if not changed:
            self._made[id(f)] = f
            return f
        new.__dict__.update({n: v for n, v in f.__dict__.items() if n != "__wrapped__"})
        new.__defaults__, new.__kwdefaults__ = self.of(f.__defaults__, depth), self.of(f.__kwdefaults__, depth)
        new.__qualname__, new.__module__, new.__doc__ = f.__qualname__, f.__module__, f.__doc__
        new.__annotations__ = f.__annotations__
        if not library:
            self._fill(f, new, depth)
        if "__wrapped__" in f.__dict__:  # decorated: its signature is that of what it wraps
            new.__signature__ = _signature(f)
        return new

    def _globals(self, f: types.FunctionType) -> dict:
        """The twin of a module's names, filled as functions ask for them."""
        made = self._made.get(id(f.__globals__))
        if made is None:
            whole = bool(_DYNAMIC & set(_names(f.__code__)))
            own = f.__globals__
            made = dict(own) if whole else {n: own[n] for n in _MODULE_NAMES if n in own}
            self._keep(own, made)
        return made

    def _fill(self, f: types.FunctionType, new: types.FunctionType, depth: int) -> None:
        own, names = f.__globals__, set(_names(f.__code__))
        for name in names & set(own):
            value = own[name]
            if isinstance(value, types.ModuleType) and not of_library(getattr(value, "__file__", None)):
                new.__globals__[name] = self._module(value, names, depth)
            elif name not in _MODULE_NAMES:
                new.__globals__[name] = self.of(value, depth)

    def _module(self, module: types.ModuleType, names: set[str], depth: int) -> Any:
        """A module of the user's own, with copies of what is named."""
        view = self._made.get(id(module))
        if view is None:
            view = _ModuleView(module)
            self._keep(module, view)
        for name in names & set(vars(module)):
            if name not in view.__dict__:
                value = vars(module)[name]
                inner = isinstance(value, types.ModuleType) and not of_library(getattr(value, "__file__", None))
                view.__dict__[name] = self._module(value, names, depth) if inner else self.of(value, depth)
        return view


class _ModuleView:
    """A module some of whose attributes are others."""

    def __init__(self, module: types.ModuleType):
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def _changed(value: Any, parts: tuple, inner: Callable, rebuilt: Callable) -> Any:
    new = tuple(map(inner, parts))
    return value if all(a is b for a, b in zip(new, parts, strict=True)) else rebuilt(*new)


def _holds_data(value: Any) -> bool:
    """An array, or a function or container that may lead to one."""
    return isinstance(value, (np.ndarray, types.FunctionType, types.MethodType, functools.partial, dict, list, tuple))


def _is_jitted(value: Any) -> bool:
    wrapped = getattr(value, "__wrapped__", None)
    return (
        isinstance(wrapped, types.FunctionType)
        and hasattr(value, "lower")
        and not of_library(wrapped.__code__.co_filename)
    )


def _signature(f: Callable) -> Any:
    try:
        return inspect.signature(f)
    except (TypeError, ValueError):
        return None


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _codes(inner)


def _names(code: types.CodeType) -> Iterator[str]:
    return (n for c in _codes(code) for n in c.co_names)


def _constants(code: types.CodeType) -> Iterator[float]:
    for c in _codes(code):
        for value in c.co_consts:
            for v in value if isinstance(value, tuple) else (value,):
                if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v):
                    yield from (float(v), -float(v))
