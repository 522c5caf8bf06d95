"""Data in: rows checked once, with errors that name what is wrong, as host arrays in the user's own dtypes."""

from typing import Any

import jax
from jaxtyping import PyTree

from ..arrays import host, is_numbers, is_table, place
from ..errors import DataError, explain
from .minibatch import MappedArray


def as_rows(data: Any, *, divisible: bool = True) -> PyTree:
    """A table, array, or tree of arrays with a common leading axis, as NumPy arrays; a `MappedArray` stays as it is.

    They are a copy, in the dtype they came in (`arrays.host`); `arrays.lifted` converts them to the precision in force.
    divisible: False where the model takes the data whole: then arrays need no common axis.
    Raises: DataError for NaN, inf, masked or missing values, no rows, ragged or non-numeric input, leading axes that differ.
    """
    if data is None or isinstance(data, MappedArray):
        if data is not None and len(data) == 0:
            raise _empty("the file")
        return data
    whole = lambda v: is_table(v) or is_numbers(v)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(data, is_leaf=whole)
    if not leaves:
        raise _empty("data")
    named = [(place("data", path), leaf) for path, leaf in leaves]
    arrays = [_rows(name, leaf) for name, leaf in named]
    lengths = {a.shape[0] for a in arrays}
    if divisible and len(lengths) > 1:
        sizes = ", ".join(f"{n}: {a.shape[0]}" for (n, _), a in zip(named, arrays, strict=True))
        raise DataError(
            explain(
                "data of several arrays",
                f"their leading axes differ ({sizes})",
                "row i of each is one datum",
                "arrays of equal length",
            )
        )
    return jax.tree.unflatten(treedef, arrays)


def _empty(name: str) -> DataError:
    return DataError(
        explain(
            f"fitting to {name}",
            "there are no rows",
            "nothing can be learned from no data",
            "at least one row, or data=None for a model that holds its data",
        )
    )


def _rows(name: str, leaf: Any) -> Any:
    a = host(name, leaf)
    if a.ndim == 0:
        raise DataError(
            explain(f"`{name}`", "it is a single number", "data have a leading axis of rows", f"np.array([{a}])")
        )
    if a.shape[0] == 0:
        raise _empty(name)
    return a
