"""Data from a file, as the model takes them."""

import inspect
from pathlib import Path
from typing import Any

from ..errors import DataError, explain
from .target import Target


def data_for(target: Target, path: Path | None) -> Any:
    """The data argument of `jensen.fit`: those of the file, else the factory's.

    A function whose parameters are named like columns (`.csv`, `.parquet`) or arrays (`.npz`) gets them by name; any
    other model gets the whole.
    """
    from ..data.load import load_columns, load_table

    if path is None:
        return target.data
    if not target.is_function:
        return load_table(path)
    if path.suffix in (".csv", ".parquet", ".npz"):
        columns = load_columns(path)
        chosen = _by_name(target, path, columns)
        if chosen is not None:
            return chosen
    table = load_table(path)
    return (table,) if isinstance(table, dict) else table


def _by_name(target: Target, path: Path, columns: dict[str, Any]) -> dict[str, Any] | None:
    """{parameter: column}; None where the model takes one array as a whole."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [p for p in inspect.signature(target.model).parameters.values() if p.kind in kinds]
    required = [p.name for p in parameters if p.default is p.empty]
    known = {p.name: columns[p.name] for p in parameters if p.name in columns}
    missing = [name for name in required if name not in known]
    if known and not missing:
        return known
    if len(required) > 1 or known:
        asked = f"the data `{path}` for `{getattr(target.model, '__name__', 'the model')}`"
        wrong = f"no column for the parameters {', '.join(missing)}; the file has {', '.join(columns)}"
        instead = "columns named like the parameters; or one parameter, which then gets the whole array"
        raise DataError(explain(asked, wrong, "the model's arguments are found by name", instead))
    return None
