"""What is measured on: a model, its data, q, a bound; and the estimators that may be tried there."""

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from .. import families, gradients, objectives
from ..arrays import in_force, lifted
from ..batch import Batch
from ..data.load import load_table
from ..errors import JensenError, ModelError, OptionError, check_count, explain
from ..facts import Fact
from ..families.base import AbstractFamily
from ..fit import defaults
from ..fit.minibatch import MappedArray, divided, first_batch
from ..fit.rows import as_rows
from ..gradients import plans as all_plans
from ..gradients.base import AbstractEstimator
from ..gradients.plans import AbstractPlan
from ..judge import Composition, check_reads_row, refusals
from ..models.base import AbstractModel
from ..models.coerce import as_model
from ..objectives.base import AbstractObjective

MAPPED_ROWS = 10_000  # of a file larger than memory
DEFAULT_K = 4


class Subject(NamedTuple):
    """`batch_size`: rows a step, None for all; `first`: a batch of those shapes."""

    model: AbstractModel
    family: AbstractFamily
    objective: AbstractObjective
    rows: Any
    batch_size: int | None
    first: Batch
    seed: int

    @property
    def minibatched(self) -> bool:
        return divided(self.rows, self.batch_size)

    def compose(self, gradient: AbstractEstimator, plan: AbstractPlan, n_samples: int) -> Composition:
        return Composition(self.model, self.family, self.objective, gradient, plan, n_samples, self.minibatched)


class Candidate(NamedTuple):
    """An estimator sized for the model, with the plans it goes with. `made`: as it was before it was sized."""

    name: str
    made: AbstractEstimator
    estimator: AbstractEstimator
    plans: dict[str, AbstractPlan]
    n_samples: int
    trusted: bool  # one of the library's own that declares no bias: may serve as the reference


class Refused(NamedTuple):
    estimator: str
    plan: str  # "any": with every plan that was tried
    reason: str


def prepare(model: Any, data: Any, family: Any, objective: Any, batch_size: int | None, seed: int) -> Subject:
    """The parts as `fit` would make them. Raises: as `fit`."""
    if batch_size is not None:
        check_count("batch_size", batch_size)
    model, rows = as_model(model, load_table(data) if isinstance(data, str | Path) else data)
    model = model.twin()
    rows = as_rows(rows, divisible=Fact.MINIBATCH in model.facts)
    if model.plated and rows is None:
        asked = "`gradient_lab` of a model with a latent for each row"
        raise ModelError(explain(asked, "data is None", "there are no rows", "gradient_lab(model, data=data)"))
    model, rows, batch_size = model.lifted(), lifted(rows), defaults.batch_size_for(model, rows, batch_size)
    rows = some_rows(rows) if isinstance(rows, MappedArray) else rows
    made = defaults.named("objective", objective, defaults.exported(objectives)) or objectives.ELBO()
    chosen = defaults.named("family", family, defaults.exported(families)) or defaults.default_family(model)
    check_reads_row(model, chosen)
    bound = in_force(defaults.bind(chosen, model, rows, seed))
    return Subject(model, bound, made, rows, batch_size, first_batch(rows, batch_size), seed)


def some_rows(rows: MappedArray) -> Any:
    """Of a file larger than memory, rows spread over it."""
    index = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAPPED_ROWS)).astype(int))
    return lifted(as_rows(rows[index]))


# ---- estimators and plans -------------------------------------------------------------------------------------------
def plans_of(asked: Any) -> dict[str, AbstractPlan]:
    """By name; None: every exported plan that needs no arguments and draws anew at each step."""
    choices = defaults.exported(all_plans)
    if asked is None:
        made = {name: cls() for name, cls in choices.items()}
        return {name: plan for name, plan in made.items() if Fact.FRESH in plan.facts}
    several = asked if isinstance(asked, Iterable) and not isinstance(asked, str) else [asked]
    made = [defaults.named("plan", p, choices) for p in several]
    return dict(_unique([(type(p).__name__, p) for p in made]))


