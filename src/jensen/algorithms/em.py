"""Expectation maximisation: the compiled loops. Which model it is they do not know (`models.em.AbstractEM`)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PyTree

from ..compiled import compiled
from ..models.em import AbstractEM

ROUNDING = 32.0  # units of rounding of the objective that count as none
WINDOW = 10  # iterations that must gain nothing
BACK = 1, 2, WINDOW  # how far a decision looks
SHAKES = 8  # copies of the parameters by which the rounding of what is summed is measured


class Chunks(NamedTuple):
    """Rows in chunks, leaves (n_chunks, rows a chunk, ...), and weights (n_chunks, rows a chunk), 0 on padding."""

    rows: PyTree
    weights: Array


class Climb(NamedTuple):
    """Where EM is, and how it went; all that a checkpoint must hold.

    params; statistics, log_likelihood: of the last E-step, at these params.   history: the objective a unit of weight at
    each E-step, n_iter of them, then NaN.   done: settled, or not finite.   fall: the largest fall, in units of what
    rounding explains; fell: the parameters after it.   batches: of stochastic EM so far.
    """

    params: PyTree
    statistics: PyTree
    log_likelihood: Any
    history: Any
    n_iter: Any
    done: Any
    fall: Any
    fell: PyTree
    batches: Any


def expect(model: AbstractEM, params: PyTree, data: Chunks) -> tuple[Float[Array, ""], PyTree]:
    """(log-likelihood, statistics) of all rows: a scan over chunks; the log-likelihood by compensated summation."""
    if data.weights.shape[0] == 1:
        return model.e_step(params, *jax.tree.map(lambda a: a[0], tuple(data)))

    def add(carry, chunk):
        total, lost, statistics = carry
        value, more = model.e_step(params, *chunk)
        value = value - lost
        new = total + value
        return (new, (new - total) - value, jax.tree.map(jnp.add, statistics, more)), None

    first = jax.tree.map(lambda a: a[0], tuple(data))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(model.e_step, params, *first))
    (total, _, statistics), _ = jax.lax.scan(add, (zeros[0], zeros[0], zeros[1]), tuple(data))
    return total, statistics


def _rounding(value: Array) -> Array:
    return jnp.finfo(value.dtype).eps * (1 + jnp.abs(value))


def settled(tol: Array | float, new: Array, old: Array, older: Array, past: Array) -> Bool[Array, ""]:
    """What is left to gain, by Aitken's extrapolation of the last two gains, is below tol; or an iteration gained no more
    than rounding, and where that is coarser than tol, so did `WINDOW` iterations, since `past`: one may with far to go."""
    gain, before = new - old, old - older
    ratio = jnp.clip(gain / jnp.where(before > 0, before, jnp.inf), 0.0, 1 - 1e-6)
    left = gain * ratio / (1 - ratio)
    least = 4 * _rounding(new)
    usable = jnp.isfinite(before) & (before > 0) & (gain > least)
    still = (jnp.abs(gain) <= least) & ((least <= tol) | (jnp.abs(new - past) <= least))
    return still | (usable & (left < tol) & (gain < jnp.maximum(tol, 0.1 * before + tol)))


def begun(model: AbstractEM, params: PyTree, data: Chunks, n_iter: int) -> Climb:
    """Before the first E-step of one start. Of the data only the shapes are read."""
    dtype, zero = data.weights.dtype, jnp.zeros((), jnp.int32)
    first = jax.tree.map(lambda a: a[0], tuple(data))
    shapes = jax.eval_shape(model.e_step, params, *first)[1]
    statistics = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    value, history = jnp.array(-jnp.inf, dtype), jnp.full(n_iter, jnp.nan, dtype)
    return Climb(
        params, statistics, value, history, zero, jnp.array(False), jnp.zeros((), dtype), params, zero
    )  # fmt: skip


def climb(model: AbstractEM, state: Climb, data: Chunks, tol: Array, until: Array) -> Climb:
    """EM of one start, until so many E-steps are done, or it has settled. Each is one at the M-step's parameters of the
    E-step before: what is returned has been evaluated."""
    total = data.weights.sum()

    def body(s: Climb) -> Climb:
        i = s.n_iter
        moved = model.m_step(s.params, s.statistics)
        params = jax.tree.map(lambda old, new: jnp.where(i > 0, new, old), s.params, moved)
        log_likelihood, statistics = expect(model, params, data)
        value = (log_likelihood + model.log_prior(params)) / total
        old, older, past = (jnp.where(i >= back, s.history[i - back], -jnp.inf) for back in BACK)
        fall = jnp.where(i > 0, (old - value) / (ROUNDING * _rounding(value)), 0.0)
        fell = jax.tree.map(lambda a, b: jnp.where(fall > s.fall, b, a), s.fell, params)
        done = settled(tol, value, old, older, past) | ~jnp.isfinite(value)
        return Climb(
            params, statistics, log_likelihood, s.history.at[i].set(value), i + 1, done, jnp.maximum(s.fall, fall), fell,
            s.batches,
        )  # fmt: skip

    return jax.lax.while_loop(lambda s: ~s.done & (s.n_iter < until), body, state)


def over(fn: Any, alone: bool) -> Any:
    """fn(params, *rest) for every start: not mapped at all where there is one, which is faster."""
    if not alone:
        return lambda params, *rest: jax.vmap(lambda p: fn(p, *rest))(params)
    back = lambda tree: jax.tree.map(lambda a: a[None], tree)
    return lambda params, *rest: back(fn(jax.tree.map(lambda a: a[0], params), *rest))


@compiled(5)
def climb_all(model: AbstractEM, state: Climb, data: Chunks, tol: Array, until: Array, alone: bool) -> Climb:
    """EM of every start at once; leaves of the state lead with the starts."""
    return over(lambda s: climb(model, s, data, tol, until), alone)(state)


@compiled(3)
def expect_all(model: AbstractEM, params: PyTree, data: Chunks, alone: bool) -> tuple[Array, PyTree]:
    """(log-likelihood, statistics) of these rows under every start's parameters."""
    return over(lambda p: expect(model, p, data), alone)(params)


