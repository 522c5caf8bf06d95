"""Algorithms: siblings under one compiled loop, and solvers that end by themselves. Each is loaded when it is first used."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .batch_and_match import BatchAndMatch as BatchAndMatch
    from .contrastive_divergence import ContrastiveDivergence as ContrastiveDivergence
    from .dadvi import DADVI as DADVI
    from .gradient_vi import GradientVI as GradientVI
    from .importance import Importance as Importance
    from .laplace import Laplace as Laplace
    from .lbfgs import LBFGS as LBFGS
    from .mcmc_improved import VCD as VCD
    from .mcmc_improved import Hoffman as Hoffman
    from .mixture import ModeMixture as ModeMixture
    from .natural_gradient import NaturalGradient as NaturalGradient
    from .pathfinder import Pathfinder as Pathfinder
    from .score_matching import GaussianScoreMatching as GaussianScoreMatching
    from .variational_em import VariationalEM as VariationalEM
    from .wake_sleep import ReweightedWakeSleep as ReweightedWakeSleep
    from .wake_sleep import WakeSleep as WakeSleep

__getattr__, __dir__, __all__ = lazily(__name__)