def estimators_of(
    asked: Any, subject: Subject, variants: bool = True
) -> tuple[dict[str, AbstractEstimator], list[Refused]]:
    """Those to be tried, by name, and those that could not be made; None: every exported one.

    variants: with each word that an argument may be, too.
    """
    choices = {n: c for n, c in defaults.exported(gradients).items() if issubclass(c, AbstractEstimator)}
    if isinstance(asked, Mapping):
        return {str(n): defaults.named("gradient", e, choices) for n, e in asked.items()}, []
    if asked is not None:
        several = asked if isinstance(asked, Iterable) and not isinstance(asked, str) else [asked]
        made = [defaults.named("gradient", e, choices) for e in several]
        return dict(_unique([(type(e).__name__, e) for e in made])), []
    usual = defaults._candidates(subject.model, subject.family, subject.objective)
    found, refused = {}, []
    for name, cls in choices.items():
        made = _constructions(name, cls) or [(name, e) for e in usual if type(e) is cls]
        found |= dict(_unique(made if variants else made[:1]))
        if not made:
            refused.append(Refused(name, "any", f"`{name}` needs arguments, and none suggest themselves for this q"))
    return found, refused


def _unique(named: list) -> list:
    """(name, part) with numbers at names that repeat."""
    names = [n for n, _ in named]
    return [
        (n if names.count(n) == 1 else f"{n} #{names[: i + 1].count(n)}", part) for i, (n, part) in enumerate(named)
    ]


def _constructions(name: str, cls: Any) -> list[tuple[str, AbstractEstimator]]:
    """With its defaults, and with each other word that one of its arguments lists in a `Literal`; [] if it needs some."""
    try:
        out = [(name, cls())]
    except TypeError:
        return []
    try:
        hints = typing.get_type_hints(cls.__init__)
        parameters = inspect.signature(cls).parameters
    except (TypeError, NameError, ValueError):
        return out
    for argument, hint in hints.items():
        default = parameters[argument].default if argument in parameters else None
        for choice in _words(hint):
            if choice != default:
                out.append((f"{name}({choice!r})", cls(**{argument: choice})))
    return out


def _words(hint: Any) -> list[str]:
    """The strings of a `Literal`, alone or within a union."""
    if typing.get_origin(hint) is typing.Literal:
        return [a for a in typing.get_args(hint) if isinstance(a, str)]
    return [w for part in typing.get_args(hint) for w in _words(part)]


def admit(
    subject: Subject,
    estimators: dict[str, AbstractEstimator],
    plans: dict[str, AbstractPlan],
    draws: Callable[[AbstractEstimator], int],
) -> tuple[list[Candidate], list[Refused]]:
    """Who may be measured, by the judge; and who may not, with all reasons. `draws`: how many K one gets."""
    out, refused = [], []
    library = set(defaults.exported(gradients).values())
    for name, made in estimators.items():
        n = draws(made)
        try:
            sized = defaults.bind_gradient(made, subject.model, subject.rows, subject.seed)
            wrong = {p: _why_not(subject.compose(sized, plan, n)) for p, plan in plans.items()}
        except (JensenError, TypeError, ValueError) as error:
            refused.append(Refused(name, "any", f"{type(error).__name__}: {_first_line(error)}"))
            continue
        fit = {p: plan for p, plan in plans.items() if not wrong[p]}
        if fit:
            trusted = bool(made.unbiased) and type(made) in library
            out.append(Candidate(name, made, sized, fit, n, trusted))
        everywhere = set.intersection(*(set(w) for w in wrong.values()))
        if not fit and everywhere:
            refused += [Refused(name, "any", r) for r in next(iter(wrong.values())) if r in everywhere]
        else:
            refused += [Refused(name, p, r) for p, reasons in wrong.items() for r in reasons]
    return out, refused


def _why_not(composition: Composition) -> list[str]:
    reasons = [f"needs: {w}; because: {b}; instead: {i}" for w, b, i in refusals(composition)]
    if Fact.FRESH not in composition.plan.facts:
        name = type(composition.plan).__name__
        reasons.append(f"`{name}` repeats its noise, so that there is no variance over steps to measure")
    return reasons


def _first_line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split())[:300]


def check(value: Any, name: str, least: float, what: str) -> None:
    """Raises OptionError for a number that is too small or none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value >= least:
        raise OptionError(explain(f"{name}={value!r}", f"it is below {least}, or no number", what, f"{name}={least}"))


def gradient_of(subject: Subject, plan: AbstractPlan, n_samples: int | None) -> AbstractEstimator:
    """What `fit` would take by default."""
    made = defaults.complete(
        subject.model, subject.family, subject.objective, None, plan, n_samples, subject.minibatched
    )
    return cast(AbstractEstimator, made.gradient)
