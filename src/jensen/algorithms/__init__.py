"""Algorithms: siblings under one compiled loop."""

from .gradient_vi import GradientVI as GradientVI
