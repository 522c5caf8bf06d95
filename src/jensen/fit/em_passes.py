"""Loops of EM on the host: passes over a file, and epochs of stochastic EM."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from ..algorithms import em as loops
from ..algorithms.em import Running
from ..compiled import key_for
from ..errors import OptionError, explain
from .em_rows import Source, chunked, dtype


def one_pass(source: Source, params: PyTree, alone: bool) -> tuple[np.ndarray, PyTree]:
    """(log-likelihood, statistics) of all blocks, added in float64; a block is read while the last is computed."""
    total, pending = None, None
    for rows, weights in source.blocks():
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


def streamed(source: Source, params: PyTree, alone: bool, n_iter: int, tol: float) -> loops.Climb:
    """EM over a file: the loop of `climb` on the host, all starts in each pass over the blocks."""
    histories, fall = [], 0.0
    for i in range(n_iter):
        value, statistics = one_pass(source, params, alone)
        new, prior = loops.m_step_all(source.model, params, statistics, alone)
        histories.append((value + np.asarray(prior, np.float64)) / source.total)
        done, worst = _progress(histories, tol)
        fall = np.maximum(fall, worst)
        if done.all() or i + 1 == n_iter:
            break
        params = new
    return _climbed(params, value, histories, done, fall)


def _progress(histories: list[np.ndarray], tol: float) -> tuple[np.ndarray, np.ndarray]:
    """(settled, fall in units of rounding) of each start."""
    new = histories[-1]
    none = np.full_like(new, -np.inf)
    old, older = (histories[-i] if len(histories) >= i else none for i in (2, 3))
    rounding = np.finfo(dtype()).eps * (1 + np.abs(new))
    fall = np.where(np.isfinite(old), (old - new) / (loops.ROUNDING * rounding), 0.0)
    small = np.abs(new - old) <= 4 * rounding
    return small | np.asarray(jax.vmap(lambda *a: loops.settled(tol, *a))(*map(jnp.asarray, (new, old, older)))), fall


def _climbed(
    params: PyTree, value: np.ndarray, histories: list[np.ndarray], done: np.ndarray, fall: Any
) -> loops.Climb:
    history = np.stack(histories, 1)
    n_iter = np.full(len(history), history.shape[1])
    return loops.Climb(params, value, history, n_iter, np.asarray(done), np.broadcast_to(fall, n_iter.shape))


def stochastic(source, params, alone, batch_size, n_epochs, decay, delay, tol, seed) -> loops.Climb:
    """Stochastic EM; after each epoch the objective of all rows."""
    n = len(source.data)
    if batch_size > n:
        asked, because = f"batch_size={batch_size} of {n} rows", "a batch is a part of the rows"
        raise OptionError(explain(asked, "it is larger than the data", because, "batch_size=None, or less"))
    arrays = [jnp.asarray(v, dtype()) for v in (source.total, decay, delay)]
    key, histories = key_for(seed, "em batches"), []
    state: Any = None
    for epoch in range(n_epochs):
        for i, (rows, weights) in enumerate(source.blocks()):
            if state is None:
                state = _running(source, params, rows, alone)
            here = jr.fold_in(jr.fold_in(key, epoch), i)
            state = loops.stochastic(
                source.model, state, rows, weights, min(batch_size, len(rows)), alone, here, *arrays
            )
        value, _ = one_pass(source, state.params, alone)
        _, prior = loops.m_step_all(source.model, state.params, state.statistics, alone)
        histories.append((value + np.asarray(prior, np.float64)) / source.total)
        done, _ = _progress(histories, tol)
        if done.all():
            break
    return _climbed(state.params, value, histories, np.ones(len(histories[0]), bool), 0.0)


def _running(source: Source, params: PyTree, rows: np.ndarray, alone: bool) -> Running:
    chunk = chunked(rows[: source.per_chunk], np.ones(min(source.per_chunk, len(rows))), source.per_chunk)
    shapes = jax.eval_shape(lambda p, c: loops.expect_all.fn(source.model, p, c, alone)[1], params, chunk)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    return Running(params, zeros, jnp.zeros(jax.tree.leaves(params)[0].shape[0], jnp.int32))
