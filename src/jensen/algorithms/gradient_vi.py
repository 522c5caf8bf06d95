"""Gradient VI: the algorithm that uses the four axes."""

import equinox as eqx

from ..gradients.base import Bound, Parts, draw_noise, estimate
from ..gradients.plans import AbstractPlan
from ..objectives.base import AbstractObjective
from .descent import AbstractDescent, Optimiser


class GradientVI(AbstractDescent):
    """Stochastic gradient descent on -sense * objective, over the parameters of model, family and estimator.

    The carry is the estimator's.   Reference:  Hoffman et al. (2013); Ranganath et al. (2014).
    """

    parts: Parts  # starting values; its arrays are arguments, its static fields are the cache key
    objective: AbstractObjective
    plan: AbstractPlan
    optimiser: Optimiser = eqx.field(static=True)
    n_samples: int = eqx.field(static=True)

    def carry(self, batch):
        return self.parts.estimator.init(Bound.make(self.parts.model, self.parts.family, self.objective, batch))

    def findings(self, carry):
        return self.parts.estimator.findings(carry)

    def noise(self, key, batch):
        return draw_noise(key, self.parts, self.plan, batch, self.n_samples)

    def estimate(self, noise, parts, batch, carry):
        return estimate(noise, parts, self.objective, batch, carry)
