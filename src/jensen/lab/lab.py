"""`jensen.gradient_lab`: every gradient estimator that fits, measured on the model at hand."""

import math
from collections.abc import Iterable
from typing import Any

from ..errors import OptionError, check_seed, explain
from ..fit import cache, defaults
from ..fit.minibatch import n_rows
from ..gradients.plans import IID
from ..models.host import surfaced
from ..process import ready
from .bench import Arm, arms_of, fixed_batch, measure, same_estimator, walk
from .bias import LEVEL
from .probe import Runner
from .readings import Site, read
from .result import GradientLab, Reading
from .subject import DEFAULT_K, Candidate, Refused, Subject, admit, check, estimators_of, gradient_of, plans_of, prepare
from .words import recommend

LEAST_GRADIENT = 0.01  # of the largest gradient over the points: accuracy below is of no use


@ready()
@surfaced()
def gradient_lab(
    model: Any,
    family: Any = None,
    *,
    objective: Any = None,
    data: Any = None,
    estimators: Any = None,
    plans: Any = None,
    n_samples: int | None = None,
    batch_size: int | None = None,
    at: Iterable[str | int] = ("start", "fit"),
    n_steps: int = 500,
    n_repeats: int = 2000,
    seconds: float = 10.0,
    seed: int = 0,
) -> GradientLab:
    """Measures gradient estimators on this very model: bias, variance, cost; and recommends one.

    Definition: of the gradient g of the loss in the parameters of model and q, at fixed parameters and, where rows come
                in minibatches, on one of them: bias ||E g - grad||, variance tr Cov g, seconds a step, and the score
                1 / ((||grad||^2 + variance + minibatch) x seconds), geometric mean over the points.
    Arguments:
        model, data, family, objective, batch_size: as for `fit`.
        estimators: objects, classes or names; a dict names them; None: every exported one, with its defaults.
        plans: how draws are made; None: every exported plan that draws anew at each step.
        n_samples: draws K; None: 4 for all, or the fewest an estimator or the objective takes.
        at: where: "start", "fit" (after `n_steps` of a short fit with the default estimator), or numbers of steps.
        n_repeats: gradients of each estimator at each point, if time allows; more where a step takes microseconds.
        seconds: of measuring at each point, shared by all; compilation (a few seconds each) comes on top.
    Returns:    `GradientLab`.
    Bias:       tested against the exact gradient where all states (of K draws, if the objective is nonlinear) are at most
                4096, else against the mean of the library's other unbiased estimators; |z| of all coordinates jointly
                (Bonferroni) at level 0.001 for the whole table, which holds where means of the repeats are near normal.
                Two that share a fault and no exact reference are not told apart.
    Raises:     ModelError, DataError, OptionError as `fit`; an estimator that fails is listed in `refused`.
    """
    cache.switch_on()
    check(n_repeats, "n_repeats", 16, "a variance is measured")
    check(n_steps, "n_steps", 1, "it is a count")
    check(seconds, "seconds", 0.01, "it is a time")
    if n_samples is not None:
        check(n_samples, "n_samples", 1, "it is a count")
    subject = prepare(model, data, family, objective, batch_size, check_seed(seed, "gradient_lab"))
    steps = _steps(at, n_steps)
    fixed, made_plans = fixed_batch(subject), plans_of(plans)
    wanted, refused = estimators_of(estimators, subject)
    draws = lambda e: n_samples or max(DEFAULT_K, e.min_samples, subject.objective.min_samples)
    candidates, more = admit(subject, wanted, made_plans, draws)
    arms, failed = arms_of(subject, candidates, fixed)
    refused += [*more, *failed]
    where: dict[str, Any] = {name: None for name, step in steps.items() if step == 0}
    if len(where) < len(steps):
        reached = walk(subject, _default_runner(subject, arms, n_samples), fixed, [s for s in steps.values() if s])
        where = {name: reached[step] if step else None for name, step in steps.items()}
    readings: list[Reading] = []
    for name, parameters in where.items():
        timed = measure(subject, arms, fixed, parameters, name, n_repeats, seconds)
        found, bad = read(subject, arms, timed, Site(name, parameters, fixed, len(where), seconds))
        readings, refused = [*readings, *found], [*refused, *bad]
    dropped = {(r.estimator, r.plan) for r in refused}
    readings = [r for r in readings if (r.estimator, r.plan) not in dropped]
    return _conclude(subject, readings, refused, candidates, made_plans, n_samples)


def _steps(at: Iterable[str | int], n_steps: int) -> dict[str, int]:
    """{name of the point: its step}."""
    named = {"start": 0, "fit": int(n_steps)}
    out = {}
    for point in (at,) if isinstance(at, (str, int)) else at:
        if point in named:
            out[str(point)] = named[str(point)]
        elif isinstance(point, int) and not isinstance(point, bool) and point >= 0:
            out[f"step {point}"] = point
        else:
            because, instead = "it is where gradients are measured", '"start", "fit", or numbers of steps'
            raise OptionError(explain(f"at={at!r}", f"{point!r} is no point of a fit", because, instead))
    return out


def _default_runner(subject: Subject, arms: list[Arm], n_samples: int | None) -> Runner:
    """Of the estimator `fit` would take: one of the arms if it is among them."""
    usual = gradient_of(subject, IID(), n_samples)
    for arm in arms:
        if same_estimator(usual, arm.candidate.made):
            return arm.runner
    n = n_samples or max(DEFAULT_K, usual.min_samples, subject.objective.min_samples)
    sized = defaults.bind_gradient(usual, subject.model, subject.rows, subject.seed)
    return Runner(subject, Candidate("default", usual, sized, {"IID": IID()}, n, True))


# ---- conclusion -----------------------------------------------------------------------------------------------------
def _conclude(
    subject: Subject, readings: list[Reading], refused: list[Refused], candidates: list[Candidate], plans: dict,
    n_samples: int | None,
) -> GradientLab:  # fmt: skip
    keys = list(dict.fromkeys((r.estimator, r.plan) for r in readings))
    mine = {k: [r for r in readings if (r.estimator, r.plan) == k] for k in keys}
    least = LEAST_GRADIENT * max((r.gradient_norm for r in readings), default=0.0)
    gain = {k: math.exp(sum(math.log(r.gain(least)) for r in rs) / len(rs)) for k, rs in mine.items()}
    fine = [k for k in keys if all(r.unbiased for r in mine[k])]
    name = max(fine, key=lambda k: gain[k]) if fine else None
    top = gain[name] if name else max(gain.values(), default=1.0)
    made = {c.name: c.made for c in candidates}
    used = sorted({r.n_samples for r in readings})
    settings = {
        "model": type(subject.model).__name__, "family": type(subject.family).__name__,
        "objective": type(subject.objective).__name__, "n_samples": " or ".join(map(str, used)) or n_samples,
        "batch_size": subject.batch_size if subject.minibatched else None,
        "n_data": None if subject.rows is None else n_rows(subject.rows), "seed": subject.seed, "level": LEVEL,
        "n_parameters": sum(r.groups[g]["size"] for r in readings[:1] for g in ("model", "family") if g in r.groups),
    }  # fmt: skip
    lab = GradientLab(
        readings, refused, "", made[name[0]] if name else None, plans[name[1]] if name else None, name,
        {k: v / top for k, v in gain.items()}, settings,
    )  # fmt: skip
    lab.recommendation = recommend(lab)
    return lab
