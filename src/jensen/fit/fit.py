"""`jensen.fit`: any model and data in; a posterior, and a verdict on it, out."""

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import families, gradients, objectives
from ..algorithms.adam import adam
from ..algorithms.budget import Budget
from ..algorithms.descent import Optimiser
from ..algorithms.gradient_vi import GradientVI
from ..arrays import in_force, lifted
from ..data.binarized import DynamicallyBinarized, for_loop
from ..errors import ModelError, OptionError, check_count, check_seed, explain
from ..facts import Fact
from ..families.base import AbstractDistribution, AbstractFamily
from ..gradients import plans
from ..gradients.base import AbstractEstimator, Parts
from ..judge import check, check_reads_row
from ..methods import AbstractMethod, AbstractSchedule, AbstractSideBySide
from ..models.base import AbstractModel
from ..models.coerce import as_model
from ..models.host import surfaced
from ..objectives.base import AbstractObjective
from ..process import ready
from ..program import Untraced
from ..tree import split_trainable
from . import cache, defaults, iterated
from .auto import BY_STEPS, check_method, obstacle, refuse_method, solve
from .dispatch import dispatched
from .driver import Job, drive
from .evaluate import log_density_forms
from .minibatch import MappedArray, first_batch, n_rows
from .result import Fit
from .rows import as_rows

DEFAULT_STEPS, FLOW_STEPS = 20_000, 3_000
LEAST_DRAWS = 50  # of which the tail that k-hat is read off has ten
LEAST_ACCURACY = 1e-3  # a million independent draws
SECOND = 0.5  # of the budget must be left for a second, richer family
WITHOUT_STEPS = "checkpoint", "on_chunk"  # options that choose no method: they go with one that has steps


