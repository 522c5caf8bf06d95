"""Data of EM: checked, in memory in chunks, or on disk and read block by block."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..algorithms.em import Chunks
from ..arrays import as_floats, host, plain
from ..compiled import compiled
from ..errors import DataError, explain
from ..models.em import AbstractEM
from .minibatch import MappedArray

BLOCK_BYTES = 2**26  # of a file, read at once


class Source:
    """Rows and weights, checked; in memory, or on disk and read in blocks."""

    def __init__(self, model: AbstractEM, data: Any, weights: Any):
        self.data, self.streamed = data, isinstance(data, (MappedArray, np.memmap))
        n = len(data)
        self.weights = np.ones(n, dtype()) if weights is None else _weights(weights, n)
        self.total = float(self.weights.sum(dtype=np.float64))
        if self.streamed:
            path, self.offset = Path(data.path if isinstance(data, MappedArray) else str(data.filename)), 0
            self.path = path
            self.offset = (
                np.load(path, mmap_mode="r").offset if path.suffix == ".npy" else int(getattr(data, "offset", 0))
            )
            self.block = max(1, BLOCK_BYTES // (int(np.prod(data.shape[1:])) * data.dtype.itemsize))
            self.model = model.bound_to(self._witness(model))
        else:
            self.data = checked(model, data)
            self.model = model.bound_to(self.data)
        self.shape = (n, *self.data.shape[1:])
        self.per_chunk = min(self.model.chunk(self.shape), n)
        self.enough, self._chunks = None, None
        self.size = self.total
        if len(self.shape) == 3:
            self.size = float(self.weights.astype(np.float64) @ (~np.isnan(self.data).all(-1)).sum(1))
        _refuse_few(self.model, self.size if len(self.shape) == 3 else n)

    def _read(self, start: int, stop: int) -> np.ndarray:
        """A block in one piece, not through a map: mapped pages would count as resident."""
        shape = (stop - start, *self.data.shape[1:])
        size = int(np.prod(shape[1:]))
        where = self.offset + start * size * self.data.dtype.itemsize
        return plain("`data`", np.fromfile(self.path, self.data.dtype, shape[0] * size, offset=where).reshape(shape))

    def _witness(self, model: AbstractEM) -> np.ndarray:
        """A few rows that say what all say of ranges and of missing values, after a look at every block."""
        found = []
        for a in range(0, len(self.data), self.block):
            rows = checked(model, self._read(a, min(a + self.block, len(self.data))))
            model.bound_to(rows)
            found += [np.nanmin(rows, 0), np.nanmax(rows, 0)]
            if np.isnan(rows).any():
                found.append(np.full_like(found[-1], np.nan))
        return np.stack(found)

    def some(self, n: int, seed: int) -> PyTree:
        """What starts are made from: up to n rows (or steps) of positive weight; or what the model says is enough."""
        if self.enough is not None:
            return self.enough
        n = n if len(self.shape) == 2 else -(-n // self.shape[1])
        there = np.flatnonzero(self.weights > 0)
        chosen = np.sort(np.random.default_rng(seed).permutation(there)[:n])
        return jnp.asarray(np.asarray(self.data[chosen]), dtype())

    def chunks(self) -> Chunks:
        """Everything in memory, in chunks; or what the model says is enough."""
        if self._chunks is None:
            self._chunks = chunked(self.data, self.weights, self.per_chunk)
            self.enough = _collapsed(self.model, self._chunks)
            if self.enough is not None:
                self._chunks = Chunks(self.enough, jnp.full((1, 1), self.total, dtype()))
        return self._chunks

    def one_chunk(self) -> Chunks:
        """A chunk of nothing, of the shape of all."""
        shape = 1, self.per_chunk
        return Chunks(np.zeros((*shape, *self.shape[1:]), dtype()), np.zeros(shape, dtype()))

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, weights) of each block, all of one shape: the last is padded with rows of weight 0."""
        size = self.block if self.streamed else len(self.data)
        size = min(-(-size // self.per_chunk) * self.per_chunk, -(-len(self.data) // self.per_chunk) * self.per_chunk)
        for a in range(0, len(self.data), size):
            b = min(a + size, len(self.data))
            rows = np.asarray(self._read(a, b) if self.streamed else self.data[a:b], dtype())
            if b - a < size:
                rows = np.concatenate([rows, np.zeros((size - (b - a), *rows.shape[1:]), rows.dtype)])
            yield rows, np.concatenate([self.weights[a:b], np.zeros(size - (b - a), dtype())])


def chunked(rows: np.ndarray, weights: np.ndarray, per_chunk: int) -> Chunks:
    n = len(rows)
    pad = -n % per_chunk
    full = lambda a: np.concatenate([a, np.zeros((pad, *a.shape[1:]), a.dtype)]) if pad else a
    shaped = lambda a: jnp.asarray(full(a).reshape(-1, per_chunk, *a.shape[1:]), dtype())
    return Chunks(shaped(rows), shaped(weights))


@compiled()
def _collapsed(model: AbstractEM, data: Chunks) -> PyTree | None:
    return model.collapsed(data.rows, data.weights)


def _refuse_few(model: AbstractEM, n: float) -> None:
    if n < model.least_rows:
        asked, wrong = (
            f"EM of {type(model).__name__}",
            f"there are {n:g} rows, and at least {model.least_rows} are needed",
        )
        because, instead = "every component needs a row of its own", "fewer components, or more rows"
        raise DataError(explain(asked, wrong, because, instead))


def checked(model: AbstractEM, data: Any, fitting: bool = True) -> np.ndarray:
    """Data as an array of the model's number of axes and the default float; DataError for what cannot be used."""
    asked = f"EM of {type(model).__name__}"
    rows = host("data", data, missing=True, finite=False)
    if rows.ndim != model.ndim or not rows.size:
        axes = "(n, d)" if model.ndim == 2 else "(n, T, d)"
        raise DataError(explain(asked, f"the data have shape {rows.shape}", f"they must be {axes}", f"shape {axes}"))
    rows = as_floats("data", rows)
    if np.isfinite(rows).all():
        return rows
    if np.isinf(rows).any():
        where = np.argwhere(np.isinf(rows))[0].tolist()
        raise DataError(
            explain(asked, f"a value is infinite, at {where}", "it has no density", "NaN, if it is missing")
        )
    empty = np.flatnonzero(np.isnan(rows).all(tuple(range(rows.ndim - 1))))
    if fitting and len(empty):
        because, instead = "nothing can be learned of it", "leave it out"
        raise DataError(explain(asked, f"column {empty[0]} has no value at all", because, instead))
    return rows


def opened(data: Any) -> Any:
    if isinstance(data, (str, Path)):
        from ..data.load import load_table

        data = load_table(data)
    if isinstance(data, (list, tuple)) and len(data) and all(np.ndim(a) == 2 for a in data):
        return stacked(data)
    return data if isinstance(data, (MappedArray, np.memmap)) else host("data", data, missing=True, finite=False)


def stacked(sequences: Any) -> Float[np.ndarray, "n T d"]:
    """Sequences of different lengths in one array, NaN after the end of each."""
    sequences = [host(f"data[{i}]", a, missing=True, finite=False) for i, a in enumerate(sequences)]
    widths = {np.shape(a)[1] for a in sequences}
    if len(widths) > 1:
        wrong = f"they have {sorted(widths)} columns"
        raise DataError(explain("data of several sequences", wrong, "a column is one variable", "equal columns"))
    out = np.full((len(sequences), max(len(a) for a in sequences), widths.pop()), np.nan)
    for i, a in enumerate(sequences):
        out[i, : len(a)] = a
    return out


def _weights(weights: Any, n: int) -> np.ndarray:
    w = host("weights", weights, finite=False).astype(np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any() or not w.sum() > 0:
        wrong = f"they have shape {w.shape}, or a value below 0 or not finite, or are all 0"
        because = "a row of weight w counts w times"
        raise DataError(explain(f"weights of {n} rows", wrong, because, f"an array of shape ({n},), none below 0"))
    return w.astype(dtype())


def by_chunks(method: Any, model: AbstractEM, params: PyTree, rows: np.ndarray, *more: np.ndarray) -> Any:
    """method(model, params, rows, *more) in chunks of one shape, so that it compiles once and memory does not grow.
    more: whole numbers that belong to the rows."""
    per_chunk = min(model.chunk(rows.shape), len(rows))
    data = chunked(rows, np.ones(len(rows)), per_chunk)
    padded = [np.pad(np.asarray(a, np.int32), (0, -len(rows) % per_chunk), constant_values=1) for a in more]
    out = jax.device_get(_each(method, model, params, data.rows, *(a.reshape(-1, per_chunk) for a in padded)))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[: len(rows)], out)


@compiled(0)
def _each(method: Any, model: AbstractEM, params: PyTree, *rows: Array) -> Any:
    return jax.lax.map(lambda r: method(model, params, *r), rows)


def dtype() -> np.dtype:
    return np.dtype(jnp.result_type(float))


def is_double(params: PyTree) -> bool:
    return jax.tree.leaves(params)[0].dtype == np.float64
