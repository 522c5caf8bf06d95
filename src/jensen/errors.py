"""Errors with four parts: what was asked, what is wrong (and where), why it matters, what to write instead."""


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
