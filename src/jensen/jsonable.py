"""What standard JSON can hold."""

import math
from typing import Any


def jsonable(value: Any) -> Any:
    """The value with numbers that are not finite as null, and what JSON does not know as text."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
