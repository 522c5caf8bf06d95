"""The methods that `fit` takes: `fit(model, method=NUTS(n_chains=16))`. Adding one is a line here.

Each is loaded when it is first used.
"""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from ..algorithms.batch_and_match import BatchAndMatch as BatchAndMatch
    from ..algorithms.contrastive_divergence import ContrastiveDivergence as ContrastiveDivergence
    from ..algorithms.dadvi import DADVI as DADVI
    from ..algorithms.importance import Importance as Importance
    from ..algorithms.laplace import Laplace as Laplace
    from ..algorithms.lbfgs import LBFGS as LBFGS
    from ..algorithms.method import AbstractMethod as AbstractMethod
    from ..algorithms.method import Problem as Problem
    from ..algorithms.mixture import ModeMixture as ModeMixture
    from ..algorithms.natural_gradient import NaturalGradient as NaturalGradient
    from ..algorithms.pathfinder import Pathfinder as Pathfinder
    from ..algorithms.score_matching import GaussianScoreMatching as GaussianScoreMatching
    from ..algorithms.solver import AbstractSolver as AbstractSolver
    from ..algorithms.solver import Solution as Solution
    from ..samplers.chains import HMC as HMC
    from ..samplers.chains import MALA as MALA
    from ..samplers.conditional import ConditionalGaussian as ConditionalGaussian
    from ..samplers.nuts import NUTS as NUTS
    from ..samplers.smc import AnnealedSMC as AnnealedSMC
    from .em import EM as EM
    from .gradient import Flow as Flow
    from .gradient import GradientVI as GradientVI
    from .gradient import VariationalEM as VariationalEM
    from .ladder import Ladder as Ladder
    from .side_by_side import VCD as VCD
    from .side_by_side import AbstractSideBySide as AbstractSideBySide
    from .side_by_side import Hoffman as Hoffman
    from .side_by_side import ReweightedWakeSleep as ReweightedWakeSleep
    from .side_by_side import WakeSleep as WakeSleep
    from .trained import AbstractTrained as AbstractTrained

__getattr__, __dir__, __all__ = lazily(__name__)
