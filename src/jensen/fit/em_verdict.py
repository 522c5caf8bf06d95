"""The verdict on a fit by EM: how the iterations went, whether starts agree, what the data said nothing of."""

import math
from typing import Any

import jax
import numpy as np

from ..algorithms import em as loops
from ..algorithms.budget import Budget
from ..compiled import key_for
from ..diagnostics.checks import Judged, Judgement
from .em_passes import one_pass
from .em_rows import Source, dtype

AGREE = 1e-3  # nats a row, within which two starts have found the same
EXCUSED = 1e-3  # nats a row, by which an objective that may fall may fall
SPREADS = 4.0  # ranges of shaken values that a fall must exceed to be one
NAMED = 8  # parameters without data that are named one by one


def judged(
    source: Source, state: loops.Climb, ends: np.ndarray, best: int, why: str, n_free: int, *,
    batched: bool, given: bool, limit: Budget,
) -> Judged:  # fmt: skip
    """The verdict and its checks. state: where EM ended, on the host; ends: the objective of each start, best: the one kept."""
    model, judge = source.model, Judgement()
    own = lambda tree: jax.tree.map(lambda a: a[best], tree)
    params = own(state.params)
    judge.notes("model_parameters", sorted(model.faults(params), key=lambda fault: -fault[0]))
    weight = float(source.weights[source.weights > 0].mean(dtype=np.float64))
    rows = jax.tree.map(lambda a: np.asarray(a, np.float64) / weight, own(state.statistics))
    unknown = sorted(model.uninformed(params, rows), key=lambda found: -found[0])
    judge.notes("uninformed", unknown[:NAMED])
    if len(unknown) > NAMED:
        judge("uninformed", unknown[NAMED][0], f"The data say nothing of {len(unknown) - NAMED} more parameters.")
    history, n = np.asarray(state.history[best], np.float64), int(state.n_iter[best])
    _ended(judge, history[:n], why, batched, limit)
    if not batched:
        fall = float(state.fall[best])
        _fell(judge, source, own(state.fell), history[:n], fall if fall > 1 else 0.0)
    if model.several_optima and not given:
        _agreed(judge, source, ends)
    if n_free > source.size:
        judge(
            "free_parameters",
            1,
            f"There are more free parameters ({n_free:,}) than rows ({source.size:,.0f}).",
            value=n_free,
            limits=(source.size, math.inf),
        )
    return Judged(*judge.result())


def _ended(judge: Judgement, history: np.ndarray, why: str, batched: bool, limit: Budget) -> None:
    n, unit = len(history), "epochs" if batched else "iterations"
    unit = unit if len(history) > 1 else unit[:-1]
    if why == "interrupted":
        judge("ending", 1, f"EM was interrupted after {n} {unit}.")
    elif why == "budget" and limit.spent:
        judge("budget", 1, f"The budget of {limit} was used up after {n} {unit}, before EM had converged.")
    elif batched:
        last = np.abs(np.diff(history))[-1:]
        moving = bool(last.size and last[0] > AGREE)
        more = ", and the last still moved it: allow more (n_epochs)." if moving else "."
        judge(
            "ending",
            int(moving),
            f"Stochastic EM ran for {n} {unit}; the objective may fall from one to the next{more}",
        )
    elif why == "converged":
        judge("ending", 0, f"EM converged after {n} {unit}.")
    else:
        judge("ending", 1, f"EM had not converged after {n} {unit}: allow more (n_iter), or a larger tol.")


def _fell(judge: Judgement, source: Source, params: Any, history: np.ndarray, fall: float) -> None:
    """A fall is one if it exceeds what the rounding of the numbers that are summed explains: measured where it happened,
    since sums whose parts cancel are off by more than their own size says."""
    unit = loops.ROUNDING * float(np.finfo(dtype()).eps)
    size = fall * unit * (1 + float(np.abs(history).max(initial=0.0)))
    excuse = source.model.may_fall
    if fall and not (excuse and size < EXCUSED) and size > SPREADS * rounding(source, params):
        why = f" {excuse[0].upper()}{excuse[1:]}." if excuse else ""
        judge(
            "monotone",
            2,
            f"The objective fell at an iteration, by {size:.2g} nats a row, beyond rounding.{why}",
            value=size,
            limits=(0.0, 0.0),
        )
    elif fall and excuse:
        judge("monotone", 0, f"The objective never fell, but for rounding and little else: {excuse}.")
    else:
        judge("monotone", 0, "The objective never fell, beyond rounding.")


def rounding(source: Source, params: Any) -> float:
    """Range of the objective, nats a row, over copies of the parameters that differ by their rounding alone."""
    copies, prior = loops.shaken(source.model, params, key_for(0, "em rounding"))
    if source.streamed:
        value, _ = one_pass(source, copies, False)  # type: ignore[misc]
    else:
        value, _ = jax.device_get(loops.expect_all(source.model, copies, source.chunks(), False))
    values = (np.asarray(value, np.float64) + np.asarray(prior, np.float64)) / source.total
    return float(np.ptp(values))


def ended(source: Source, state: loops.Climb) -> np.ndarray:
    """The objective each start ended at, nats."""
    at = np.asarray(state.n_iter) - 1
    return np.asarray(state.history)[np.arange(len(at)), at].astype(np.float64) * source.total


def _near(source: Source, ends: np.ndarray) -> int:
    """How many reached the best."""
    return int((ends >= np.where(np.isfinite(ends), ends, -np.inf).max() - AGREE * source.total).sum())


def thin(source: Source, ends: np.ndarray) -> bool:
    """Do some agree on the best, but too few to say that there is none better?"""
    return 1 < _near(source, ends) < max(3, len(ends) / 2)


def _agreed(judge: Judgement, source: Source, ends: np.ndarray) -> None:
    near, n = _near(source, ends), len(ends)
    if n == 1:
        judge("initialisation", 1, "There was one start, and there may be better optima: use n_starts=4 or more.")
    elif near == 1:
        judge(
            "initialisation",
            1,
            f"Only one of {n} starts reached the best optimum: use more, there may be a better one.",
        )
    elif 4 * near < n:
        judge(
            "initialisation",
            1,
            f"Only {near} of {n} starts reached the best optimum: use more, there may be a better one.",
        )
    else:
        judge(
            "initialisation", 0, f"{near} of {n} starts reached the best optimum.", value=near / n, limits=(0.25, 0.0)
        )
