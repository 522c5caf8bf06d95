"""Minibatches: a fresh permutation each epoch, the last short batch padded and weighted so that no row counts twice.

Rows of step s are a function of (key, s) alone.
"""

import os
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree

from ..arrays import converted, dtype_for, in_double, in_range, plain
from ..batch import Batch
from ..errors import DataError, explain
from ..tree import default_float, length


def steps_per_epoch(n_data: int, batch_size: int) -> int:
    return -(-n_data // batch_size)


def permutation(key: Array, epoch: Array, n_data: int, batch_size: int) -> Array:
    """This epoch's row numbers, padded with -1 to whole batches."""
    order = jr.permutation(jr.fold_in(key, epoch), n_data).astype(jnp.int32)
    pad = steps_per_epoch(n_data, batch_size) * batch_size - n_data
    return jnp.concatenate([order, jnp.full(pad, -1, jnp.int32)]) if pad else order


def batch_at(rows: PyTree, order: Array, position: Array, n_data: int, batch_size: int) -> Batch:
    """The batch at `position` of the epoch whose order is given. Weights are N/n on its n rows, 0 on padding."""
    index = jax.lax.dynamic_slice_in_dim(order, position * batch_size, batch_size)
    if n_data % batch_size == 0:
        weight = jnp.full(batch_size, n_data / batch_size, default_float())
    else:
        real = (index >= 0).astype(default_float())
        weight = real * (n_data / real.sum())
    index = jnp.maximum(index, 0)
    return Batch(jax.tree.map(lambda a: a[index], rows), weight)


def first_batch(rows: PyTree, batch_size: int | None) -> Batch:
    """A batch of the right shapes, for initialisation."""
    if rows is None or batch_size is None:
        return Batch(rows, None)
    n = min(batch_size, n_rows(rows))
    take = lambda a: jnp.asarray(a[np.arange(batch_size) % n])
    return Batch(jax.tree.map(take, rows), jnp.full(batch_size, n_rows(rows) / n, default_float()))


LOOK = 64  # blocks of a file, and rows of each, that are looked at before it is read in another precision


class MappedArray:
    """A `.npy` larger than memory, read row by row where it is needed.

    By `pread`, not through a memory map: a random page fault reads far more than a row ahead, and mapped pages count as
    resident. So the resident memory does not grow with the file. Rows are read in the precision in force.
    Raises:  DataError for a file that is not a `.npy` of plain numbers in C order; where rows are read, for numbers
             that the precision in force would blur (looked at in blocks of rows spread over the file).
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        mapped = np.load(self.path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype, self._offset = mapped.shape, mapped.dtype, mapped.offset
        plain(f"`{path}`", np.empty(0, self.dtype))  # of numbers
        self._resolved: set[bool] = set()
        if not mapped.flags.c_contiguous or mapped.ndim == 0:
            asked, instead = f"reading `{path}` by rows", "np.save(path, np.ascontiguousarray(x))"
            raise DataError(explain(asked, "it is not in C order", "a row must lie in one piece", instead))
        self._row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115 - lives as long as the array

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        """The rows of an integer array, or of a slice, in the precision in force."""
        return self.read(index, in_double())

    def read(self, index: np.ndarray | slice, double: bool) -> np.ndarray:
        """The same in single or double precision, from any thread."""
        if double not in self._resolved:
            first = np.unique(np.linspace(0, max(len(self) - LOOK, 0), LOOK).astype(int))
            spread = np.unique(np.minimum(first[:, None] + np.arange(LOOK), len(self) - 1))
            converted(str(self.path), self._read(spread), double)
            self._resolved.add(double)
        return in_range(str(self.path), self._read(index), double)

    def _read(self, index: np.ndarray | slice) -> np.ndarray:
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        view, n = out.data.cast("B"), self._row_bytes
        for i, row in enumerate(rows):
            if os.preadv(self._file.fileno(), [view[i * n : (i + 1) * n]], self._offset + int(row) * n) != n:
                because, instead = "the file is shorter than its header says", "an intact file"
                raise DataError(explain(f"reading row {row} of `{self.path}`", "it cannot be read", because, instead))
        return plain(f"`{self.path}`", out)


def n_rows(rows: PyTree) -> int:
    """Rows of data in memory or on disk."""
    return len(rows) if isinstance(rows, MappedArray) else length(rows)


def divided(rows: PyTree, batch_size: int | None) -> bool:
    """Does a step see some of the rows, and not all?"""
    return batch_size is not None and rows is not None and batch_size < n_rows(rows)


class Stream:
    """Batches of a mapped array, chunk by chunk, the next one read by a thread while the current one is computed."""

    def __init__(self, rows: MappedArray, batch_size: int, seed: int, chunk: int):
        self.rows, self.batch_size, self.seed, self.chunk = rows, batch_size, seed, chunk
        self.double = in_double()  # the thread that reads ahead does not know of `with jax.enable_x64(True)`
        self._order: tuple[int, np.ndarray] | None = None
        self._ahead: tuple[int, threading.Thread, dict] | None = None

    def _index(self, step: int) -> np.ndarray:
        n, b = len(self.rows), self.batch_size
        epoch, position = divmod(step, steps_per_epoch(n, b))
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(n)
        return self._order[1][position * b : (position + 1) * b]

    def _read(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        n, b = len(self.rows), self.batch_size
        out = np.zeros((self.chunk, b, *self.rows.shape[1:]), dtype_for(self.rows.dtype, self.double))
        weight = np.zeros((self.chunk, b), dtype_for(np.float64, self.double))
        for i in range(self.chunk):
            index = self._index(start + i)
            sorted_index = np.sort(index)  # reading in file order; a batch is a set
            out[i, : len(index)] = self._finite(self.rows.read(sorted_index, self.double), sorted_index)
            weight[i, : len(index)] = n / len(index)
        return out, weight

    def _finite(self, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        bad = ~np.isfinite(rows).reshape(len(rows), -1).all(1)
        if bad.any():
            wrong = f"row {index[np.argmax(bad)]} has NaN or an infinite value"
            because, instead = "one of them makes every gradient NaN", "drop or impute such rows"
            raise DataError(explain(f"fitting to `{self.rows.path}`", wrong, because, instead))
        return rows

    def get(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """The chunk of batches from step `start`; begins to read the one after."""
        if self._ahead is not None and self._ahead[0] == start:
            _, thread, box = self._ahead
            thread.join()
            if "error" in box:
                raise box["error"]
            now = box["value"]
        else:
            if self._ahead is not None:
                self._ahead[1].join()
            now = self._read(start)
        box: dict = {}

        def read(at=start + self.chunk):
            try:
                box["value"] = self._read(at)
            except (OSError, DataError) as error:
                box["error"] = error

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        self._ahead = (start + self.chunk, thread, box)
        return now
