"""Objectives: which bound."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .base import AbstractObjective as AbstractObjective
    from .cubo import CUBO as CUBO
    from .elbo import ELBO as ELBO
    from .iwae import IWAE as IWAE
    from .renyi import Renyi as Renyi

__getattr__, __dir__, __all__ = lazily(__name__)
