"""EM on the host: chunks of iterations, passes over a file and epochs of stochastic EM, until settled, spent or stopped."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from ..algorithms import em as loops
from ..algorithms.budget import Budget
from ..algorithms.em import Climb
from ..compiled import key_for
from ..errors import OptionError, explain
from .em_rows import Source, chunked, dtype
from .loop import CHUNK_SECONDS, GROWTH

Advance = Callable[[Climb, int, Callable[[], bool]], Climb | None]
"""(state, iterations until, asked to stop?) -> the state then; None: stopped before an iteration was complete."""


def climbed(
    advance: Advance, state: Climb, n_iter: int, budget: Budget, asked: list, seen: Callable[[Climb, int], bool]
) -> tuple[Climb, str]:
    """(the state at the end, why: "settled", "iterations", "budget" or "interrupted").

    A chunk of iterations is as long as makes a quarter of a second; chunk borders decide nothing. `asked` holds something
    once there was a Ctrl-C; `seen`, called after each chunk with the state and its new iterations, asks to stop by True.
    """
    at, pace = int(np.max(state.n_iter)), 1
    stop = lambda: bool(asked) or (at > 0 and budget.spent)  # without one iteration there is no result
    while True:
        if np.all(state.done):
            return state, "settled"
        if at >= n_iter:
            return state, "iterations"
        if at and stop():
            return state, "interrupted" if asked else "budget"
        began, until = time.perf_counter(), min(at + pace, n_iter)
        if np.isfinite(budget.evaluations):
            until = min(until, max(at + 1, at + int(budget.evaluations - budget.used)))
        new = advance(state, until, stop)
        if new is None:
            if not at and asked:
                raise KeyboardInterrupt
            return state, "interrupted" if asked else "budget"
        done = int(np.max(jax.device_get(new.n_iter)))
        state, n, at = new, done - at, done
        budget.spend(n)
        wanted = min(CHUNK_SECONDS, budget.seconds - budget.elapsed) * n / (time.perf_counter() - began)
        pace = int(np.clip(wanted, 1, GROWTH * pace))
        if seen(state, n):
            return state, "interrupted"


# ---- how an iteration is made -----------------------------------------------------------------------------------
def in_memory(source: Source, tol: float, alone: bool) -> Advance:
    """All rows at hand: a chunk of iterations is one compiled call."""
    data, tolerance = source.chunks(), np.asarray(tol, dtype())
    return lambda state, until, stop: loops.climb_all(
        source.model, state, data, tolerance, np.asarray(until, np.int32), alone
    )


def streamed(source: Source, tol: float, alone: bool) -> Advance:
    """Over a file: an iteration is a pass over its blocks, all starts in each; a pass that is stopped is dropped."""

    def advance(state: Climb, until: int, stop: Callable[[], bool]) -> Climb | None:
        fresh = np.max(state.n_iter) == 0
        params, prior = loops.moved_all(source.model, state.params, state.statistics, np.bool_(fresh), alone)
        found = one_pass(source, params, alone, stop)
        return None if found is None else _observed(source, state._replace(params=params), *found, prior, tol)

    return advance


def stochastic(
    source: Source, alone: bool, batch_size: int, decay: float, delay: float, tol: float, seed: int
) -> Advance:
    """Stochastic EM: an iteration is an epoch in batches, and a pass for the objective of all rows."""
    n = len(source.data)
    if batch_size > n:
        asked, because = f"batch_size={batch_size} of {n} rows", "a batch is a part of the rows"
        raise OptionError(explain(asked, "it is larger than the data", because, "batch_size=None, or less"))
    arrays = [jnp.asarray(v, dtype()) for v in (source.total, decay, delay)]
    key = key_for(seed, "em batches")

    def advance(state: Climb, until: int, stop: Callable[[], bool]) -> Climb | None:
        kept, epoch = state, int(np.max(state.n_iter))
        new = state._replace(history=(), log_likelihood=(), fall=(), fell=())  # the host's
        for i, (rows, weights) in enumerate(source.blocks()):
            here = jr.fold_in(jr.fold_in(key, epoch), i)
            size = min(batch_size, len(rows))
            new = loops.stochastic(source.model, new, rows, weights, size, alone, here, *arrays)
            if stop():
                return None
        found = one_pass(source, new.params, alone, stop)
        if found is None:
            return None
        _, prior = loops.moved_all(source.model, new.params, new.statistics, np.bool_(True), alone)
        new = kept._replace(params=new.params, statistics=new.statistics, batches=new.batches)
        observed = _observed(source, new, found[0], new.statistics, prior, tol)
        return observed._replace(fall=np.zeros_like(observed.fall))  # it may fall, and says so

    return advance


def one_pass(
    source: Source, params: PyTree, alone: bool, stop: Callable[[], bool] = lambda: False
) -> tuple[np.ndarray, PyTree] | None:
    """(log-likelihood, statistics) of all blocks, added in float64; a block is read while the last is computed.
    None if `stop` says so between two blocks."""
    total, pending = None, None
    for rows, weights in source.blocks():
        if stop():
            return None
        found = loops.expect_all(source.model, params, chunked(rows, weights, source.per_chunk), alone)
        total = _plus(total, pending)
        pending = found
    value, statistics = _plus(total, pending)
    return value, jax.tree.map(lambda a: jnp.asarray(a, dtype()), statistics)


def _plus(total: Any, more: Any) -> Any:
    if more is None:
        return total
    more = jax.tree.map(lambda a: np.asarray(a, np.float64), jax.device_get(more))
    return more if total is None else jax.tree.map(np.add, total, more)


def _observed(source: Source, state: Climb, value: np.ndarray, statistics: PyTree, prior: Any, tol: float) -> Climb:
    """The state after one more evaluation, of `state.params`."""
    i, history = int(np.max(state.n_iter)), np.array(state.history, np.float64)
    new = history[:, i] = (value + np.asarray(prior, np.float64)) / source.total
    old, older, past = (history[:, i - back] if i >= back else np.full_like(new, -np.inf) for back in loops.BACK)
    rounding = np.finfo(dtype()).eps * (1 + np.abs(new))
    fall = np.where(np.isfinite(old), (old - new) / (loops.ROUNDING * rounding), 0.0)
    least = 4 * rounding
    still = (np.abs(new - old) <= least) & ((least <= tol) | (np.abs(new - past) <= least))
    values = map(jnp.asarray, (new, old, older, past))
    done = still | np.asarray(jax.vmap(lambda *a: loops.settled(tol, *a))(*values))
    worse = lambda a, b: jnp.where((fall > state.fall).reshape(-1, *[1] * (jnp.ndim(a) - 1)), b, a)
    return Climb(
        state.params, statistics, value, history, np.full(len(new), i + 1, np.int32), done,
        np.maximum(state.fall, fall), jax.tree.map(worse, state.fell, state.params), state.batches,
    )  # fmt: skip
