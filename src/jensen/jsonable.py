"""What standard JSON can hold."""

import math
from typing import Any

import jax
import numpy as np


def jsonable(value: Any) -> Any:
    """The value with numbers that are not finite as null, and what JSON does not know as text."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def plain(value: Any) -> Any:
    """As JSON: numbers that JSON lacks are tagged; what is not data is shown as text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        return plain(value.tolist())
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$": "float", "value": repr(float(value))}
    return str(value)


def real(value: Any) -> Any:
    """Inverse of `plain`."""
    if isinstance(value, dict):
        return float(value["value"]) if value.get("$") == "float" else {k: real(v) for k, v in value.items()}
    return [real(v) for v in value] if isinstance(value, list) else value
