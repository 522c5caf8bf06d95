"""Numbers in: one rule for data, whatever path they take and whatever library holds them.

Data are kept as they were given: NumPy arrays on the host, in their own dtype (`host`). They are converted once, to the
precision of the program that reads them (`lifted`): float64 and int64 where double precision is on, else float32 and
int32. What that would change beyond rounding is refused by name.
"""

from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from .errors import DataError, explain
from .tree import Frozen, default_float, is_frozen

T = TypeVar("T")

SAMPLE = 2**17  # numbers looked at to tell whether rounding blurs an array
TOLERANCE = 0.1  # standard errors of a mean that rounding may move a column by
SD_SPREAD = 1.35  # sds of a normal law between its quartiles
NOISE = 2**6 * float(np.finfo(np.float64).eps)  # differences below that, relative, are rounding of double itself

_INSTEAD = {
    "O": "numbers: categories as codes 0..K-1 (np.unique(..., return_inverse=True)), none missing",
    "U": "codes 0..K-1 (np.unique(..., return_inverse=True)), or one-hot columns",
    "M": "numbers, e.g. days since the first: (t - t.min()) / np.timedelta64(1, 'D')",
    "m": "numbers, e.g. days: t / np.timedelta64(1, 'D')",
    "c": "its real and its imaginary part, as two arrays",
    "V": "a dictionary of arrays, one a field",
}
_MISSING = "only the rows where all is there; or a number in its place, and a mask that the model reads (obs_mask)"


def is_table(value: Any) -> bool:
    """Is it one array or table, of NumPy, JAX or another library, rather than a number or a tree of arrays?"""
    if isinstance(value, (np.ndarray, jax.Array)):
        return True
    if isinstance(value, (np.generic, type, str, bytes)) or not jax.tree_util.all_leaves([value]):
        return False
    holds = _has(value, "__array__") or _has(value, "to_numpy") or _has(value, "toarray") or _has(value, "todense")
    lazy = _has(value, "data_vars") or _has(value, "collect_schema")
    return lazy or (holds and (hasattr(value, "shape") or hasattr(value, "__len__")))


def _has(value: Any, name: str) -> bool:
    """By its type: the columns of a data frame are attributes too."""
    return hasattr(type(value), name)


def is_numbers(value: Any) -> bool:
    """Is it a list of numbers, or of such lists: an array written out?"""
    if not isinstance(value, list) or not value:
        return False
    number = lambda v: isinstance(v, (bool, int, float, complex, np.generic)) or v is None
    return all(number(v) or isinstance(v, str) or is_numbers(v) for v in value)


# ---- at rest -----------------------------------------------------------------------------------------------------
def host(name: str, value: Any, *, missing: bool = False, finite: bool = True) -> np.ndarray:
    """A table as a NumPy array of the user's own dtype (bool, integers, float16 to float64), native and read-only.

    Arguments:  name: of the argument, for messages.
                value: an array of any library; a data frame or series (pandas, polars), a DataArray, a list of numbers.
                missing: what is masked or NA becomes NaN, and NaN may stay; else both are refused.
                finite: False where infinity and NaN are for somebody else to judge.
    Raises:     DataError, which names the argument.
    Cost:       a copy, so that the caller may write to his array afterwards.
    """
    a = plain(f"`{name}`", _native(f"`{name}`", value, missing))
    if finite and a.dtype.kind == "f" and not (np.isfinite(a) | (missing & np.isnan(a))).all():
        bad = ~(np.isfinite(a) | (missing & np.isnan(a)))
        where, kind = ", ".join(map(str, np.argwhere(bad)[0])), "NaN" if np.isnan(a[bad]).any() else "inf"
        what = f"{int(bad.sum())} of {a.size} values are not finite (NaN or infinite), the first ({kind}) at [{where}]"
        instead = "drop or impute them, or model them as missing: any number in their place, and obs_mask=mask"
        _refuse(f"`{name}` of shape {a.shape}", what, "one of them makes every log density and gradient NaN", instead)
    if not isinstance(value, jax.Array) and (a.flags.writeable or not a.flags.owndata):
        a = a.copy()
    a.flags.writeable = False
    return a


