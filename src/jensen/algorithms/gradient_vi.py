"""Gradient VI: the algorithm that uses the four axes."""

from typing import Any

import equinox as eqx
import jax
import optax

from ..function import Function
from ..gradients.base import Bound, Parts, draw_noise, estimate
from ..gradients.plans import AbstractPlan
from ..objectives.base import AbstractObjective
from ..tree import split_trainable
from .base import AbstractAlgorithm


class Optimiser:
    """An Optax transformation with value equality: `optax.adam(1e-2)` made twice is one cache key."""

    def __init__(self, transformation: optax.GradientTransformation):
        self.init, self.update = Function(transformation.init), Function(transformation.update)

    def __hash__(self) -> int:
        return hash((self.init, self.update))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Optimiser) and (self.init, self.update) == (other.init, other.update)


class GradientVI(AbstractAlgorithm):
    """Stochastic gradient descent on -sense * objective, over the parameters of model, family and estimator.

    State: (trained arrays, optimiser state, estimator's carry).   Reference:  Hoffman et al. (2013); Ranganath et al. (2014).
    """

    parts: Parts  # starting values; its arrays are arguments, its static fields are the cache key
    objective: AbstractObjective
    plan: AbstractPlan
    optimiser: Optimiser = eqx.field(static=True)
    n_samples: int = eqx.field(static=True)

    def init(self, key, batch):
        params = split_trainable(self.parts)[0]
        bound = Bound.make(self.parts.model, self.parts.family, self.objective, batch)
        return params, self.optimiser.init(params), self.parts.estimator.init(bound)

    def assemble(self, params: Any) -> Parts:
        """The parts with these trained arrays."""
        return eqx.combine(params, split_trainable(self.parts)[1])

    def noise(self, key, batch):
        return draw_noise(key, self.parts, self.plan, batch, self.n_samples)

    def step(self, noise, state, batch, scale):
        params, opt, carry = state
        e = estimate(noise, self.assemble(params), self.objective, batch, carry)
        updates, opt = self.optimiser.update(e.grads, opt, params)
        params = jax.tree.map(lambda p, u: p + scale.astype(p.dtype) * u, params, updates)
        return (params, opt, e.carry), self.objective.sense * e.value

    def parameters(self, state):
        return state[0]

    def with_parameters(self, state, parameters):
        return (parameters, *state[1:])
