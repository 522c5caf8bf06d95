"""Models: what you believe."""

from .black_box import BlackBox as BlackBox
from .latent_variable import LatentVariable as LatentVariable
from .log_density import LogDensity as LogDensity
