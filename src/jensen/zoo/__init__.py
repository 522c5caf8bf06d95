"""Ready-made models with the scikit-learn API, composed of jensen's parts."""

from .dbm import DBM as DBM
from .dbm import DBN as DBN
from .discrete_vae import DiscreteVAE as DiscreteVAE
from .factor import FactorAnalysis as FactorAnalysis
from .factor import ProbabilisticPCA as ProbabilisticPCA
from .helmholtz_machine import HelmholtzMachine as HelmholtzMachine
from .markov import FactorialHMM as FactorialHMM
from .markov import HiddenMarkov as HiddenMarkov
from .mixtures import BernoulliMixture as BernoulliMixture
from .mixtures import GaussianMixture as GaussianMixture
from .mixtures import MixtureOfPPCA as MixtureOfPPCA
from .rbm import RBM as RBM
from .sigmoid_belief_net import SigmoidBeliefNet as SigmoidBeliefNet
from .vae import VAE as VAE
