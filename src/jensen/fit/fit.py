"""`jensen.fit`: any model and data in; a posterior, and a verdict on it, out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import is_count
from ..process import ready

if TYPE_CHECKING:
    import numpy as np
    import optax

    from ..algorithms.method import AbstractMethod
    from ..families.base import AbstractFamily
    from ..gradients.base import AbstractEstimator
    from ..gradients.plans import AbstractPlan
    from ..objectives.base import AbstractObjective
    from .result import Fit

CHOSEN_ANEW = "checkpoint", "checkpoint_seconds", "on_chunk"  # of the one fit, not of those that are made like it


@ready()
def fit(
    model: Any,
    data: Any = None,
    *,
    family: AbstractFamily | str | None = None,
    objective: AbstractObjective | str | None = None,
    gradient: AbstractEstimator | str | None = None,
    plan: AbstractPlan | str | None = None,
    method: str | AbstractMethod | type[AbstractMethod] | None = None,
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
    n_draws: int | None = None,
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
        method: a name of `jensen.methods` (`jensen list method`), a class, or an object with options,
            `jn.methods.Pathfinder(n_paths=8)`; one's own is a subclass of `jn.methods.AbstractSolver` or `AbstractMethod`.
            "auto" (the ladder), or one rung: "laplace", "pathfinder", "dadvi", "natural-gradient", "batch-and-match",
            "score-matching", "mixture", "importance", "conditional-gaussian", "hmc", "nuts", "mala", "smc"; "gradient"
            (stochastic gradients), "flow", "variational-em" (q and the model in turn); "wake-sleep",
            "reweighted-wake-sleep", "wake-wake" (for a latent with each row), "hoffman", "vcd" (draws that MCMC improves).
            For an RBM or DBM: "pcd", "cd", "parallel-tempering" (an `EnergyFit`). For a mixture, factor analysis, PPCA or a
            hidden Markov model: "em" (an `EMFit`; n_steps are iterations).
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
        n_draws: draws the verdict is made from, 50 or more; None: 4,096.   on_chunk: called with (step, values) of stochastic
            gradients; True stops.
    Returns:    `Fit`.
    Raises:     IncompatibleComposition, ModelError, DataError, OptionError, CheckpointError.
    """
    from .run import run  # the algorithms take a second to import: `import jensen` does not wait for them

    given = {
        "family": family, "objective": objective, "gradient": gradient, "plan": plan, "optimizer": optimizer,
        "n_samples": n_samples, "n_steps": n_steps, "batch_size": batch_size, "early_stop": early_stop,
        "average": average, "donate": donate or None,
        "n_restarts": None if is_count(n_restarts) and n_restarts == 1 else n_restarts,
        "n_draws": n_draws, "accuracy": accuracy, "on_chunk": on_chunk,
        "checkpoint": None if checkpoint is None else Path(checkpoint),
        "checkpoint_seconds": None if checkpoint is None else checkpoint_seconds,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    of_all = {name: value for name, value in given.items() if name not in CHOSEN_ANEW}
    again = functools.partial(fit, method=method, budget=budget, progress=progress, **of_all)
    return run(model, data, method, seed=seed, budget=budget, progress=progress, given=given, again=again)
