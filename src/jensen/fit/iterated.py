"""The algorithms that the compiled loop iterates beside gradient VI, by name or as `jensen.methods`: judged like an
estimator, ready for the driver."""

from typing import Any, cast

from .. import methods
from ..algorithms.descent import AbstractDescent, Optimiser
from ..algorithms.machine import Machine
from ..errors import OptionError, explain
from ..families.base import AbstractFamily
from ..gradients import plans
from ..judge import Composition, check
from ..methods import AbstractMethod
from ..models.base import AbstractModel
from . import defaults

WAKE_SLEEP: dict[str, AbstractMethod] = {
    "wake-sleep": methods.WakeSleep(),
    "reweighted-wake-sleep": methods.ReweightedWakeSleep(),
    "wake-wake": methods.ReweightedWakeSleep(sleep_phi=False),
}
ITERATED: dict[str, AbstractMethod] = {**WAKE_SLEEP, "hoffman": methods.Hoffman(), "vcd": methods.VCD()}
"""By the names `fit(method=...)` takes."""


def refuse_axes(method: AbstractMethod, **axes: Any) -> None:
    """Raises: OptionError if an axis of gradient VI is given too."""
    given = [name for name, part in axes.items() if part is not None]
    if given:
        because = "it has objectives of its own, one for the model and one for q, and needs no gradient estimator"
        instead = f'method="gradient", or method={method.name!r} without {given[0]}'
        raise OptionError(explain(f"method={method.name!r} with {given}", "the two do not meet", because, instead))


def made(
    method: AbstractMethod,
    model: AbstractModel,
    family: AbstractFamily,
    optimiser: Optimiser,
    n_samples: int | None,
    minibatched: bool,
) -> tuple[AbstractDescent, Composition]:
    """The algorithm, and what the judge and the driver know of it: it stands in the place of the gradient estimator.

    Raises: IncompatibleComposition.
    """
    like: Any = method.algorithm(Machine(model, family), optimiser, 1)
    n = n_samples or defaults.default_n_samples(model, like, like.objective)
    algorithm = method.algorithm(like.parts, optimiser, n)
    composition = Composition(model, family, like.objective, cast(Any, algorithm), plans.IID(), n, minibatched)
    check(composition)
    return algorithm, composition
