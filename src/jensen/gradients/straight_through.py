"""Hard variables forward, a smooth variable's derivative backward."""

from typing import ClassVar

import equinox as eqx
from jax.lax import stop_gradient

from ..errors import OptionError, explain
from ..facts import Fact
from ..families.relaxation import relaxation_of
from .annealed import AbstractAnnealed, checked_schedule
from .base import Terms
from .relaxed import chain, draw_log_weight
from .requirements import DIFFERENTIABLE, FRESH, LAYERS


class StraightThrough(AbstractAnnealed):
    """Straight-through gradient: b is drawn, and differentiated as its mean or as its relaxation.

    Definition: grad g(l(b_1..K)) with db = d E[b | layers before] (db = d sigmoid(logits) for Bernoullis); with a temperature
                db = d soft(z, temperature): the straight-through Gumbel-softmax.
    Arguments:  temperature: None (the mean), or > 0.   annealed_to, n_steps: as in `GumbelSoftmax`.
    Bias:       in q's gradient, whatever the temperature: only a log-weight that is linear in each variable is met exactly
                (by the mean). None in the value, which is that of hard draws, nor in the model's gradient.
    Cost:       K evaluations with their gradient in z.
    Reference:  Bengio, Leonard and Courville (2013), section 3; Jang, Gu and Poole (2017), section 2.2.  [bengio2013straight]
    """

    temperature: float | None = eqx.field(static=True)
    annealed_to: float | None = eqx.field(static=True)
    n_steps: int = eqx.field(static=True)
    requires: ClassVar = (LAYERS, DIFFERENTIABLE, FRESH)
    min_samples: ClassVar = 1
    role: ClassVar = None

    def __init__(self, temperature: float | None = None, *, annealed_to: float | None = None, n_steps: int = 10_000):
        if temperature is None and annealed_to is not None:
            asked, wrong = f"`StraightThrough(annealed_to={annealed_to})`", "the mean has no temperature"
            because, instead = "it falls from a first one", f"StraightThrough(1.0, annealed_to={annealed_to})"
            raise OptionError(explain(asked, wrong, because, instead))
        start = 1.0 if temperature is None else temperature
        checked, self.annealed_to, self.n_steps = checked_schedule("StraightThrough", start, annealed_to, n_steps)
        self.temperature = None if temperature is None else checked

    def terms(self, noise, bound, carry):
        # the mean of d log q(b), at fixed b, is zero where the objective is linear: it would be noise alone
        weighed = bound.stop("q") if Fact.LINEAR in bound.objective.facts else bound

        def layers(m, q, x, noise):
            kind = relaxation_of(q)

            def value(z, logits):
                if self.temperature is None:
                    smooth = kind.mean(logits)
                else:
                    smooth = kind.soft(z, self.temperature_at(carry))
                return kind.hard(z) + smooth - stop_gradient(smooth)

            return chain(q, noise, value)[0]

        weigh = lambda m, q, x, b: draw_log_weight(bound.objective, m, q, x, b)
        value = bound.reduce(weighed.map(weigh, bound.map(layers, noise)))
        return Terms(value, value)
