"""The ladder and its solvers: from a model to a `Fit`, in double precision."""

import contextlib
import copy
import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..algorithms.budget import Budget
from ..algorithms.gaussian import Gaussian
from ..algorithms.importance import evaluated, n_weighed, proposal_of
from ..algorithms.laplace import starts
from ..algorithms.solver import AbstractSolver
from ..algorithms.target import Target
from ..diagnostics.evidence import bridge
from ..diagnostics.verdict import noted, too_few
from ..errors import ModelError, explain
from ..families.draws import Draws
from ..families.full_rank import FullRank
from ..families.mean_field import MeanField
from ..models.base import AbstractModel
from ..tree import Layout, split_trainable
from . import defaults
from .attempt import Attempt
from .ladder import Ladder
from .nowhere import at_fault, unreachable
from .pictures import coordinates as pictured
from .progress import steps_shown
from .result import Fit
from .rungs import Step
from .view import other_view

KEPT = 0.5  # of what is left of the budget: for the draws that are kept of a q that is the answer itself


def obstacle(model: AbstractModel, rows: Any, batch_size: int | None) -> str | None:
    """Why the ladder cannot take this model, in words; None if it can."""
    kinds = {**getattr(model, "site_kinds", {})}
    discrete = [site for site, kind in kinds.items() if kind != "real"]
    if model.plated:
        return "every row has a latent of its own"
    if defaults.local_of(model) is not None or batch_size is not None:
        return "its rows come in minibatches"
    if discrete:
        return f"{discrete[0]!r} is discrete"
    if jax.tree.leaves(split_trainable(model)[0]):
        return "it has parameters that are trained along with q"
    return None


def solve(
    model: AbstractModel,
    rows: Any,
    solver: AbstractSolver | None,
    seed: int,
    budget: Budget,
    n_draws: int,
    progress,
    accuracy: float | None = None,
) -> Fit:
    """Runs one solver, or the ladder, and packs what came out, in double precision, in which the data are read too."""
    began = time.perf_counter()
    with jax.enable_x64(True), np.errstate(all="ignore"), one_blas_thread():
        target = Target(model, rows, budget, accuracy)
        ladder = Ladder(target, seed, n_draws, steps_shown(progress), lambda: other_view(target))
        try:
            step = ladder.climb() if solver is None else ladder.single(solver)
        except KeyboardInterrupt:
            if not ladder.steps:
                raise
            step = ladder.best()
            step.solution.why = "interrupted"
        if step is None:
            raise ModelError(_nowhere(target, seed))
        fit = _packed(target, ladder, step, seed, n_draws, time.perf_counter() - began)
    return _with_more(fit, ladder, step, n_draws)


def _with_more(fit: Fit, ladder: Ladder, step: Step, n_draws: int) -> Fit:
    """The fit, which can go on where chains can: they need a gradient, and no wall that they would cross."""
    walled = ladder.support is not None and ladder.support.ends is None
    if ladder.target.smooth and ladder.improper is None and not walled:
        ladder.steps = [step]  # the others are in the trail
        fit.onward = functools.partial(_go_on, ladder, n_draws)
    return fit


def _go_on(ladder: Ladder, n_draws: int, fit: Fit, budget: Budget, progress: bool | None) -> Fit:
    """The fit after another rung, the No-U-Turn sampler from its best step, with the trail continued."""
    began, target, ladder = time.perf_counter(), ladder.target, copy.copy(ladder)
    ladder.steps = list(ladder.steps)  # the fit stays as it is, and may go on again
    with jax.enable_x64(True), np.errstate(all="ignore"), one_blas_thread():
        target.budget.renew(budget)
        ladder.shown = steps_shown(progress)
        step = ladder.onward()
        seconds = fit.seconds + time.perf_counter() - began
        more = _packed(target, ladder, step, ladder.seed, n_draws, seconds)
    more.trail = [*fit.trail, *more.trail[1:]]
    more.options["evaluations"] += fit.options["evaluations"]
    more.seed, more.refit = fit.seed, fit.refit
    return _with_more(more, ladder, step, n_draws)


