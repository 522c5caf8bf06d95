"""Models: what you believe."""

from typing import TYPE_CHECKING

from ..lazy import lazily

if TYPE_CHECKING:
    from .base import AbstractModel as AbstractModel
    from .black_box import BlackBox as BlackBox
    from .boltzmann import RBM as RBM
    from .deep_belief import DBN as DBN
    from .deep_boltzmann import DBM as DBM
    from .factor import FactorAnalysis as FactorAnalysis
    from .factor import ProbabilisticPCA as ProbabilisticPCA
    from .factorial import FactorialHMM as FactorialHMM
    from .gaussian_components import ConjugatePrior as ConjugatePrior
    from .latent_variable import LatentVariable as LatentVariable
    from .log_density import LogDensity as LogDensity
    from .markov import HiddenMarkov as HiddenMarkov
    from .mixtures import BernoulliMixture as BernoulliMixture
    from .mixtures import GaussianMixture as GaussianMixture
    from .mixtures import Mixture as Mixture
    from .mixtures import MixtureOfPPCA as MixtureOfPPCA

__getattr__, __dir__, __all__ = lazily(__name__)
