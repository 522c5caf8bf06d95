"""The solvers by the names `fit(method=...)` takes."""

from collections.abc import Callable

from ..algorithms.batch_and_match import BatchAndMatch
from ..algorithms.dadvi import DADVI
from ..algorithms.importance import Importance
from ..algorithms.laplace import Laplace
from ..algorithms.mixture import ModeMixture
from ..algorithms.natural_gradient import NaturalGradient
from ..algorithms.pathfinder import Pathfinder
from ..algorithms.score_matching import GaussianScoreMatching
from ..algorithms.solver import AbstractSolver
from ..samplers.chains import Chains
from ..samplers.conditional import ConditionalGaussian
from ..samplers.nuts import NUTS


def _smc() -> AbstractSolver:
    from ..samplers.smc import AnnealedSMC

    return AnnealedSMC()


SOLVERS: dict[str, Callable[[], AbstractSolver]] = {
    "laplace": Laplace,
    "pathfinder": Pathfinder,
    "dadvi": DADVI,
    "natural-gradient": NaturalGradient,
    "batch-and-match": BatchAndMatch,
    "score-matching": GaussianScoreMatching,
    "mixture": ModeMixture,
    "importance": Importance,
    "conditional-gaussian": ConditionalGaussian,
    "hmc": lambda: Chains("hmc"),
    "nuts": NUTS,
    "mala": lambda: Chains("mala"),
    "smc": _smc,
}
"""Without "auto" (the ladder), "gradient" (stochastic gradients), "flow" (gradients, of a flow) and `iterated.ITERATED`."""
