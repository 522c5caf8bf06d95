"""Tables from files. Nothing is unpickled."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import cast, host
from ..errors import DataError, JensenError, explain
from ..fit.minibatch import MappedArray

if TYPE_CHECKING:
    import pandas as pd

MAPPED_BYTES = 2**30  # a larger .npy stays on disk
TYPES = ".csv, .npy, .npz, .parquet"


def load_table(path: str | Path, *, mapped: bool | None = None) -> np.ndarray | MappedArray | dict[str, np.ndarray]:
    """The array in a file.

    Arguments:  path: `.csv` (a first line that is not numbers is the header), `.npy`, `.npz`, `.parquet`.
                mapped: leave a `.npy` on disk and read rows when they are needed (default: above 1 GiB).
    Returns:    `.csv`, `.parquet`: a float array (rows, columns); `.npz` of several arrays: a dictionary of them.
    Raises:     DataError for a missing, unreadable or empty file, another type, columns that are not numbers.
    """
    path = _existing(path)
    if path.suffix == ".npy":
        wanted = path.stat().st_size > MAPPED_BYTES if mapped is None else mapped
        with _reading(path):
            return MappedArray(path) if wanted else np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        arrays = load_columns(path)
        return next(iter(arrays.values())) if len(arrays) == 1 else arrays
    frame = _frame(path)
    return cast(f"`{path}`", host(str(path), frame, missing=True, finite=False), np.dtype(np.float64))


def load_columns(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a `.csv` or `.parquet`, or the arrays of a `.npz`, by name; integers stay integers.

    A `.csv` without a header has the columns "0", "1", ...   Raises:  DataError, as `load_table`.
    """
    path = _existing(path)
    if path.suffix == ".npy":
        raise _refuse(path, "it holds one array without a name", "columns are found by name", "a .npz or a .csv")
    if path.suffix == ".npz":
        with _reading(path), np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if not arrays:
            raise _refuse(path, "it holds no array", "there is nothing to fit", "np.savez(path, x=x, y=y)")
        return arrays
    return {str(name): column.to_numpy() for name, column in _frame(path).items()}


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in TYPES.split(", "):
        wrong = f"`{path.suffix}` is not a supported type" if path.suffix else "it has no suffix"
        raise _refuse(path, wrong, "the suffix says how to read it", f"one of {TYPES}")
    if not path.is_file():
        wrong = "it is a folder" if path.is_dir() else "there is no such file"
        raise _refuse(path, wrong, "data are read from one file", f"the path of a file of type {TYPES}")
    return path


def _refuse(path: Path, wrong: str, because: str, instead: str) -> DataError:
    return DataError(explain(f"loading `{path}`", wrong, because, instead))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Any failure of a reader, as a DataError."""
    try:
        yield
    except JensenError:
        raise
    except Exception as error:  # zlib.error, struct.error, NotImplementedError, ...: a damaged file may raise anything
        what = str(error).splitlines()[0] if str(error).strip() else type(error).__name__
        wrong, because = f"it cannot be read as {path.suffix}: {what}", "it is damaged, or of another type"
        if "allow_pickle" in what or "Python objects" in what:
            wrong, because = "it holds Python objects (pickle)", "unpickling a file can run any program"
        raise _refuse(path, wrong, because, f"a file of numbers, of type {TYPES}") from error


def _frame(path: Path) -> "pd.DataFrame":
    import pandas as pd

    with _reading(path):
        frame = _csv(path) if path.suffix == ".csv" else _parquet(path)
    if frame.empty:
        raise _refuse(path, "it has no rows", "nothing can be learned from no data", "a table with at least one row")
    text = [str(n) for n in frame.columns if not pd.api.types.is_numeric_dtype(frame[n])]
    if text:
        wrong = f"columns that are not numbers: {', '.join(text)}"
        instead = "encode them as integers or one-hot columns, or leave them out"
        raise _refuse(path, wrong, "the model computes with numbers", instead)
    return frame


def _csv(path: Path) -> "pd.DataFrame":
    import pandas as pd

    with open(path, encoding="utf-8-sig") as file:
        first = next((line for line in file if line.strip()), "")
    separator = max(",;\t", key=first.count)
    cells = [c.strip().strip('"') for c in first.split(separator)]
    numbered = len(cells) > 3 and cells == [str(i) for i in range(len(cells))]  # how pandas names unnamed columns
    index = len(cells) > 1 and cells[0] == ""  # its row numbers: no data
    header = 0 if index or numbered or not all(_is_number(c) for c in cells) else None
    columns = {"sep": separator, "header": header, "index_col": 0 if index else False}
    return pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True, **columns)


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _parquet(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        instead = 'pip install "jensen[parquet]"; or a .csv or .npy'
        raise _refuse(path, "pyarrow is not installed", "pandas reads .parquet with it", instead) from error
    return pd.read_parquet(path)
