"""Errors with four parts: what was asked, what is wrong (and where), why it matters, what to write instead."""

import numbers
from typing import Any


class JensenError(Exception):
    """Base of every error raised on purpose by jensen."""


class IncompatibleComposition(JensenError, TypeError):
    """Parts that do not fit together: the gradient, the bound or the verdict would be wrong."""


class ModelError(JensenError, ValueError):
    """The model cannot be used as it is: no latents, wrong shape, never finite, an unsupported construct."""


class DataError(JensenError, ValueError):
    """The data cannot be used as they are: NaN, empty, wrong shape, unknown file type."""


class CheckpointError(JensenError, ValueError):
    """A saved run cannot be read or written: corrupt, truncated, of another composition, disk full."""


class OptionError(JensenError, ValueError):
    """An option is out of range or unknown."""


def explain(asked: str, wrong: str, because: str, instead: str) -> str:
    """The message every error of the library has: four lines, one a part."""
    return f"{asked}:\n  - wrong: {wrong}\n    because: {because}\n    instead: {instead}"


def is_count(value: Any, least: int = 1) -> bool:
    """A whole number, `least` or more."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def check_count(name: str, value: Any, of: str = "", least: int = 1) -> None:
    """Raises: OptionError for an option (of a class or a function, if named) that is no count, or below `least`."""
    if not is_count(value, least):
        asked = f"`{of}({name}={value!r})`" if of else f"{name}={value!r}"
        wrong = "it is not a positive whole number" if least == 1 else f"it is not a whole number from {least} on"
        raise OptionError(explain(asked, wrong, "it is a count", f"{name}={least} or more"))


def check_seed(seed: Any, of: str = "") -> int:
    """The seed as a Python int: whole numbers from 0 on, each with random numbers of its own. Raises: OptionError."""
    if is_count(seed, 0):
        return int(seed)
    shown = f"{seed!r:.40}"
    asked = f"`{of}(seed={shown})`" if of else f"seed={shown}"
    wrong = (
        f"it is {seed}"
        if is_count(-seed if isinstance(seed, numbers.Real) else seed)
        else f"it is a {type(seed).__name__}"
    )
    because = "all random numbers of a fit are a function of it: the same seed, the same result"
    raise OptionError(explain(asked, wrong, because, "a whole number from 0 on, seed=0"))


def check_shares(asked: str, X: Any, because: str, instead: str) -> None:
    """Raises: DataError for an array with values outside [0, 1], or NaN."""
    if X.size and not (X.min() >= 0 and X.max() <= 1):
        raise DataError(explain(asked, f"X has values from {X.min():g} to {X.max():g}", because, instead))