@ready()
@surfaced()
def fit(
    model: Any,
    data: Any = None,
    *,
    family: AbstractFamily | str | None = None,
    objective: AbstractObjective | str | None = None,
    gradient: AbstractEstimator | str | None = None,
    plan: plans.AbstractPlan | str | None = None,
    method: str | AbstractMethod | None = None,
    budget: str | float | None = None,
    accuracy: float | None = None,
    optimizer: optax.GradientTransformation | float | None = None,
    n_samples: int | None = None,
    n_steps: int | None = None,
    batch_size: int | None = None,
    n_restarts: int = 1,
    seed: int = 0,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    early_stop: bool | None = None,
    average: bool | None = None,
    donate: bool = False,
    n_draws: int = 4096,
    on_chunk: Callable[[int, np.ndarray], bool | None] | None = None,
) -> Fit:
    """Fits q to a model's posterior, and judges it.

    With nothing chosen it climbs the ladder, in double precision: Gaussians from every mode found, importance weights,
    chains, a conditional Gaussian and its chains, each only where the one before does not stand up to the checks
    (`fit.trail`). Where one latent belongs to each row, or latents are discrete, or rows come in minibatches, and
    wherever an axis (family, objective, gradient, plan) or an option of the optimiser is given, it takes stochastic
    gradients: mean-field, then full-rank when k-hat says it must.

    Arguments:
        model: a NumPyro function, or a jensen model (`LogDensity`, `LatentVariable`, `from_numpyro(...)`).
        data: for a NumPyro function its arguments (tuple, dict or one value); else an array, table or tree of arrays
            with a leading row axis, or the path of a `.npy` larger than memory.
        family, objective, gradient, plan: the axes, as objects, classes or names (`"full-rank"`). gradient="auto": the
            estimator that is best on a short trial (`gradient_lab`).
        method: "auto" (the ladder), "gradient" (stochastic gradients), "wake-sleep", "reweighted-wake-sleep" or
            "wake-wake" (for a latent with each row), "hoffman" or "vcd" (draws that MCMC improves), "variational-em"
            (q and the model in turn); any of these as an object with options, `jn.methods.VCD(n_steps=4)`; or one rung by
            name: "laplace", "pathfinder", "dadvi",
            "natural-gradient", "batch-and-match", "score-matching", "mixture", "importance", "conditional-gaussian",
            "hmc", "nuts", "mala", "smc", "flow".
            For an RBM or DBM: "cd", "pcd", "parallel-tempering" (`jensen.fit.energy.fit_energy`, an `EnergyFit`). For
            a mixture, factor analysis, PPCA or a hidden Markov model: "em" (`jensen.em`, an `EMFit`; n_steps are iterations).
        budget: "seconds:30", "evaluations:20000" (of the density with its gradient), or a number of seconds. What is
            best when it runs out is returned, with its verdict. None: the ladder's last rung, the No-U-Turn sampler, ends
            at half a million gradients (fewer where one is dear) or ten times those of the rungs below, and says so; with a
            budget it goes on to its end.
        accuracy: the Monte Carlo error of a mean, in sd of its posterior, at which sampling may stop, and by which the verdict
            judges it (of an sd, relative: 4/3 of it). None: .015, or up to .027 where an evaluation takes long. Of the ladder
            and its rungs.
        optimizer: an Optax transformation; a number: Adam with that step size; None: Adam whose step size is chosen on
            a short trial and lowered when progress stalls.
        n_samples: draws a step (a datum).   n_steps: optimiser steps; None: at most 20,000, ending when settled.
        batch_size: rows a step; None: all (or 100 with a latent per row and more than 500 rows).
        n_restarts: starts run at once by vmap, the best one kept.
        progress: a Rich bar; None: only at a terminal.
        seed: a whole number from 0 on.
        checkpoint: folder; written every `checkpoint_seconds`, and resumed from if it holds the same fit. Only fits by
            stochastic gradients have one.
        early_stop: end when settled (default: only if n_steps is None).   average: average the last iterates.
        donate: half the memory for the state, at the price of a finiteness check at each step.
        n_draws: draws the verdict is made from, 50 or more.   on_chunk: called with (step, values) of stochastic
            gradients; True stops.
    Returns:    `Fit`.
    Raises:     IncompatibleComposition, ModelError, DataError, OptionError, CheckpointError.
    """
    began = time.perf_counter()
    cache.switch_on()
    _check_options(n_samples=n_samples, n_steps=n_steps, batch_size=batch_size, n_restarts=n_restarts, n_draws=n_draws)
    seed = check_seed(seed, "fit")
    _check_accuracy(accuracy)
    if n_draws < LEAST_DRAWS:
        wrong, because = (
            f"{n_draws} draws are too few to judge a fit by",
            "its k-hat is read off the largest fifth of them",
        )
        raise OptionError(explain(f"n_draws={n_draws}", wrong, because, f"n_draws={LEAST_DRAWS} or more (usual: 4096)"))
    of_gradients = {
        "family": family, "objective": objective, "gradient": gradient, "plan": plan, "optimizer": optimizer,
        "n_samples": n_samples, "n_steps": n_steps, "batch_size": batch_size, "checkpoint": checkpoint,
        "early_stop": early_stop, "average": average, "donate": donate or None, "on_chunk": on_chunk,
        "n_restarts": None if n_restarts == 1 else n_restarts,
    }  # fmt: skip
    given = [name for name, value in of_gradients.items() if value is not None]
    everything = of_gradients | {"method": method, "budget": budget, "accuracy": accuracy, "progress": progress}
    everything["checkpoint_seconds"] = None if checkpoint is None else checkpoint_seconds
    own = dispatched(model, data, {"seed": seed} | {k: v for k, v in everything.items() if v is not None})
    if own is not None:
        return own
    limit, asked = Budget.parse(budget), None if method is None else check_method(method)
    algorithm = method if isinstance(method, AbstractMethod) else iterated.ITERATED.get(asked or "")
    side_by_side = algorithm if isinstance(algorithm, AbstractSideBySide) else None
    schedule = algorithm if isinstance(algorithm, AbstractSchedule) else None
    if side_by_side is not None:
        iterated.refuse_axes(side_by_side, objective=objective, gradient=gradient, plan=plan)
    if isinstance(data, (str, Path)):
        data = _open(Path(data))
    again = functools.partial(
        fit, method=method, budget=budget, accuracy=accuracy, n_draws=n_draws, progress=progress,
        **{k: v for k, v in of_gradients.items() if v is not None and k not in ("checkpoint", "on_chunk")},
    )  # fmt: skip
    if isinstance(data, DynamicallyBinarized):
        given.append("data drawn anew")
    beside = [name for name in given if name in WITHOUT_STEPS]
    by_steps = len(given) > len(beside) or asked == "gradient" or algorithm is not None
    ladder = not isinstance(model, AbstractModel) and not by_steps
    with jax.enable_x64(True) if ladder else contextlib.nullcontext():  # it is traced in the precision it will run in
        asked_model, rows = as_model(model, data)
        model = asked_model.twin()
    rows = as_rows(rows, divisible=Fact.MINIBATCH in model.facts)
    if schedule is not None:
        iterated.check_m_step(schedule, model)
    if model.plated and rows is None:
        raise ModelError(
            explain(
                "`fit` of a model with a latent for each row", "data is None", "there are no rows", "fit(model, data)"
            )
        )
    batch_size = _batch_size(model, rows, batch_size)
    wrong = obstacle(model, rows, batch_size)
    if asked not in (None, *BY_STEPS):
        if given:
            because = "these belong to stochastic gradients"
            instead = 'method="gradient", or none of them'
            raise OptionError(explain(f"method={method!r} with {given}", "the two do not meet", because, instead))
        if wrong is not None and asked != "auto":
            raise refuse_method(asked, wrong)
    if asked not in BY_STEPS and wrong is None and not by_steps:
        if beside:
            because = (
                "the method that is taken for this model works rung by rung, not step by step, in seconds as a rule"
            )
            instead = (
                f'method="gradient" for a fit that goes on from a checkpoint; or no {beside[0]}, and fit.save(folder)'
            )
            raise OptionError(explain(f"{' and '.join(beside)} without a method", "it has no steps", because, instead))
        out = solve(model, rows, asked or "auto", seed, limit, n_draws, progress, accuracy)
        out.refit, out.seconds = again, time.perf_counter() - began
        return out
    if accuracy is not None:
        because = wrong or "it takes stochastic gradients, whose end is a bound that no longer rises, not an error"
        instead = 'no accuracy, or the ladder (method="auto") on a model of one latent vector with all data at hand'
        raise OptionError(explain(f"accuracy={accuracy}", "this fit has no such end", because, instead))
    if asked == "flow":
        chosen_flow = _flow(asked_model.twin(), rows, seed, limit, n_draws, family)
        family, n_steps = chosen_flow, n_steps or FLOW_STEPS
    model, rows = model.lifted(), lifted(rows)
    objective = cast(
        AbstractObjective, defaults.named("objective", objective, defaults.exported(objectives)) or objectives.ELBO()
    )
    plan = cast(plans.AbstractPlan, defaults.named("plan", plan, defaults.exported(plans)) or plans.IID())
    chosen = defaults.named("family", family, defaults.exported(families))
    on_trial = isinstance(gradient, str) and gradient.lower() == "auto"
    asked_gradient = None if on_trial else gradient
    gradient = cast(AbstractEstimator | None, defaults.named("gradient", asked_gradient, defaults.exported(gradients)))
    spec = first_batch(rows, batch_size)
    job = Job(
        rows=rows, data=for_loop(data, rows), batch_size=batch_size, first=spec, seed=seed, n_steps=n_steps or DEFAULT_STEPS,
        early_stop=(n_steps is None) if early_stop is None else early_stop,
        average=(not model.plated and optimizer is None) if average is None else average,
        donate=donate, n_restarts=n_restarts, progress=progress,
        checkpoint=None if checkpoint is None else Path(checkpoint), checkpoint_seconds=checkpoint_seconds,
        n_draws=n_draws, on_chunk=on_chunk, tuned=optimizer is None, limit=limit,
        asked_step=float(optimizer) if isinstance(optimizer, (int, float)) else None,
    )  # fmt: skip

    def attempt(family: AbstractFamily) -> Fit:
        check_reads_row(model, family)
        bound = in_force(defaults.bind(family, model, rows, seed))
        if isinstance(data, DynamicallyBinarized) and not bound.any_row:
            asked, wrong = (
                f"`{type(bound).__name__}` for bits that are drawn anew",
                "it has a q for the fitted rows alone",
            )
            raise ModelError(explain(asked, wrong, "each step sees other rows", "Amortised(), or bits drawn once"))
        try:
            out = composed(model.traced(log_density_forms(model, rows, spec)), bound)
        except Untraced:  # a family that gives latents of another form than the model says
            out = composed(model, bound)
        if out.model is not None and type(out.model) is type(model) and not jax.tree.leaves(split_trainable(model)[0]):
            out.model = model  # whose functions can be run, not only evaluated
        return out

    def composed(model: AbstractModel, bound: AbstractFamily) -> Fit:
        minibatched = batch_size is not None and rows is not None and batch_size < n_rows(rows)
        if side_by_side is not None:
            return drive(*iterated.made(side_by_side, model, bound, _optimiser(optimizer), n_samples, minibatched), job)
        composition, why = defaults.complete(model, bound, objective, gradient, plan, n_samples, minibatched), ""
        if on_trial:
            from ..lab.choose import Subject, choose

            subject = Subject(model, bound, objective, rows, batch_size, spec, seed)
            composition, why = choose(subject, plan, n_samples)
        check(composition)
        parts = Parts(model, bound, defaults.bind_gradient(composition.gradient, model, rows, seed))
        make = GradientVI if schedule is None else schedule.descent
        descent = make(parts, objective, plan, _optimiser(optimizer), composition.n_samples)
        out = drive(descent, composition, job)
        out.options |= {"gradient_chosen": why} if on_trial else {}
        out.options |= {} if schedule is None else {"steps": repr(schedule)}
        return out

    first = attempt(chosen if chosen is not None else defaults.default_family(model))
    best = first
    if (
        chosen is None
        and not model.plated
        and _needs_more(first)
        and first.why != "interrupted"
        and limit.share_left > SECOND
    ):
        richer = _richer(model, first)
        if richer is not None:
            second = attempt(richer)
            best = second if _score(second) >= _score(first) else first
            best.trail = [*first.trail, *second.trail]
    best.seconds, best.refit = time.perf_counter() - began, again
    return best


