"""Generalised reparameterization gradient."""

from typing import ClassVar

from jax.lax import stop_gradient

from ..facts import Fact, Requirement
from .base import AbstractSimple, Terms
from .leave_one_out import LeaveOneOut
from .requirements import DIFFERENTIABLE, FRESH, INDEPENDENT

_STANDARDISED = Requirement(
    "family",
    Fact.STANDARDISED,
    "draws move along a standardisation whose noise hardly depends on the parameters",
    "Pathwise(), or LeaveOneOut()",
)


class GeneralisedPathwise(AbstractSimple):
    """Generalised reparameterization gradient (G-REP).

    Definition: grad E f(z) = E[grad f(T_phi(eps)) + f(z) grad log q_eps(eps; phi)], z = T_phi(eps), with T so chosen that
                the law q_eps of eps hardly depends on phi: log z (gamma) or logit z (beta), standardised. The second term
                has the leave-one-out baseline.
    Bias:       none.   Cost: one log-density gradient a draw.
    See also:   Pathwise(), which has no second term, where draws have a path.
    Reference:  Ruiz, Titsias and Blei (2016), equations 6-9 and section 4.  [ruiz2016grep]
    """

    requires: ClassVar = (_STANDARDISED, DIFFERENTIABLE, FRESH, INDEPENDENT)
    min_samples: ClassVar = 2
    unbiased: ClassVar = True
    role: ClassVar = None

    def terms(self, noise, bound, carry):
        draws = stop_gradient(bound.draw(noise))
        eps = stop_gradient(bound.map(lambda m, q, x, z: q.standardise(z), draws))
        moved, log_slope = bound.map(lambda m, q, x, e: q.unstandardise(e), eps)
        log_w = bound.log_weight(moved)
        value = bound.reduce(log_w)
        signal = LeaveOneOut().signal(bound, log_w)
        return Terms(value + (signal * (bound.log_prob(moved) + log_slope)).sum(0), value)
