"""The gradient lab: which estimator is best for this very model, by measurement."""

from .lab import gradient_lab as gradient_lab
from .result import GradientLab as GradientLab