def given(name: str, tree: PyTree, **how: Any) -> PyTree:
    """`host` of every leaf of a tree: tables, lists of numbers, numbers."""
    whole = lambda v: is_table(v) or is_numbers(v)
    return jax.tree_util.tree_map_with_path(lambda path, v: host(place(name, path), v, **how), tree, is_leaf=whole)


def _refuse(asked: str, wrong: str, because: str, instead: str, cause: Exception | None = None) -> NoReturn:
    raise DataError(explain(asked, wrong, because, instead)) from cause


def _native(asked: str, value: Any, missing: bool) -> np.ndarray:
    """Out of whatever holds it; nothing that is missing is taken for a number."""
    try:
        return _read(asked, value, missing)
    except DataError:
        raise
    except Exception as error:  # whatever another library raises
        wrong = f"it is not an array: {type(error).__name__}: {error}"
        _refuse(asked, wrong, "rows must have one shape, and be numbers", "a rectangular array of numbers", error)


def _read(asked: str, value: Any, missing: bool) -> np.ndarray:
    kind = type(value).__name__
    if isinstance(value, np.ma.MaskedArray):
        return _filled(asked, np.asarray(value.data), np.ma.getmaskarray(value), missing)
    if _has(value, "data_vars"):
        _refuse(asked, f"it is a {kind}", "it holds several arrays", "a dictionary: {name: ds[name] for name in ds}")
    if _has(value, "collect_schema") and not _has(value, "to_numpy"):
        _refuse(asked, f"it is a {kind}, not yet computed", "numbers are read", ".collect()")
    if _has(value, "toarray") or _has(value, "todense"):
        because = "what reads it would need the zeros too"
        _refuse(asked, f"it is sparse ({kind})", because, ".toarray(), if that fits in memory")
    if _has(value, "categories") and _has(value, "codes"):
        _refuse(asked, "it is categorical", "the model computes with numbers", "its codes: .codes")
    if _has(value, "dims") and _has(value, "values"):
        return np.asarray(value.values)
    if _has(value, "columns") and _has(value, "to_numpy"):
        return _frame(asked, value, missing)
    if _has(value, "to_numpy") and (_has(value, "isna") or _has(value, "fill_null")):
        return _column(asked, value, missing)
    if isinstance(value, (list, tuple)) and any(is_table(v) or isinstance(v, (list, tuple)) for v in value):
        parts = [_read(f"{asked[:-1]}[{i}]`", v, missing) for i, v in enumerate(value)]
        shapes = list(dict.fromkeys(p.shape for p in parts))
        if len(shapes) > 1:
            wrong = f"it is not an array: its parts have the shapes {', '.join(map(str, shapes[:5]))}"
            _refuse(asked, wrong, "rows must have one shape", "a rectangular array")
        return _together(asked, parts)
    return np.asarray(value)


def _filled(asked: str, a: np.ndarray, gone: np.ndarray, missing: bool) -> np.ndarray:
    """NaN where it is missing; refused where that has no meaning."""
    if not gone.any():
        return a
    if not missing or a.dtype.kind not in "biuf":
        because = "what is missing is no number, and what stands in its place is no datum"
        _refuse(asked, f"{int(gone.sum())} of {gone.size} values are masked or missing", because, _MISSING)
    wide = a if a.dtype.kind == "f" else cast(asked, np.where(gone, 0, a), np.dtype(np.float64))
    return np.where(gone, wide.dtype.type(np.nan), wide)