@compiled(4)
def moved_all(model: AbstractEM, params: PyTree, statistics: PyTree, fresh: Array, alone: bool) -> tuple[PyTree, Array]:
    """(the M-step's parameters, their log prior) of every start; the same parameters if `fresh`."""

    def one(p: tuple[PyTree, PyTree]) -> tuple[PyTree, Array]:
        new = jax.tree.map(lambda a, b: jnp.where(fresh, a, b), p[0], model.m_step(*p))
        return new, model.log_prior(new)

    return over(one, alone)((params, statistics))


@compiled(2)
def begin_all(model: AbstractEM, params: PyTree, n_iter: int, data: Chunks) -> Climb:
    """The state of every start, from their first parameters."""
    return jax.vmap(lambda p: begun(model, p, data, n_iter))(params)


@compiled(5)
def start_all(
    model: AbstractEM, keys: Array, rows: PyTree, random: Array, before: Array, n_iter: int, data: Chunks
) -> Climb:
    """The state of every start, from first parameters made of these rows, after so many starts `before`."""
    return jax.vmap(lambda p: begun(model, p, data, n_iter))(model.starts(keys, rows, random, before))


@compiled()
def shaken(model: AbstractEM, params: PyTree, key: Array) -> tuple[PyTree, Array]:
    """(`SHAKES` copies of the parameters, each number off by up to a unit of its rounding; their log priors)."""
    leaves, treedef = jax.tree.flatten(params)
    real = lambda a: jnp.issubdtype(a.dtype, jnp.inexact)
    off = lambda k, a: a * (1 + jnp.finfo(a.dtype).eps * jr.uniform(k, (SHAKES, *a.shape), a.dtype, -1, 1))
    same = lambda a: jnp.broadcast_to(a, (SHAKES, *a.shape))
    keys = jr.split(key, len(leaves))
    copies = jax.tree.unflatten(treedef, [off(k, a) if real(a) else same(a) for k, a in zip(keys, leaves, strict=True)])
    return copies, jax.vmap(model.log_prior)(copies)


@compiled(4, 5)
def stochastic(
    model: AbstractEM, state: Climb, rows: PyTree, weights: Array, batch_size: int, alone: bool,
    key: Array, total: Array, decay: Array, delay: Array,
) -> Climb:  # fmt: skip
    """One pass over these rows in batches: s <- (1 - g) s + g s_batch W / W_batch, g = (t + delay)^-decay; M-step(s).

    Statistics are sums about the current parameters, so s is moved along with them. A last short batch is dropped;
    rows are in another order at every pass.
    Reference: Cappé and Moulines (2009), eq. 12.  [cappe2009online]
    """
    n_batches = weights.shape[0] // batch_size
    order = jr.permutation(key, weights.shape[0])[: n_batches * batch_size].reshape(n_batches, batch_size)

    def one(state: Climb) -> Climb:
        def step(state: Climb, index):
            batch, weight = jax.tree.map(lambda a: a[index], rows), weights[index]
            _, now = model.e_step(state.params, batch, weight)
            rate = jnp.where(state.batches == 0, 1.0, (state.batches + delay) ** -decay).astype(weight.dtype)
            scale = rate * total / jnp.maximum(weight.sum(), jnp.finfo(weight.dtype).tiny)
            mixed = jax.tree.map(lambda s, b: (1 - rate) * s + scale * b, state.statistics, now)
            params = model.m_step(state.params, mixed)
            mixed = model.rebased(mixed, state.params, params)
            return state._replace(params=params, statistics=mixed, batches=state.batches + 1), None

        return jax.lax.scan(step, state, order)[0]

    return over(one, alone)(state)
