"""Ready-made models with the scikit-learn API, composed of jensen's parts."""

from .discrete_vae import DiscreteVAE as DiscreteVAE
from .helmholtz_machine import HelmholtzMachine as HelmholtzMachine
from .sigmoid_belief_net import SigmoidBeliefNet as SigmoidBeliefNet
from .vae import VAE as VAE
