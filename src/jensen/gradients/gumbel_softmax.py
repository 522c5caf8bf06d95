"""Gradient through relaxed variables put into the discrete objective."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import OptionError, explain
from ..families.relaxation import check_temperature, relaxation_of
from .base import Terms
from .relaxed import AbstractRelaxed, chain, draw_log_weight, not_relaxable
from .requirements import DIFFERENTIABLE, LAYERS


class GumbelSoftmax(AbstractRelaxed):
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
    unbiased: ClassVar = False
    minimises_variance: ClassVar = False
    role: ClassVar = None

    def __init__(self, temperature: float = 0.5, *, annealed_to: float | None = None, n_steps: int = 10_000):
        self.temperature, self.annealed_to, self.n_steps = checked_schedule(
            "GumbelSoftmax", temperature, annealed_to, n_steps
        )

    def init(self, bound):
        return first_step(self.annealed_to)

    def update(self, carry, stat):
        return next_step(carry)

    def problems(self, composition):
        return not_relaxable(composition)

    def terms(self, noise, bound, carry):
        temperature = temperature_at(self.temperature, self.annealed_to, self.n_steps, carry)

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


# ---- temperatures that fall from step to step -----------------------------------------------------------------------


def checked_schedule(name: str, start: float, end: float | None, n_steps: int) -> tuple[float, float | None, int]:
    """(start, end, n_steps), or OptionError."""
    hard = "StraightThrough()"
    first = check_temperature(f"`{name}(temperature={start!r})`", start, hard)
    last = None if end is None else check_temperature(f"`{name}(annealed_to={end!r})`", end, hard)
    if n_steps < 1:
        asked, because = f"`{name}(n_steps={n_steps})`", "the temperature falls from step to step"
        raise OptionError(explain(asked, "there is no step", because, "n_steps=10_000"))
    return first, last, int(n_steps)


def first_step(end: float | None) -> Array | tuple[()]:
    """The carry: the number of steps taken; nothing where the temperature is fixed."""
    return () if end is None else jnp.zeros((), int)


def next_step(carry: Array | tuple[()]) -> Array | tuple[()]:
    return carry if isinstance(carry, tuple) else carry + 1


def temperature_at(start: float, end: float | None, n_steps: int, carry) -> float | Float[Array, ""]:
    """start (end / start)^(steps taken / n_steps), and `end` after n_steps."""
    return start if end is None else start * (end / start) ** jnp.minimum(carry / n_steps, 1.0)
