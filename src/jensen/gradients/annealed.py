"""Biased estimators through relaxed variables, whose temperature may fall from step to step."""

from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import OptionError, explain
from ..families.relaxation import check_temperature
from .relaxed import AbstractRelaxed, not_relaxable

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractAnnealed(AbstractRelaxed):
    """temperature: at the first step, or None where there is none.   annealed_to: at step `n_steps` and after it, None if
    the temperature is fixed. The carry is the number of steps taken, or nothing."""

    temperature: AbstractVar[float | None]
    annealed_to: AbstractVar[float | None]
    n_steps: AbstractVar[int]
    unbiased: ClassVar[bool] = False
    minimises_variance: ClassVar[bool] = False

    def init(self, bound):
        return () if self.annealed_to is None else jnp.zeros((), int)

    def update(self, carry, stat):
        return carry if self.annealed_to is None else carry + 1

    def problems(self, composition):
        return not_relaxable(composition)

    def temperature_at(self, carry: Any) -> float | Float[Array, ""]:
        """start (end / start)^(steps taken / n_steps), and `end` after n_steps."""
        start: Any = self.temperature
        if self.annealed_to is None:
            return start
        return start * (self.annealed_to / start) ** jnp.minimum(carry / self.n_steps, 1.0)


def checked_schedule(name: str, start: float, end: float | None, n_steps: int) -> tuple[float, float | None, int]:
    """(start, end, n_steps), or OptionError."""
    hard = "StraightThrough()"
    first = check_temperature(f"`{name}(temperature={start!r})`", start, hard)
    last = None if end is None else check_temperature(f"`{name}(annealed_to={end!r})`", end, hard)
    if n_steps < 1:
        asked, because = f"`{name}(n_steps={n_steps})`", "the temperature falls from step to step"
        raise OptionError(explain(asked, "there is no step", because, "n_steps=10_000"))
    return first, last, int(n_steps)
