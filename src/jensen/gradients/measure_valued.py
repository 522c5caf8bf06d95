"""Measure-valued derivatives."""

from typing import ClassVar

from ..facts import Fact, Requirement
from .alternatives import AbstractAlternatives
from .requirements import FRESH

_WEAK = Requirement(
    "family",
    Fact.WEAK_DERIVATIVE,
    "each parameter's derivative is a difference of two expectations",
    "LeaveOneOut(), or Pathwise()",
)


class MeasureValued(AbstractAlternatives):
    """Measure-valued (weak) derivatives.

    Definition: d q_i / d theta_i = c (q_i^+ - q_i^-) for each coordinate's law; dL/dtheta_i = E c (f(z^+) - f(z^-)), z^+ and
                z^- equal to the draw but for coordinate i. The pairs are coupled, with the draw itself where that can be.
    Arguments:  none. K draws, each with its own perturbed ones.
    Bias:       none; f may be of any kind, discontinuous too.
    Cost:       evaluations a draw, besides its own: D for Bernoullis (flips: the exact difference), D (C - 1) for
                categoricals, 3 D for mean-field Gaussians (two for the mean, one for the scale), one for each number
                among the parameters of a `Univariate`. No gradient of log p in z.
    Reference:  Pflug (1996); Mohamed, Rosca, Figurnov and Mnih (2020), section 6.  [mohamed2020monte]
    """

    requires: ClassVar = (_WEAK, FRESH)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = None
    same_law: ClassVar = False

    def noise(self, key, plan, q, shape):
        return plan.draw(key, (q.noise_law(), q.weak_noise_law()), shape)

    def alternatives(self, q, noise):
        draw = q.transform(noise[0])
        return draw, *q.weak_derivatives(draw, noise[1])