def _frame(asked: str, frame: Any, missing: bool) -> np.ndarray:
    by_place = _has(frame, "iloc")  # names may come twice
    columns = [frame.iloc[:, i] if by_place else frame[c] for i, c in enumerate(frame.columns)]
    names = [f"{asked}, column {c!r}" for c in frame.columns]
    parts = [plain(n, _column(n, v, missing)) for n, v in zip(names, columns, strict=True)]
    return np.moveaxis(_together(asked, parts), 0, -1) if parts else np.zeros((len(frame), 0))


def _column(asked: str, column: Any, missing: bool) -> np.ndarray:
    """A series: NumPy's own dtypes, those with a mask beside them, and those of other libraries."""
    dtype = getattr(column, "dtype", None)
    if isinstance(dtype, np.dtype):
        return np.asarray(column)
    if _has(column, "fill_null"):  # polars, Arrow: integers with gaps would be read as rounded floats
        gone = np.asarray(column.is_null(), bool)
        return _filled(asked, np.asarray(column.fill_null(0) if gone.any() else column), gone, missing)
    kind = getattr(dtype, "kind", "O")
    if kind not in "biuf":
        because = "the model computes with numbers"
        _refuse(f"{asked} of dtype {dtype}", "it is not numeric", because, _INSTEAD.get(kind, _INSTEAD["O"]))
    own = np.dtype(getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", None)))
    gone = np.asarray(column.isna(), bool)
    fill = {"na_value": own.type(0)} if gone.any() else {}
    return _filled(asked, np.asarray(column.to_numpy(dtype=own, **fill)), gone, missing)


def _together(asked: str, parts: list[np.ndarray]) -> np.ndarray:
    """Stacked in their common dtype: an integer that a float beside it would round is refused."""
    try:
        dtype = np.result_type(*parts)
    except TypeError:
        dtype = np.dtype(object)
    return np.stack([cast(asked, p, dtype) if dtype.kind == "f" else p.astype(dtype) for p in parts])


def plain(asked: str, a: np.ndarray) -> np.ndarray:
    """Bool, integers or float16 to float64, in native order. Raises: DataError for any other dtype."""
    if a.dtype.kind == "V" and jnp.issubdtype(a.dtype, jnp.floating):
        a = a.astype(np.float32)  # bfloat16 and shorter: exact
    elif a.dtype.kind == "V" and jnp.issubdtype(a.dtype, jnp.integer):
        a = a.astype(np.int8)
    if a.dtype.kind not in "biuf":
        kind = {"S": "U", "T": "U"}.get(a.dtype.kind, a.dtype.kind)
        wrong = "it is complex" if kind == "c" else "it is not numeric"
        because = "the model computes with real numbers"
        _refuse(f"{asked}, an array of dtype {a.dtype}", wrong, because, _INSTEAD.get(kind, _INSTEAD["O"]))
    if a.dtype.kind == "f" and a.dtype.itemsize > 8:
        a = cast(asked, a, np.dtype(np.float64))
    return a.astype(a.dtype.newbyteorder("="), copy=False)


# ---- to the precision in force -----------------------------------------------------------------------------------
def in_double() -> bool:
    """Is double precision on, here and now?"""
    return default_float() == np.float64


def dtype_for(dtype: Any, double: bool) -> np.dtype:
    """What data of this dtype become. Bits, bytes and 32-bit words without a sign (keys) stay as they are."""
    dtype = np.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.dtype(np.float64 if double else np.float32)
    if dtype.kind in "iu" and dtype.itemsize > 1 and dtype != np.uint32:
        signed = np.int64 if double else np.int32
        return np.dtype(signed if dtype.kind == "i" or dtype.itemsize < 4 else np.uint64 if double else np.uint32)
    return dtype


def converted(name: str, a: np.ndarray, double: bool | None = None, *, check: bool = True) -> np.ndarray:
    """A host array in the dtype that programs of this precision (default: the one in force) read.

    check:   False where it was done before, or only the shape is looked at.
    Raises:  DataError for what conversion would change beyond rounding: numbers outside of the range, and columns whose
             values differ by less than the new precision resolves. Integers too, since models make floats of them.
    """
    wide = in_double() if double is None else double
    to = dtype_for(a.dtype, wide)
    if not check:
        return a.astype(to, copy=False)
    if a.dtype.kind in "iu" and a.dtype.itemsize > 1 and not wide:
        _check(f"`{name}`", a, to, np.dtype(np.float32))
        return a.astype(to, copy=False)
    return cast(f"`{name}`", a, to)


def in_range(name: str, a: np.ndarray, double: bool) -> np.ndarray:
    """`converted`, of a part of an array whose differences were looked at as a whole."""
    to = dtype_for(a.dtype, double)
    wrong = None if a.dtype == to else _beyond(a, to)
    return converted(name, a, double, check=wrong is not None)


def as_floats(name: str, a: np.ndarray) -> np.ndarray:
    """A host array as floats of the precision in force. Raises: DataError as `converted`."""
    return cast(f"`{name}`", a, np.dtype(default_float()))


def lifted(tree: PyTree, name: str = "data", *, check: bool = True) -> PyTree:
    """Host arrays of a tree as JAX arrays in the precision in force; what is one already, or no array, as it is.

    Raises:  DataError as `converted`, which names the array by its place in the tree. check: False for shapes alone.
    """
    return jax.tree_util.tree_map_with_path(lambda path, a: _lift(place(name, path), a, check), tree)


def place(name: str, path: Any) -> str:
    """`data['x'][0]`: where in a tree an array lies; fields of the library's own wrappers are left out."""
    return name + "".join(jax.tree_util.keystr((k,)) for k in path if getattr(k, "name", "") != "value")


def _lift(name: str, a: Any, check: bool) -> Any:
    if isinstance(a, Tracer) or not isinstance(a, (np.ndarray, jax.Array)):
        return a
    if isinstance(a, jax.Array) and (jnp.issubdtype(a.dtype, jax.dtypes.extended) or _is_lifted(a)):
        return a
    numeric = np.asarray(a)
    if numeric.dtype.kind not in "biuf" and not jnp.issubdtype(numeric.dtype, jnp.floating):
        return a
    return jnp.asarray(converted(name, plain(f"`{name}`", numeric), check=check))


def _is_lifted(a: jax.Array) -> bool:
    return a.dtype == dtype_for(a.dtype, in_double()) and not a.weak_type


def in_force(module: T) -> T:
    """A model or a family in the precision in force: data (what is `Frozen`) as `lifted`, what is trained rounded."""
    floats = (np.float32, np.float64)
    trained = lambda a: isinstance(a, jax.Array) and not isinstance(a, Tracer) and a.dtype in floats
    one = lambda a: jnp.asarray(a, default_float()) if trained(a) and a.dtype != default_float() else a

    def part(path: Any, node: Any) -> Any:
        if not is_frozen(node):
            return one(node)
        return Frozen(lifted(node.value, place("", path).lstrip(".") or "data"))

    return jax.tree_util.tree_map_with_path(part, module, is_leaf=is_frozen)


# ---- what conversion would lose ----------------------------------------------------------------------------------
def cast(asked: str, a: np.ndarray, to: np.dtype) -> np.ndarray:
    """`a` in another dtype. Raises: DataError where that changes it beyond rounding."""
    if a.dtype == to:
        return a
    _check(asked, a, to, to)
    return a.astype(to)


def _check(asked: str, a: np.ndarray, to: np.dtype, as_float: np.dtype) -> None:
    """Raises: DataError if `a` as `to`, or the floats that a model makes of it, are other numbers."""
    wrong = _beyond(a, to) or _blurred(a, as_float)
    if wrong:
        because = "the program would read other numbers, and the answer would be to other data"
        single = to.kind in "iu" or to == np.float32
        instead = "other units, centred and scaled: (x - x.mean()) / x.std(), before it is passed"
        if single and (a.dtype.itemsize <= 8):
            instead += "; or double precision: `with jax.enable_x64(True):` around the call"
        _refuse(f"{asked} of dtype {a.dtype}, in {'single' if single else 'double'} precision", wrong, because, instead)


def _beyond(a: np.ndarray, to: np.dtype) -> str | None:
    """Which values lie outside of the range of `to`."""
    if not a.size or a.dtype.kind == "b":
        return None
    if to.kind in "iu":
        low, high = int(a.min()), int(a.max())
        fits = np.iinfo(to).min <= low and high <= np.iinfo(to).max
        return None if fits else f"values of {a.dtype} from {low} to {high} do not fit {to}"
    if a.dtype.kind != "f" or a.dtype.itemsize <= to.itemsize:
        return None
    size, info = np.abs(a), np.finfo(to)
    large, small = size[np.isfinite(size)] > info.max, (size > 0) & (size < info.tiny)
    if large.any():
        return f"{int(large.sum())} values are larger than {info.max:.3g}, and become infinite"
    return f"{int(small.sum())} values are smaller than {info.tiny:.3g}, and become 0" if small.any() else None


def _blurred(a: np.ndarray, to: np.dtype) -> str | None:
    """Which column's differences `to` does not resolve: its rounding moves the mean by more than a tenth of a standard
    error, or is coarser than the step from one row to the next. Judged on rows spread over the array."""
    if to.kind != "f" or a.dtype.kind == "b" or a.dtype.itemsize < to.itemsize or a.dtype == to:
        return None
    while a.ndim > 1 and len(a) == 1:
        a = a[0]
    if a.ndim == 0 or len(a) < 2 or not a.size:
        return None
    width = max(1, a[0].size)
    at = np.unique(np.linspace(0, len(a) - 2, min(len(a) - 1, max(32, SAMPLE // width))).astype(int))
    exact = np.longdouble if a.dtype.kind in "iu" or a.dtype.itemsize > 8 else np.float64
    flat = lambda rows: a[rows].reshape(len(rows), -1).astype(exact)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        here, there = flat(at), flat(at + 1)
        rows = np.concatenate([here, there[-1:]])
        error, beside = (np.abs(x.astype(to).astype(exact) - x) for x in (rows, there))
        inexact = error > 0
        if not inexact.any():
            return None
        middle, lower, upper, least, most = _quantiles(rows, inexact, (0.5, 0.25, 0.75, 0.0, 1.0))
        noise = (NOISE if a.dtype.kind == "f" else 0.0) * np.maximum(np.abs(least), np.abs(most))
        spread = np.where(upper > lower, upper - lower, most - least)
        gaps = np.abs(there - here)
        (apart,) = _quantiles(gaps, (gaps > noise) & (inexact[:-1] | (beside > 0)), (0.5,))
        (typical,) = _quantiles(error, inexact, (0.5,))
        steps = np.spacing(np.abs(middle).astype(to)).astype(float)
        moved = typical * np.sqrt(len(a) * inexact.mean(0)) > TOLERANCE * spread / SD_SPREAD
        wrong = (inexact.sum(0) > 1) & (spread > noise) & (moved | (apart < steps))
    if not wrong.any():
        return None
    j = int(np.flatnonzero(wrong)[0])
    gap, where = apart[j] if np.isfinite(apart[j]) else spread[j], f"in column {j} " if width > 1 else ""
    return (
        f"values {where}lie near {float(middle[j]):.6g}, where {to} has steps of {steps[j]:.2g}, and differ by "
        f"{float(gap):.2g} from row to row ({float(spread[j]):.2g} in their middle half)"
    )


def _quantiles(values: np.ndarray, counted: np.ndarray, shares: tuple[float, ...]) -> list[np.ndarray]:
    """Of those that count, of each column; infinite where none does."""
    order, last = np.sort(np.where(counted, values, np.inf), 0), np.maximum(counted.sum(0) - 1, 0)
    return [np.take_along_axis(order, np.round(share * last).astype(int)[None], 0)[0] for share in shares]
