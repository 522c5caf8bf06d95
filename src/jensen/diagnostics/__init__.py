"""Diagnostics: is the answer to be trusted?"""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .checks import CODES as CODES
    from .checks import Check as Check
    from .checks import Verdict as Verdict
    from .psis import psis as psis

__getattr__, __dir__, __all__ = lazily(__name__)
