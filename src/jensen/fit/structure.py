"""Trees of modules as JSON and named arrays, without pickle.

A module is its class, by room and name, and its fields; so is a dataclass or named tuple of jensen, the former with what
it has computed once. Only the classes and functions of one table (`names`) are made again from a file; anything else is
*foreign*: its arrays are kept by their path, and whoever reads the file supplies an object of the same structure for
them to fill.
"""

import dataclasses
import enum
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..diagnostics.checks import Judged, from_sentences
from ..errors import CheckpointError, JensenError, explain
from ..function import Function
from ..tree import Layout, is_record
from .names import class_named, classes, function_name, functions, name_of

NUMBERS = "biufc"  # kinds of arrays; of those that npz has no name for (bfloat16), JAX must know the type
KEYS = ("threefry2x32", "rbg", "unsafe_rbg")
_MISSING = object()
Arrays = dict[str, np.ndarray]


def leaves_by_path(tree: PyTree, prefix: str) -> dict[str, Any]:
    """The arrays of a pytree, keyed as `encode` keys them."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {prefix + jax.tree_util.keystr(path): leaf for path, leaf in found if eqx.is_array(leaf)}


def encode(value: Any, path: str, arrays: Arrays) -> Any:
    """JSON for `value`; its arrays are put in `arrays`, keyed by `path` and their place in the tree."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$": "float", "value": repr(value)}
    if eqx.is_array(value) or isinstance(value, (np.ndarray, np.generic)):
        return _array(value, path, arrays)
    if kind is list:
        return [encode(v, f"{path}[{i}]", arrays) for i, v in enumerate(value)]
    if kind in (tuple, frozenset):
        ordered = value if kind is tuple else sorted(value, key=repr)
        return {"$": kind.__name__, "items": [encode(v, f"{path}[{i}]", arrays) for i, v in enumerate(ordered)]}
    if kind is dict:
        items = [[encode(k, path, arrays), encode(v, f"{path}[{k!r}]", arrays)] for k, v in value.items()]
        return {"$": "dict", "items": items}
    if kind is Layout:
        return {"$": "layout", "tree": encode(value.shape_tree(), path, arrays)}
    if kind is Function:
        return {"$": "wrapped", "fn": encode(value.fn, path, arrays)}
    if classes().get(name_of(kind)) is kind:
        return _of_class(value, path, arrays)
    known = function_name(value) if callable(value) else None
    if known is not None:
        return {"$": "function", "name": known}
    for at, leaf in leaves_by_path(value, path).items():
        _array(leaf, at, arrays)
    return {"$": "foreign", "class": name_of(value)}


def _of_class(value: Any, path: str, arrays: Arrays) -> dict[str, Any]:
    kind = type(value)
    if isinstance(value, enum.Enum):
        return {"$": "enum", "class": name_of(kind), "name": value.name}
    if isinstance(value, eqx.Module):
        contents = {f.name: vars(value)[f.name] for f in dataclasses.fields(value) if f.name in vars(value)}
    else:
        contents = _contents(value)
    fields = {name: encode(v, f"{path}.{name}", arrays) for name, v in contents.items()}
    return {"$": "module" if isinstance(value, eqx.Module) else "record", "class": name_of(kind), "fields": fields}


def _contents(value: Any) -> dict[str, Any]:
    """Fields, and what cached properties have found."""
    if isinstance(value, tuple):
        return value._asdict()  # type: ignore[attr-defined]
    kept = [n for n in vars(value) if isinstance(getattr(type(value), n, None), functools.cached_property)]
    return {n: vars(value)[n] for n in [*(f.name for f in dataclasses.fields(value)), *kept]}


def _array(value: Any, path: str, arrays: Arrays) -> dict[str, Any]:
    code = {"$": "array", "at": path, "as": "numpy" if isinstance(value, np.ndarray) else "jax"}
    if isinstance(value, np.generic):
        code["as"] = "scalar"
    elif isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        code |= {"as": "key", "law": str(jax.random.key_impl(value))}
        value = jax.random.key_data(value)
    arrays[path] = np.asarray(value)
    return code | {"dtype": str(arrays[path].dtype)}


