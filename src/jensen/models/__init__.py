"""Models: what you believe."""

from .latent_variable import LatentVariable as LatentVariable
from .log_density import LogDensity as LogDensity
