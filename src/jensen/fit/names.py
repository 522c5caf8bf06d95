"""What a saved fit may name. Nothing that a file says is ever imported or looked up anywhere else, so that reading one
runs no code but that of these classes and functions, which compute and do nothing else.

Left out on purpose: functions that read or write files, what calls back to Python (`BlackBox`, adapters of other
packages), and what binds arguments to a function (`equinox.Partial`).
"""

import enum
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..tree import is_record

PACKAGES = (
    "families",
    "models",
    "objectives",
    "gradients",
    "diagnostics",
    "methods",
)  # the modules of these, but no package inside
MODULES = ("tree", "nets", "batch", "hamiltonian", "kernels", "cell_models", "data.binarized")
FITS = ("fit.em", "fit.energy", "fit.belief")
CALLS_BACK = ("models.black_box", "models.host")
# what networks are made of besides the elementwise functions, which are those that NumPy has as ufuncs
OF_ARRAYS = (
    "clip", "cumsum", "flip", "max", "mean", "min", "nan_to_num", "prod", "ravel", "round", "sinc", "sort", "squeeze",
    "std", "sum", "transpose", "var", "where",
)  # fmt: skip
OF_LAX = (
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "clamp", "cos", "cosh", "digamma",
    "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "integer_pow", "lgamma", "log", "log1p", "logistic",
    "max", "min", "mul", "neg", "pow", "reciprocal", "round", "rsqrt", "select", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "sub", "tan", "tanh",
)  # fmt: skip


# by an earlier name, or where it was then
RENAMED = {
    "jensen.models.units:Categorical": "models:Softmax",
    "jensen.diagnostics.marginals:Agreement": "diagnostics:BetweenChains",
    **{f"jensen.methods:{name}": f"methods:{name}" for name in ("VariationalEM", "WakeSleep", "ReweightedWakeSleep")},
    **{f"jensen.methods:{name}": f"methods:{name}" for name in ("Hoffman", "VCD")},
}


def name_of(thing: Any) -> str:
    """What an object, class or function is called: of jensen `room:name`, wherever in the room it is; else `module:name`."""
    kind = thing if isinstance(thing, type) or hasattr(thing, "__qualname__") else type(thing)
    return _without_file(f"{kind.__module__}:{kind.__qualname__}")


def class_named(name: str) -> type | None:
    """The class of the table by its name, or by one it had before; None for any other."""
    return classes().get(RENAMED.get(name) or _without_file(name))


def _without_file(name: str) -> str:
    """`jensen.families.mean_field:MeanField` is `families:MeanField`; `jensen.tree:Frozen`, of no room, `jensen:Frozen`."""
    module, _, what = name.partition(":")
    if module.startswith("equinox.nn."):
        return f"equinox.nn:{what}"
    parts = module.split(".")
    if parts[0] != "jensen" or len(parts) == 1:
        return name
    return f"{parts[1] if len(parts) > 2 else 'jensen'}:{what}"


def _public(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def _modules() -> Iterator[ModuleType]:
    own = lambda name: importlib.import_module(f"jensen.{name}")
    for package in PACKAGES:
        for found in pkgutil.iter_modules(own(package).__path__):
            if not found.ispkg and f"{package}.{found.name}" not in CALLS_BACK:
                yield own(f"{package}.{found.name}")
    yield from map(own, MODULES + FITS)


@functools.cache
def classes() -> dict[str, type]:
    """Modules, records and enumerations of jensen, and the layers of `equinox.nn`."""
    holds_data = lambda kind: issubclass(kind, (eqx.Module, enum.Enum)) or is_record(kind)
    own = [
        value
        for module in _modules()
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and holds_data(value)
    ]
    layers = [v for v in _public(eqx.nn).values() if isinstance(v, type) and issubclass(v, eqx.Module)]
    found = {name_of(kind): kind for kind in (*own, *layers)}
    assert len(found) == len({*own, *layers}), "two classes of one room have the same name"
    return found


@functools.cache
def functions() -> dict[str, Callable]:
    """Functions of arrays: activations, elementwise ones, reductions."""
    pure = lambda module: [n for n, v in _public(module).items() if callable(v) and not isinstance(v, type)]
    elementwise = [n for n in _public(np) if isinstance(getattr(np, n), np.ufunc)]
    found = {
        "jax.nn": pure(jax.nn),
        "jax.numpy": [*elementwise, *OF_ARRAYS],
        "jax.lax": OF_LAX,
        "jax.scipy.special": pure(jax.scipy.special),
    }
    found["equinox.nn._mlp"] = ["_identity"]  # what `eqx.nn.MLP` has for no last activation
    table = {f"{at}:{n}": getattr(importlib.import_module(at), n, None) for at, names in found.items() for n in names}
    return {name: fn for name, fn in table.items() if callable(fn)}


def function_name(fn: Any) -> str | None:
    """The name of a function of the table; None for any other."""
    return next((name for name, known in functions().items() if known is fn), None)
