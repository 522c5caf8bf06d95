"""Data in: rows checked once, with errors that name what is wrong, and put in the form the loop wants."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..errors import DataError, explain
from ..tree import default_float
from .minibatch import MappedArray


def as_rows(data: Any, *, divisible: bool = True) -> PyTree:
    """A table, array, or tree of arrays with a common leading axis, as JAX arrays; a `MappedArray` stays as it is.

    float64 becomes the default float; integers of up to 8 bits stay (they are cast where used), larger ones become int32.
    divisible: False where the model takes the data whole: then arrays need no common axis.
    Raises: DataError for NaN, inf, no rows, ragged or non-numeric input, leading axes that differ.
    """
    if data is None or isinstance(data, MappedArray):
        if data is not None and len(data) == 0:
            raise _empty("the file")
        return data
    if hasattr(data, "to_numpy"):
        data = data.to_numpy()
    leaves, treedef = jax.tree_util.tree_flatten_with_path(data)
    if not leaves:
        raise _empty("data")
    named = [(jax.tree_util.keystr(path) or "data", leaf) for path, leaf in leaves]
    arrays = [_array(name, leaf) for name, leaf in named]
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


def _array(name: str, leaf: Any) -> jax.Array:
    try:
        a = np.asarray(leaf)
    except ValueError as error:
        raise DataError(
            explain(f"{name}", f"it is not an array: {error}", "rows must have one shape", "a rectangular array")
        ) from error
    if a.dtype.kind not in "biuf":
        raise DataError(
            explain(
                f"{name} of dtype {a.dtype}",
                "it is not numeric",
                "the model computes with numbers",
                "encode categories as integers or one-hot columns",
            )
        )
    if a.ndim == 0:
        raise DataError(
            explain(f"{name}", "it is a single number", "data have a leading axis of rows", f"np.array([{a}])")
        )
    if a.shape[0] == 0:
        raise _empty(name)
    if a.dtype.kind == "f":
        bad = ~np.isfinite(a)
        if bad.any():
            where = ", ".join(map(str, np.argwhere(bad)[0]))
            kind = "NaN" if np.isnan(a[bad]).any() else "inf"
            raise DataError(
                explain(
                    f"{name} of shape {a.shape}",
                    f"{int(bad.sum())} values are not finite, the first ({kind}) at [{where}]",
                    "one of them makes every gradient NaN",
                    "drop or impute them, or model them as missing",
                )
            )
        return jnp.asarray(a, default_float())
    if a.dtype.itemsize > 1:
        return jnp.asarray(a.astype(np.int32) if not jax.config.read("jax_enable_x64") else a)
    return jnp.asarray(a)
