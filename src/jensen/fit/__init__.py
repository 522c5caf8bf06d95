"""Fitting: the loop, the defaults, the result."""

from .fit import fit as fit
from .result import Fit as Fit
