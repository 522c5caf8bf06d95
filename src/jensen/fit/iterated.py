"""The algorithms that the compiled loop iterates beside gradient VI, by name or as `jensen.methods`: judged like an
estimator, ready for the driver."""

from typing import Any, cast

import jax

from .. import methods
from ..algorithms.descent import AbstractDescent, Optimiser
from ..algorithms.machine import Machine
from ..errors import OptionError, explain
from ..families.base import AbstractFamily
from ..gradients import plans
from ..judge import Composition, check
from ..methods import AbstractMethod, AbstractSideBySide
from ..models.base import AbstractModel
from ..tree import split_trainable
from . import defaults

WAKE_SLEEP: dict[str, AbstractSideBySide] = {
    "wake-sleep": methods.WakeSleep(),
    "reweighted-wake-sleep": methods.ReweightedWakeSleep(),
    "wake-wake": methods.ReweightedWakeSleep(sleep_phi=False),
}
ITERATED: dict[str, AbstractMethod] = {
    **WAKE_SLEEP,
    "hoffman": methods.Hoffman(),
    "vcd": methods.VCD(),
    "variational-em": methods.VariationalEM(),
}
"""By the names `fit(method=...)` takes."""


def refuse_axes(method: AbstractMethod, **axes: Any) -> None:
    """Raises: OptionError if an axis of gradient VI is given too."""
    given = [name for name, part in axes.items() if part is not None]
    if given:
        because = "it has objectives of its own, one for the model and one for q, and needs no gradient estimator"
        instead = f'method="gradient", or method={method.name!r} without {given[0]}'
        raise OptionError(explain(f"method={method.name!r} with {given}", "the two do not meet", because, instead))


def check_m_step(method: AbstractMethod, model: AbstractModel) -> None:
    """Raises: OptionError if the model has nothing to train."""
    if not jax.tree.leaves(split_trainable(model)[0]):
        asked = f"method={method.name!r} with `{type(model).__name__}`"
        because, instead = "the M-step moves the model's own parameters, and it has none", 'method="gradient"'
        raise OptionError(explain(asked, "there is no M-step", because, instead))


def made(
    method: AbstractSideBySide,
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
