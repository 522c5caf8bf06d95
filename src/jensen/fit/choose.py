"""Which method `fit` takes, and whether it can do what is asked."""

from typing import Any

from ..algorithms.method import AbstractMethod, plain
from ..data.binarized import DynamicallyBinarized
from ..errors import IncompatibleComposition, OptionError, explain
from ..methods.gradient import GradientVI
from ..methods.ladder import Ladder
from ..methods.lookup import exported, method_named
from ..methods.task import Task

WITHOUT_STEPS = frozenset(
    {"checkpoint", "checkpoint_seconds", "on_chunk"}
)  # they choose no method: they go with one of steps
NOT_WITH = {
    "accuracy": (
        "it takes stochastic gradients, whose end is a bound that no longer rises, not an error",
        'no accuracy, or the ladder (method="auto") on a model of one latent vector with all data at hand',
    ),
}  # an option that says why itself
ONLY_FOR = {
    "em": "it is for models that have an E-step of their own (`GaussianMixture`, `FactorAnalysis`, `HiddenMarkov`, ...)",
    "energy": "it is for Boltzmann machines, which have an energy and no q",
}


def choose(task: Task, asked: Any) -> AbstractMethod:
    """The method that was asked for; the model's own, where none was; for most models that is the ladder where it can be
    climbed and no option of stochastic gradients is given, else these."""
    usual = getattr(type(task.model), "default_method", Ladder.name)  # a NumPyro function is a model too
    if asked is not None and not (isinstance(asked, str) and plain(asked) == Ladder.name):
        return method_named(asked)
    if usual != Ladder.name:
        return method_named(usual)
    if asked is None:
        by_steps = task.given.keys() - Ladder.takes - WITHOUT_STEPS
        if by_steps or isinstance(task.data, DynamicallyBinarized):
            return GradientVI()
    task.read(double=True)
    return Ladder() if task.obstacle is None else GradientVI()


def check_can(method: AbstractMethod, task: Task) -> None:
    """Raises: OptionError for options that the method has no use for; IncompatibleComposition for what it cannot do."""
    usual = method_named(getattr(type(task.model), "default_method", Ladder.name))
    if method.fits != usual.fits:
        names = [c.name for c in exported().values() if c.fits == usual.fits]
        asked, wrong = _asked(method, task), "it is not for such a model"
        because = usual.why_not if method.fits == Ladder.fits else ONLY_FOR[method.fits]
        raise IncompatibleComposition(explain(asked, wrong, because, f"one of {names}, or no method"))
    unknown = [name for name in task.given if name not in method.takes]
    if isinstance(task.data, DynamicallyBinarized) and not method.by_steps:
        unknown.append("data drawn anew")
    if unknown:
        raise _not_taken(method, task, unknown)
    problems = method.problems(task)
    if problems:
        wrong, because, instead = (" and ".join(dict.fromkeys(texts)) for texts in zip(*problems, strict=True))
        raise IncompatibleComposition(explain(_asked(method, task), wrong, because, instead))


def _not_taken(method: AbstractMethod, task: Task, unknown: list[str]) -> OptionError:
    if unknown[0] in NOT_WITH and method.fits == Ladder.fits:
        because, instead = NOT_WITH[unknown[0]]
        asked = f"{unknown[0]}={task.given[unknown[0]]!r}"
        return OptionError(explain(asked, "this fit has no such end", task.obstacle or because, instead))
    if isinstance(method, Ladder) and WITHOUT_STEPS.issuperset(unknown):
        because = "the method that is taken for this model works rung by rung, not step by step, in seconds as a rule"
        instead = 'method="gradient" for a fit that goes on from a checkpoint; or '
        instead += f"no {unknown[0]}, and fit.save(folder)"
        return OptionError(explain(f"{' and '.join(unknown)} without a method", "it has no steps", because, instead))
    instead = f"{method.label!r} without {' and '.join(unknown)}; it takes {sorted(method.takes)}"
    if method.fits == "posterior":
        instead = f'method="gradient", or {instead}'
    return OptionError(
        explain(f"method={method.label!r} with {unknown}", "the two do not meet", method.why_not, instead)
    )


def _asked(method: AbstractMethod, task: Task) -> str:
    model = getattr(task.model, "__name__", type(task.model).__name__)
    return f"fit({model}, method={method.label!r})"
