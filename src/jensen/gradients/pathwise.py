"""Pathwise gradient."""

from typing import ClassVar

from ..facts import Fact
from .base import AbstractSimple, Terms
from .requirements import DIFFERENTIABLE, REPARAMETERISED


class Pathwise(AbstractSimple):
    """Pathwise (reparameterization) gradient.

    Definition: grad E_q[g(l)] = E_eps[grad g(l(T_phi(eps)))], z = T_phi(eps).
    Bias:       none.   Cost: one log-density gradient a draw.
    Reference:  Kingma and Welling (2014); Rezende, Mohamed and Wierstra (2014).  [kingma2014vae]
    """

    requires: ClassVar = (REPARAMETERISED, DIFFERENTIABLE)
    min_samples: ClassVar = 1
    unbiased: ClassVar = True
    role: ClassVar = "path"

    def terms(self, noise, bound, carry):
        linear = Fact.LINEAR in bound.objective.facts
        value = bound.reduce(bound.draw_and_log_weight(noise, estimate=linear)[1])
        return Terms(value, value)
