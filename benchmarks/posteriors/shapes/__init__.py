"""A hundred exact densities of ten kinds, ten of each: every other one is held out."""

from benchmarks.posteriors.shapes import bounded, curved, modes, tails
from benchmarks.posteriors.shapes.base import SHAPES, Shape

__all__ = ["SHAPES", "Shape", "bounded", "curved", "modes", "tails"]