def foreign(code: Any) -> list[str]:
    """Names of the classes and functions in `code` that cannot be made from a file."""
    if isinstance(code, list):
        return [name for part in code for name in foreign(part)]
    if not isinstance(code, dict):
        return []
    return [code["class"]] if code.get("$") == "foreign" else [n for part in code.values() for n in foreign(part)]


class Reader:
    """Makes trees again. `label` names what is read ("family"), and the argument that supplies foreign parts."""

    def __init__(self, arrays: Arrays, file: str, label: str):
        self.arrays, self.file, self.label = arrays, file, label

    def refuse(self, wrong: str, because: str, instead: str) -> CheckpointError:
        return CheckpointError(explain(f"reading the {self.label} in `{self.file}`", wrong, because, instead))

    def get(self, at: str) -> np.ndarray:
        if at not in self.arrays:
            raise self.refuse(f"the array `{at}` is missing", "the file is incomplete", "an older copy, or a new run")
        return self.arrays[at]

    def decode(self, code: Any, path: str, like: Any = _MISSING) -> Any:
        """Inverse of `encode`; foreign parts are those of `like`, with the saved arrays."""
        if isinstance(code, list):
            return [self.decode(v, f"{path}[{i}]", _item(like, i)) for i, v in enumerate(code)]
        if not isinstance(code, dict):
            return code
        kind = code.get("$")
        if kind not in KINDS:
            raise self.refuse(f"an entry of kind {kind!r}", "it is unknown here", "a newer jensen")
        try:
            return getattr(self, f"_read_{kind}")(code, path, like)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            if isinstance(error, JensenError):
                raise
            wrong = f"the entry of kind `{kind}` at `{path}` cannot be read: {type(error).__name__}: {error}"
            raise self.refuse(wrong, BY_HAND, OTHER_VERSION) from error

    def _read_float(self, code, path, like):
        return float(code["value"])

    def _read_array(self, code, path, like):
        value, dtype, form = self.get(code["at"]), code["dtype"], code["as"]
        if value.dtype.kind == "V" and value.dtype.names is None:  # npz has no name for bfloat16 and its like
            value = value.view(jnp.dtype(dtype))
        known = value.dtype.kind in NUMBERS or jnp.issubdtype(value.dtype, np.number)
        if not known or str(value.dtype) != dtype or form not in ("jax", "numpy", "scalar", "key"):
            raise self.refuse(f"the array `{code['at']}` is of type {value.dtype}, not {dtype}", BY_HAND, OTHER_VERSION)
        if form == "key":
            if code["law"] not in KEYS:
                raise self.refuse(f"a key of the law {code['law']!r}", BY_HAND, OTHER_VERSION)
            return jax.random.wrap_key_data(jnp.asarray(value), impl=code["law"])
        return jnp.asarray(value) if form == "jax" else value if form == "numpy" else value[()]

    def _read_tuple(self, code, path, like):
        return tuple(self.decode(code["items"], path, like))

    def _read_frozenset(self, code, path, like):
        return frozenset(self.decode(code["items"], path))

    def _read_dict(self, code, path, like):
        keys = [self.decode(k, path) for k, _ in code["items"]]
        values = [v for _, v in code["items"]]
        return {k: self.decode(v, f"{path}[{k!r}]", _item(like, k)) for k, v in zip(keys, values, strict=True)}

    def _read_layout(self, code, path, like):
        return Layout(self.decode(code["tree"], path))

    def _read_wrapped(self, code, path, like):
        fn = self.decode(code["fn"], path, getattr(like, "fn", like))
        if not callable(fn):
            raise self.refuse(f"a `{type(fn).__name__}` stands for a function", BY_HAND, OTHER_VERSION)
        return Function(fn)

    def _read_enum(self, code, path, like):
        members = self._find(code["class"], enum.Enum).__members__
        if code["name"] not in members:
            raise self.refuse(f"`{code['class']}` has no member {code['name']!r}", BY_HAND, OTHER_VERSION)
        return members[code["name"]]

    def _read_function(self, code, path, like):
        if code["name"] not in functions():
            wrong, because = f"there is no public function `{code['name']}`", "only functions of arrays can be read"
            raise self.refuse(wrong, because, OTHER_VERSION)
        return functions()[code["name"]]

    def _read_module(self, code, path, like):
        cls = self._find(code["class"], eqx.Module)
        saved = code["fields"]
        defaults = {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
        names = [f.name for f in dataclasses.fields(cls)]
        if set(saved) - set(names) or set(names) - set(saved) - set(defaults):
            raise self._other_fields(cls, names, saved)
        made = object.__new__(cls)  # not __init__: it makes starting values, and these are fitted ones
        for name in names:
            there = getattr(like, name, _MISSING)
            value = self.decode(saved[name], f"{path}.{name}", there) if name in saved else defaults[name]
            object.__setattr__(made, name, value)
        return made

    def _read_record(self, code, path, like):
        cls = self._find(code["class"], object)
        if not is_record(cls):
            raise self.refuse(f"`{code['class']}` is no record", BY_HAND, OTHER_VERSION)
        values = {n: self.decode(v, f"{path}.{n}", getattr(like, n, _MISSING)) for n, v in code["fields"].items()}
        values = _upgraded(cls, values)
        names = getattr(cls, "_fields", None) or [f.name for f in dataclasses.fields(cls)]
        kept = {n for n in values if isinstance(getattr(cls, n, None), functools.cached_property)}
        given = set(values) - kept
        if given - set(names) or set(names) - given - _defaults(cls):  # a field that came later has a default
            raise self._other_fields(cls, names, values)
        made = cls(**{n: v for n, v in values.items() if n not in kept})
        if kept:
            vars(made).update({n: values[n] for n in kept})
        return made

    def _other_fields(self, cls, names, saved):
        wrong = f"`{cls.__name__}` now has the fields {list(names)}, and the file has {list(saved)}"
        return self.refuse(wrong, "it was written by another version", "the versions named in fit.json")

    def _read_foreign(self, code, path, like):
        given = None if like is _MISSING else name_of(like)
        if given is None or given.partition(":")[2] != code["class"].partition(":")[2]:
            wrong = f"`{code['class']}` is not part of jensen or Equinox" + (f"; got `{given}` for it" if given else "")
            because = "a file holds names and numbers, not Python code"
            raise self.refuse(wrong, because, f"load(folder, {self.label}=...) with the same structure as was fitted")
        return self.fill(like, path)

    def fill(self, like: PyTree, path: str) -> PyTree:
        """`like` with its arrays replaced by the saved ones of the same path and shape."""
        leaves, treedef = jax.tree.flatten(like)
        names = [path + jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_flatten_with_path(like)[0]]
        return jax.tree.unflatten(treedef, [self._fitting(n, a) for n, a in zip(names, leaves, strict=True)])

    def _fitting(self, name: str, leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        saved = self.arrays.get(name)
        if saved is None or saved.shape != leaf.shape:
            wrong = (
                f"`{name}` is of shape {leaf.shape} here and {'absent' if saved is None else saved.shape} in the file"
            )
            raise self.refuse(
                wrong, "saved arrays fill one structure", f"{self.label}= as it was when the fit was made"
            )
        return jnp.asarray(saved.view(leaf.dtype) if saved.dtype.kind == "V" else saved)

    def _find(self, name: str, base: type) -> type:
        found = class_named(name)
        if found is None or not issubclass(found, base):
            raise self.refuse(f"there is no class `{name}`", BY_HAND, OTHER_VERSION)
        return found


def _upgraded(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """Of the first format, which kept sentences where there are checks now."""
    if "reasons" not in values or "verdict" not in values:
        return values
    checks = from_sentences(values["verdict"], values["reasons"])
    rest = {name: value for name, value in values.items() if name not in ("verdict", "reasons")}
    if issubclass(cls, Judged):
        return rest | {"verdict": values["verdict"], "checks": checks}
    return rest | {"diagnosis": Judged(values["verdict"], checks)}


KINDS = {name.removeprefix("_read_") for name in vars(Reader) if name.startswith("_read_")}
BY_HAND = "the file was written by another version, or by hand"
OTHER_VERSION = "the versions named in fit.json"


def _item(like: Any, key: Any) -> Any:
    try:
        return like[key]
    except (TypeError, KeyError, IndexError):
        return _MISSING


def _defaults(cls: type) -> set[str]:
    """The fields of a record that may be left out."""
    if hasattr(cls, "_field_defaults"):
        return set(cls._field_defaults)
    missing = dataclasses.MISSING
    return {f.name for f in dataclasses.fields(cls) if not (f.default is missing and f.default_factory is missing)}
