"""Gradient estimators and sampling plans."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from . import plans as plans
    from .adversarial import Adversarial as Adversarial
    from .arm import ARM as ARM
    from .arsm import ARSM as ARSM
    from .base import AbstractEstimator as AbstractEstimator
    from .disarm import DisARM as DisARM
    from .doubly_reparameterised import DoublyReparameterised as DoublyReparameterised
    from .enumerate import Enumerate as Enumerate
    from .generalised import GeneralisedPathwise as GeneralisedPathwise
    from .gumbel_softmax import GumbelSoftmax as GumbelSoftmax
    from .kivi import KernelRatio as KernelRatio
    from .lax import LAX as LAX
    from .leave_one_out import LeaveOneOut as LeaveOneOut
    from .local import RaoBlackwell as RaoBlackwell
    from .measure_valued import MeasureValued as MeasureValued
    from .muprop import MuProp as MuProp
    from .nvil import NVIL as NVIL
    from .pathwise import Pathwise as Pathwise
    from .rebar import REBAR as REBAR
    from .relax import RELAX as RELAX
    from .score_function import ScoreFunction as ScoreFunction
    from .sitewise import Sitewise as Sitewise
    from .spectral import SpectralStein as SpectralStein
    from .straight_through import StraightThrough as StraightThrough
    from .taylor import TaylorControl as TaylorControl
    from .uivi import UIVI as UIVI

__getattr__, __dir__, __all__ = lazily(__name__)
