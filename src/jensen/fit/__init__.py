"""Fitting: the loop, the defaults, the result."""

from typing import TYPE_CHECKING

from ..lazy import lazily
from .fit import fit as fit

if TYPE_CHECKING:
    from .result import Fit as Fit

__getattr__, __dir__, __all__ = lazily(__name__)
