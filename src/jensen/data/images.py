"""MNIST and sets in its formats, from files."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ..errors import DataError, explain

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def load_idx(path: str | Path) -> np.ndarray:
    """The array of an idx file, compressed (`.gz`) or not: `train-images-idx3-ubyte.gz` is uint8 (60000, 28, 28).

    Raises:     DataError for a file that is missing, truncated, or not idx.
    Reference:  LeCun, Cortes and Burges, the MNIST database.
    """
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _refuse(path, f"it cannot be read: {error}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _DTYPES:
        raise _refuse(path, "it is not an idx file")
    dtype, n_axes = np.dtype(_DTYPES[raw[2]]), raw[3]
    start = 4 + 4 * n_axes
    shape = tuple(int(n) for n in np.frombuffer(raw[4:start], ">u4")) if len(raw) >= start else None
    if shape is None or len(shape) != n_axes or len(raw) != start + math.prod(shape) * dtype.itemsize:
        raise _refuse(path, f"it is truncated or too long: {len(raw)} bytes for shape {shape}")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def binarized_mnist(path: str | Path) -> dict[str, np.ndarray]:
    """Statically binarised MNIST, `{"train", "valid", "test"}` -> uint8 of 0 and 1, (rows, 784).

    Arguments:  path: an `.npz` of packed bits, a split an array of (rows, 98).
    Reference:  Larochelle and Murray (2011).  [larochelle2011nade]
    """
    from .load import load_columns

    packed = load_columns(path)
    wrong = [n for n, a in packed.items() if a.dtype != np.uint8 or a.ndim != 2]
    if wrong:
        raise _refuse(Path(path), f"{', '.join(wrong)}: not rows of packed bits (uint8, two axes)")
    return {name: np.unpackbits(bits, axis=1) for name, bits in packed.items()}


def _refuse(path: Path, wrong: str) -> DataError:
    because, instead = "its pixels would be misread", "the file as published, checked with jensen.data.fetch"
    return DataError(explain(f"loading `{path}`", wrong, because, instead))
