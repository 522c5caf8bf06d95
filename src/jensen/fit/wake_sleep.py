"""`method="wake-sleep"` and its relatives: the algorithm, judged like an estimator, ready for the driver."""

import functools
from collections.abc import Callable
from typing import Any, cast

from ..algorithms.descent import Optimiser
from ..algorithms.wake_sleep import AbstractWakeSleep, Machine, ReweightedWakeSleep, WakeSleep
from ..errors import OptionError, explain
from ..families.base import AbstractFamily
from ..gradients import plans
from ..judge import Composition, check
from ..models.base import AbstractModel
from . import defaults

WAKE_SLEEP: dict[str, Callable[..., AbstractWakeSleep]] = {
    "wake-sleep": WakeSleep,
    "reweighted-wake-sleep": ReweightedWakeSleep,
    "wake-wake": functools.partial(ReweightedWakeSleep, sleep_phi=False),
}
"""Made from `Machine(model, family)`, an optimiser, and the number of draws."""


def refuse_axes(method: str, **axes: Any) -> None:
    """Raises: OptionError if an axis of gradient VI is given too."""
    given = [name for name, part in axes.items() if part is not None]
    if given:
        because = "it has objectives of its own, one for the model and one for q, and needs no gradient estimator"
        instead = f'method="gradient", or method={method!r} without {given[0]}'
        raise OptionError(explain(f"method={method!r} with {given}", "the two do not meet", because, instead))


def made(
    method: str,
    model: AbstractModel,
    family: AbstractFamily,
    optimiser: Optimiser,
    n_samples: int | None,
    minibatched: bool,
) -> tuple[AbstractWakeSleep, Composition]:
    """The algorithm, and what the judge and the driver know of it: it stands in the place of the gradient estimator.

    Raises: IncompatibleComposition.
    """
    like = WAKE_SLEEP[method](Machine(model, family), optimiser, 1)
    n = n_samples or defaults.default_n_samples(model, cast(Any, like), like.objective)
    algorithm = WAKE_SLEEP[method](like.parts, optimiser, n)
    composition = Composition(model, family, like.objective, cast(Any, algorithm), plans.IID(), n, minibatched)
    check(composition)
    return algorithm, composition
