"""What `fit` does: the task is read, a method chosen, judged, and run."""

from collections.abc import Callable
from typing import Any

from ..algorithms.budget import Budget
from ..errors import OptionError, check_count, check_seed, explain
from ..methods.task import N_DRAWS, Task
from ..models.host import surfaced
from . import cache
from .choose import check_can, choose

COUNTS = "n_samples", "n_steps", "batch_size", "n_restarts", "n_draws"
LEAST_DRAWS = 50  # of which the tail that k-hat is read off has ten
LEAST_ACCURACY = 1e-3  # a million independent draws


@surfaced()
def run(
    model: Any,
    data: Any,
    method: Any,
    *,
    seed: int,
    budget: Any,
    progress: bool | None,
    given: dict[str, Any],
    again: Callable[..., Any],
) -> Any:
    """The result of `fit` called with these; given: the options that were set, by name."""
    _check(given)
    cache.switch_on()
    task = Task(model, data, check_seed(seed, "fit"), Budget.parse(budget), progress, given, again)
    chosen = choose(task, method)
    check_can(chosen, task)
    return chosen.run(task)


def _check(given: dict[str, Any]) -> None:
    """Raises: OptionError for numbers that are out of range whatever the method."""
    for name in COUNTS:
        if name in given:
            check_count(name, given[name])
    accuracy, n_draws = given.get("accuracy", 1.0), given.get("n_draws", N_DRAWS)
    if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not LEAST_ACCURACY <= accuracy <= 1:
        asked, wrong = f"accuracy={accuracy!r}", f"it is no number from {LEAST_ACCURACY} to 1"
        because = (
            "it is the Monte Carlo error of a mean in posterior sds, which falls with the root of the number of draws"
        )
        raise OptionError(explain(asked, wrong, because, "accuracy=0.02"))
    if n_draws < LEAST_DRAWS:
        wrong = f"{n_draws} draws are too few to judge a fit by"
        because = "its k-hat is read off the largest fifth of them"
        instead = f"n_draws={LEAST_DRAWS} or more (usual: {N_DRAWS})"
        raise OptionError(explain(f"n_draws={n_draws}", wrong, because, instead))