def _flow(model: AbstractModel, rows: Any, seed: int, limit: Budget, n_draws: int, family: Any) -> AbstractFamily:
    """A real-NVP flow around the best Gaussian."""
    if family is not None:
        wrong = f"family={type(family).__name__} is given too"
        raise OptionError(explain('method="flow"', wrong, "the method chooses a flow", 'method="gradient"'))
    obstacle_ = obstacle(model, rows, None)
    if obstacle_ is not None:
        raise refuse_method("flow", obstacle_)
    base: Any = solve(model, rows, "natural-gradient", seed, limit, n_draws, False).family
    with jax.enable_x64(True):
        loc, cholesky = jax.device_get((base.layout.unravel(base.loc), base.cholesky()))
    return families.RealNVP(base.layout.shape_tree(), loc=loc, cholesky=cholesky)


def _open(path: Path) -> Any:
    from ..data.load import load_table

    return load_table(path)


def _check_accuracy(accuracy: float | None) -> None:
    if accuracy is None:
        return
    number = isinstance(accuracy, int | float) and not isinstance(accuracy, bool)
    if not (number and LEAST_ACCURACY <= accuracy <= 1):
        wrong = f"it is no number from {LEAST_ACCURACY} to 1"
        because = (
            "it is the Monte Carlo error of a mean in posterior sds, which falls with the root of the number of draws"
        )
        raise OptionError(explain(f"accuracy={accuracy!r}", wrong, because, "accuracy=0.02"))


