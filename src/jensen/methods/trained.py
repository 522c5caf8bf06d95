"""Methods that the compiled loop iterates: one fit of a family, or two where the second is richer."""

import abc
import dataclasses
import functools
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import families
from ..algorithms.adam import adam
from ..algorithms.budget import Budget
from ..algorithms.descent import AbstractDescent, Hints, Optimiser
from ..algorithms.method import AbstractMethod, Problem
from ..arrays import in_force, lifted
from ..batch import Batch
from ..data.binarized import DynamicallyBinarized, for_loop
from ..errors import ModelError, explain
from ..facts import Fact
from ..families.base import AbstractDistribution, AbstractFamily
from ..fit import defaults
from ..fit.driver import Job, drive
from ..fit.evaluate import log_density_forms
from ..fit.minibatch import divided, first_batch
from ..fit.result import Fit
from ..judge import Composition, check_reads_row
from ..models.base import AbstractModel
from ..program import Untraced
from ..tree import split_trainable
from .task import Task

DEFAULT_STEPS = 20_000
SECOND = 0.5  # of the budget must be left for a second, richer family
CHECKPOINT_SECONDS = 60.0
OF_LOOP = frozenset({
    "n_draws", "optimizer", "n_samples", "n_steps", "batch_size", "n_restarts", "checkpoint", "checkpoint_seconds",
    "early_stop", "average", "donate", "on_chunk",
})  # fmt: skip
OF_THE_FIRST = "checkpoint", "checkpoint_seconds", "n_steps"  # a fit that goes on has a budget
AXES = frozenset({"family", "objective", "gradient", "plan"})
OF_ADAM = Hints("steps go downhill", "optimizer=1e-2", "optax.adam(1e-3), or a step size")
OF_ITS_OWN = "it has objectives of its own, one for the model and one for q, and needs no gradient estimator"


class Setting(NamedTuple):
    """Where an algorithm will run: q sized for the model and the rows, and the other axes as they were asked for."""

    model: AbstractModel
    family: AbstractFamily
    axes: dict[str, Any]
    optimiser: Optimiser
    n_samples: int | None
    rows: Any
    batch_size: int | None
    first: Batch
    seed: int

    @property
    def minibatched(self) -> bool:
        return divided(self.rows, self.batch_size)


class Made(NamedTuple):
    """An algorithm, its parts as the judge looked at them, and what the fit's options tell beside."""

    algorithm: AbstractDescent
    composition: Composition
    said: Mapping[str, Any] = MappingProxyType({})


class AbstractTrained(AbstractMethod):
    """A method whose steps the compiled loop takes, for q over the latents of a model, and the model's own parameters."""

    takes: ClassVar = OF_LOOP
    by_steps: ClassVar = True

    @abc.abstractmethod
    def made(self, at: Setting) -> Made:
        """The algorithm, of parts that the judge has passed.   Raises: IncompatibleComposition, OptionError."""

    def start_of(self, family: AbstractFamily) -> AbstractFamily:
        """What further steps of a fitted family begin with."""
        return family

    def asked(self, task: Task) -> dict[str, Any]:
        """The options of `fit`, and those of one's own that `fit` has too."""
        return task.given

    def run(self, task: Task) -> Fit:
        model, rows = task.read()
        return trained(self, task, self.asked(task), model.lifted(), lifted(rows))


