"""Gradient through relaxed variables put into the discrete objective."""

from typing import ClassVar

import equinox as eqx

from ..families.relaxation import relaxation_of
from .annealed import AbstractAnnealed, checked_schedule
from .base import Terms
from .relaxed import chain, draw_log_weight
from .requirements import DIFFERENTIABLE, LAYERS


class GumbelSoftmax(AbstractAnnealed):
    """Gumbel-softmax (binary concrete) gradient, with relaxed variables only.

    Definition: grad g(l(y_1..K)) in q's parameters, y = soft(z, temperature), z reparameterised, each layer from the relaxed
                ones before it; the log-weight's own formula, linear in y where log q is, is used at y. The model's
                parameters get their gradient at hard draws of the same noise, and the value is reported there.
    Arguments:  temperature: > 0, at the first step.   annealed_to: at step `n_steps` and after it, in equal ratios from step
                to step; None keeps the temperature fixed. It is never learned: the relaxed objective is no bound, and
                its maximum over temperatures means nothing. `families.Concrete` makes a bound of it; `REBAR` learns one.
    Bias:       in q's gradient, O(temperature); it goes to 0 with the temperature, and the variance to infinity as
                1/temperature. None in the value and in the model's gradient.
    Cost:       2K evaluations, one of them with its gradient in z.
    Reference:  Jang, Gu and Poole (2017), section 2; Maddison, Mnih and Teh (2017), section 3.  [jang2017gumbel]
    """

    temperature: float = eqx.field(static=True)
    annealed_to: float | None = eqx.field(static=True)
    n_steps: int = eqx.field(static=True)
    requires: ClassVar = (LAYERS, DIFFERENTIABLE)
    min_samples: ClassVar = 1
    role: ClassVar = None

    def __init__(self, temperature: float = 0.5, *, annealed_to: float | None = None, n_steps: int = 10_000):
        schedule = checked_schedule("GumbelSoftmax", temperature, annealed_to, n_steps)
        self.temperature, self.annealed_to, self.n_steps = schedule

    def terms(self, noise, bound, carry):
        temperature = self.temperature_at(carry)

        def cell(value):
            def run(m, q, x, noise):
                kind = relaxation_of(q)
                layers = chain(q, noise, lambda z, a: value(kind, z))[0]
                return draw_log_weight(bound.objective, m, q, x, layers)

            return run

        hard = bound.stop("q").map(cell(lambda kind, z: kind.hard(z)), noise)
        relaxed = bound.stop("model").map(cell(lambda kind, z: kind.soft(z, temperature)), noise)
        value = bound.reduce(hard)
        return Terms(value + bound.reduce(relaxed), value)