def _check_options(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None:
            check_count(name, value)


def _batch_size(model: AbstractModel, rows: Any, asked: int | None) -> int | None:
    if rows is None:
        if asked is not None:
            because = "rows are drawn from data with a leading axis"
            instead = "numpyro.plate(..., subsample_size=...) in the model, or fit(model, data)"
            raise OptionError(explain(f"batch_size={asked}", "there are no rows to divide", because, instead))
        return None
    n = n_rows(rows)
    own = getattr(model, "batch_size", None)
    if own is not None:
        return own if asked is None else min(asked, n)
    if asked is not None:
        return None if asked >= n and not isinstance(rows, MappedArray) else min(asked, n)
    if isinstance(rows, MappedArray) or (model.plated and n > 500):
        return min(100, n)
    return None


def _optimiser(optimizer: Any) -> Optimiser:
    if optimizer is None:
        return Optimiser(adam(1.0))  # the loop's scale is the step size
    if isinstance(optimizer, (int, float)) and not isinstance(optimizer, bool):
        if not optimizer > 0:
            raise OptionError(
                explain(
                    f"optimizer={optimizer}", "the step size is not positive", "steps go downhill", "optimizer=1e-2"
                )
            )
        return Optimiser(adam(float(optimizer)))
    if isinstance(optimizer, bool) or not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        asked = f"optimizer={optimizer!r}"
        raise OptionError(
            explain(
                asked,
                "it is not an Optax transformation",
                "it must have init and update",
                "optax.adam(1e-3), or a step size",
            )
        )
    return Optimiser(optimizer)


def _needs_more(fit: Fit) -> bool:
    """k-hat (or its companions) says a mean-field q does not do."""
    return str(fit.verdict) != "RELIABLE"


def _richer(model: AbstractModel, fit: Fit) -> AbstractFamily | None:
    """Full rank (or low rank, if large) started from the mean-field fit; None where mean field is all there is."""
    if defaults.local_of(model) is not None or not {Fact.REPARAMETERISED, Fact.MOMENTS} <= fit.family.facts:
        return None
    mean, variance = cast(AbstractDistribution, fit.family).moments()
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