def trained(
    method: AbstractTrained, task: Task, asked: dict[str, Any], model: AbstractModel, rows: Any, sized: bool = False
) -> Fit:
    """q fitted by the loop, and once more with a richer family where none was chosen and the checks ask for one.

    sized: the family is one that was fitted, and is gone on with.
    """
    chosen = defaults.named("family", asked.get("family"), defaults.exported(families))
    optimizer, batch_size = asked.get("optimizer"), defaults.batch_size_for(model, rows, asked.get("batch_size"))
    n_steps, early_stop, average = (asked.get(name) for name in ("n_steps", "early_stop", "average"))
    spec = first_batch(rows, batch_size)
    job = Job(
        rows=rows, data=for_loop(task.data, rows), batch_size=batch_size, first=spec, seed=task.seed,
        n_steps=n_steps or DEFAULT_STEPS, early_stop=(n_steps is None) if early_stop is None else early_stop,
        average=(not model.plated and optimizer is None) if average is None else average,
        donate=asked.get("donate", False), n_restarts=asked.get("n_restarts", 1), progress=task.progress,
        checkpoint=asked.get("checkpoint"), checkpoint_seconds=asked.get("checkpoint_seconds", CHECKPOINT_SECONDS),
        n_draws=task.n_draws, on_chunk=asked.get("on_chunk"), tuned=optimizer is None, limit=task.budget,
        asked_step=float(optimizer) if isinstance(optimizer, int | float) else None,
    )  # fmt: skip
    axes = {name: asked.get(name) for name in ("objective", "gradient", "plan")}

    def composed(model: AbstractModel, bound: AbstractFamily) -> Fit:
        data = rows, batch_size, spec, task.seed
        made = method.made(
            Setting(
                model, bound, axes, Optimiser.parse(optimizer, adam, adam(1.0), OF_ADAM), asked.get("n_samples"), *data
            )
        )
        out = drive(made.algorithm, made.composition, job)
        out.options |= made.said
        return out

    def attempt(family: AbstractFamily) -> Fit:
        check_reads_row(model, family)
        bound = family if sized else in_force(defaults.bind(family, model, rows, task.seed))
        if isinstance(task.data, DynamicallyBinarized) and not bound.any_row:
            asked = f"`{type(bound).__name__}` for bits that are drawn anew"
            wrong, instead = "it has a q for the fitted rows alone", "Amortised(), or bits drawn once"
            raise ModelError(explain(asked, wrong, "each step sees other rows", instead))
        try:
            out = composed(model.traced(log_density_forms(model, rows, spec)), bound)
        except Untraced:  # a family that gives latents of another form than the model says
            out = composed(model, bound)
        if out.model is not None and type(out.model) is type(model) and not jax.tree.leaves(split_trainable(model)[0]):
            out.model = model  # whose functions can be run, not only evaluated
        return out

    first = attempt(chosen if chosen is not None else defaults.default_family(model))
    best, more = first, str(first.verdict) != "RELIABLE" and first.why != "interrupted"
    if chosen is None and not model.plated and more and task.budget.share_left > SECOND:
        richer = _richer(model, first)
        if richer is not None:
            second = attempt(richer)
            best = second if _score(second) >= _score(first) else first
            best.trail = [*first.trail, *second.trail]
    best.onward = functools.partial(_go_on, method, task, asked, rows)
    return task.finished(best)


def _go_on(
    method: AbstractTrained, task: Task, asked: dict[str, Any], rows: Any, fit: Fit, budget: Budget, progress: Any
) -> Fit:
    """Further steps from the fitted q and model; the fit itself where the verdict is worse after them."""
    task = dataclasses.replace(task, seed=task.seed + 1, budget=budget, progress=progress, began=time.perf_counter())
    asked = {name: value for name, value in asked.items() if name not in OF_THE_FIRST}
    with fit.precision():
        more = trained(method, task, asked | {"family": method.start_of(fit.family)}, fit.model, rows, sized=True)
    trail, history = [*fit.trail, *more.trail], np.concatenate([fit.history, more.history])
    seconds = fit.seconds + more.seconds
    best = more if _score(more)[0] >= _score(fit)[0] else fit
    return dataclasses.replace(
        best, trail=trail, history=history, seconds=seconds, seed=fit.seed, refit=fit.refit, onward=more.onward
    )


def no_m_step(model: AbstractModel) -> list[Problem]:
    """What is wrong with an M-step of a model that has nothing to train."""
    if jax.tree.leaves(split_trainable(model)[0]):
        return []
    because = "the M-step moves the model's own parameters, and it has none"
    return [Problem("there is no M-step", because, 'method="gradient"')]


def _richer(model: AbstractModel, fit: Fit) -> AbstractFamily | None:
    """Full rank (or low rank, if large) started from the mean-field fit; None where mean field is all there is."""
    family = fit.family
    if defaults.local_of(model) is not None or not {Fact.REPARAMETERISED, Fact.MOMENTS} <= family.facts:
        return None
    if not isinstance(family, AbstractDistribution):
        return None
    mean, variance = family.moments()
    n = sum(a.size for a in jax.tree.leaves(mean))
    usable = all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves((mean, variance)))
    if n < 2 or not usable or not all(bool((a > 0).all()) for a in jax.tree.leaves(variance)):
        return None
    shapes = jax.tree.map(jnp.shape, mean)
    richer = families.FullRank if n <= defaults.FULL_RANK_LIMIT else families.LowRank
    return richer(shapes, loc=mean, scale=jax.tree.map(jnp.sqrt, variance))


def _score(fit: Fit) -> tuple[int, float]:
    """Better verdict first, then the larger ELBO."""
    rank = {"RELIABLE": 2, "DOUBTFUL": 1, "UNRELIABLE": 0}[str(fit.verdict)]
    return rank, fit.elbo if np.isfinite(fit.elbo) else -np.inf