class _Blas:
    """Who computes with one BLAS thread: the number of threads is the whole process's, and so is what it was before."""

    lock, inside = threading.Lock(), 0
    controller: Any = None
    before: Any = None

    @classmethod
    def enter(cls) -> Any:
        with cls.lock:
            if cls.controller is None:
                from threadpoolctl import ThreadpoolController

                cls.controller = ThreadpoolController()
            if not cls.inside:
                cls.before = cls.controller.info()
            cls.inside += 1
            return cls.controller.limit(limits=1, user_api="blas")

    @classmethod
    def leave(cls) -> None:
        """The last one out restores what the first one found; until then, what the others need stays. In a thread that
        ends at once, since threadpoolctl obeys the thread that set a number for as long as that one lives."""
        with cls.lock:
            cls.inside -= 1
            wanted: dict[str, Any] = {"limits": 1, "user_api": "blas"} if cls.inside else {"limits": cls.before}
            setter = threading.Thread(target=cls.controller.limit, kwargs=wanted)
            setter.start()
            setter.join()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Small factorisations inside compiled programs: more threads wait for each other fifty times longer than they work."""
    limit = _Blas.enter()
    try:
        with limit:
            yield
    finally:
        _Blas.leave()


def _nowhere(target: Target, seed: int) -> str:
    if target.budget.overdrawn:
        wrong = f"no point with a finite log density was seen in {target.evaluations} evaluations"
        return explain(
            f"fit(budget={str(target.budget)!r})", wrong, "the budget was used up before one was found", "more of it"
        )
    u = starts(np.random.default_rng([seed, 1]), target.dim)
    values, gradients = target.raw(u)
    return unreachable(values, gradients, values[0], at_fault=at_fault(target.model))


def _packed(target: Target, ladder: Ladder, step: Step, seed, n_draws, seconds) -> Fit:
    s = step.solution
    if ladder.support is None:  # walls have a picture of their own
        step.diagnosis.details.update(pictured(step.view, step.own, s, target.names))
    searched = ladder.searches.get(step.view.label)
    if searched is not None and "search" in step.diagnosis.details:
        step.diagnosis.details["search"]["picture"] = searched.picture()
    if s.draws is None:
        u = s.q.sample(np.random.default_rng([seed, 3]), target.affordable(min(n_draws, n_weighed(target)), KEPT))
        log_p, u = evaluated(target, u)
        log_q = s.q.log_prob(u)
    else:
        keep = np.linspace(0, len(s.draws) - 1, min(n_draws, len(s.draws))).astype(int)
        u, log_p = s.draws[keep], np.asarray(s.log_p)[keep]
        log_q = proposal_of(s.q).log_prob(u) if s.log_q is None else s.log_q[keep]
    if s.corrected == "chains":
        _bridge(step, log_p, log_q)
    family, diagnosis = _family(s, target.layout, u), noted(step.diagnosis, "few_draws", too_few(len(u)))
    history = np.asarray(s.history if s.history else [step.diagnosis.elbo], float)
    return Fit(
        family=family, model=target.model, rows=target.batch.rows, diagnosis=diagnosis, history=history,
        why=s.why, seconds=seconds, step_size=None, seed=seed, draws=unravel_many(target.layout, u), log_p=log_p, log_q=log_q,
        options=_options(family, step, target, ladder), trail=[_attempt(x) for x in ladder.steps],
        corrected=s.corrected, proposal=s.q if s.log_q is None else None, double=True,
        proposals=(step.home.log_p, step.home.log_q), marginals=step.marginals,
    )  # fmt: skip


def _bridge(step: Step, log_p: np.ndarray, log_q: np.ndarray) -> None:
    """The evidence by the bridge between q and the chains, where importance weights alone would not do."""
    home, d = step.home, step.diagnosis
    ess = min(len(log_p), d.details["chains"]["se_mean"] ** -2)
    finite = np.isfinite(log_p) & np.isfinite(log_q)
    if finite.sum() > 1 and np.isfinite(home.log_p).any():
        d.log_evidence, d.log_evidence_se = bridge(home.log_p, home.log_q, log_p[finite], log_q[finite], ess=ess)


def unravel_many(layout: Layout, u: np.ndarray) -> Any:
    """(n, D) to the tree of arrays with a leading axis n."""
    parts = np.split(u, np.cumsum(layout.sizes)[:-1], axis=1)
    return jax.tree.unflatten(
        layout.treedef, [p.reshape(len(u), *s) for p, s in zip(parts, layout.shapes, strict=True)]
    )


def _family(s: Any, layout: Layout, u: np.ndarray) -> Any:
    """q itself where it is the answer, else the draws."""
    shape = layout.shape_tree()
    if s.corrected != "none" or not isinstance(s.q, Gaussian):
        return Draws(shape, jnp.asarray(u))
    if s.q.diagonal:
        family = MeanField(shape)
        return eqx.tree_at(lambda f: (f.loc, f.log_scale), family, (jnp.asarray(s.q.mean), jnp.log(s.q.root)))
    scale = np.diagonal(s.q.root)
    lower = jnp.asarray(np.tril(s.q.root / scale[:, None], -1))
    parts = (jnp.asarray(s.q.mean), jnp.log(scale), lower)
    return eqx.tree_at(lambda f: (f.loc, f.log_scale, f.lower), FullRank(shape), parts)


def _options(family: Any, step: Step, target: Target, ladder: Ladder) -> dict[str, Any]:
    return {
        "model": type(target.model).__name__, "family": type(family).__name__, "method": step.name, **ladder.said,
        "evaluations": target.budget.used, "budget": str(target.budget), "seed": ladder.seed, "precision": "float64",
    }  # fmt: skip


def _attempt(step: Step) -> Attempt:
    d = step.diagnosis
    return Attempt(
        step.name, str(d.verdict), d.khat, d.elbo, step.seconds, step.solution.why,
        log_evidence=d.log_evidence, evaluations=step.evaluations, climbed=step.climbed,
    )  # fmt: skip
