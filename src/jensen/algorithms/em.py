"""Expectation maximisation: the compiled loops. Which model it is they do not know (`models.em.AbstractEM`)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, PyTree

from ..compiled import compiled
from ..models.em import AbstractEM

ROUNDING = 32.0  # units of rounding of the objective that count as none


class Chunks(NamedTuple):
    """Rows in chunks, leaves (n_chunks, rows a chunk, ...), and weights (n_chunks, rows a chunk), 0 on padding."""

    rows: PyTree
    weights: Array


class Climb(NamedTuple):
    """How EM went. params, and their log_likelihood.   history: the objective a unit of weight at each iteration, n_iter
    of them, then NaN; the last is that of `params`.   fall: the largest fall, in units of what rounding explains."""

    params: PyTree
    log_likelihood: Any
    history: Any
    n_iter: Any
    converged: Any
    fall: Any


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


def settled(tol: Array | float, new: Array, old: Array, older: Array) -> Bool[Array, ""]:
    """What is left to gain, by Aitken's extrapolation of the last two gains, is below tol (or no more than rounding)."""
    gain, before = new - old, old - older
    ratio = jnp.clip(gain / jnp.where(before > 0, before, jnp.inf), 0.0, 1 - 1e-6)
    left = gain * ratio / (1 - ratio)
    usable = jnp.isfinite(before) & (before > 0) & (gain >= 0)
    return (jnp.abs(gain) <= 4 * _rounding(new)) | (
        usable & (left < tol) & (gain < jnp.maximum(tol, 0.1 * before + tol))
    )


def climb(model: AbstractEM, params: PyTree, data: Chunks, tol: Array, n_iter: int) -> Climb:
    """EM from one start, until settled or out of iterations."""
    total = data.weights.sum()

    def body(state):
        params, _, history, i, old, older, fall, _ = state
        log_likelihood, statistics = expect(model, params, data)
        value = (log_likelihood + model.log_prior(params)) / total
        fall = jnp.maximum(fall, jnp.where(i > 0, (old - value) / (ROUNDING * _rounding(value)), 0.0))
        done = settled(tol, value, old, older) | ~jnp.isfinite(value)
        new = model.m_step(params, statistics)
        last = done | (i + 1 == n_iter)  # no M-step after the last E-step: what is returned has been evaluated
        params = jax.tree.map(lambda a, b: jnp.where(last, a, b), params, new)
        return params, log_likelihood, history.at[i].set(value), i + 1, value, old, fall, done

    def unfinished(state):
        return ~state[-1] & (state[3] < n_iter)

    dtype = data.weights.dtype
    none = jnp.array(-jnp.inf, dtype)
    history = jnp.full(n_iter, jnp.nan, dtype)
    state = params, none, history, 0, none, none, jnp.zeros((), dtype), jnp.array(False)
    params, log_likelihood, history, i, value, _, fall, done = jax.lax.while_loop(unfinished, body, state)
    return Climb(params, log_likelihood, history, i, done & jnp.isfinite(value), fall)


def over(fn: Any, alone: bool) -> Any:
    """fn(params, *rest) for every start: not mapped at all where there is one, which is faster."""
    if not alone:
        return lambda params, *rest: jax.vmap(lambda p: fn(p, *rest))(params)
    back = lambda tree: jax.tree.map(lambda a: a[None], tree)
    return lambda params, *rest: back(fn(jax.tree.map(lambda a: a[0], params), *rest))


@compiled(3, 4)
def climb_all(model: AbstractEM, params: PyTree, data: Chunks, n_iter: int, alone: bool, tol: Array) -> Climb:
    """EM from every start at once; leaves of `params` and of the result lead with the starts."""
    return over(lambda p: climb(model, p, data, tol, n_iter), alone)(params)


@compiled(3)
def expect_all(model: AbstractEM, params: PyTree, data: Chunks, alone: bool) -> tuple[Array, PyTree]:
    """(log-likelihood, statistics) of these rows under every start's parameters."""
    return over(lambda p: expect(model, p, data), alone)(params)


@compiled(3)
def m_step_all(model: AbstractEM, params: PyTree, statistics: PyTree, alone: bool) -> tuple[PyTree, Array]:
    """(new parameters, log prior of the old ones) of every start."""
    both = lambda p: (model.m_step(p[0], p[1]), model.log_prior(p[0]))
    return over(both, alone)((params, statistics))


@compiled()
def start_all(model: AbstractEM, keys: Array, rows: Array, random: Array) -> PyTree:
    """First parameters of every start."""
    return jax.vmap(lambda key, at_random: model.start(key, rows, at_random))(keys, random)


class Running(NamedTuple):
    """State of stochastic EM: statistics are those of the whole data, collected about `params`; step counts batches."""

    params: PyTree
    statistics: PyTree
    step: Array


@compiled(4, 5)
def stochastic(
    model: AbstractEM, state: Running, rows: PyTree, weights: Array, batch_size: int, alone: bool,
    key: Array, total: Array, decay: Array, delay: Array,
) -> Running:  # fmt: skip
    """One pass over these rows in batches: s <- (1 - g) s + g s_batch W / W_batch, g = (t + delay)^-decay; M-step(s).

    Statistics are sums about the current parameters, so s is moved along with them. A last short batch is dropped;
    rows are in another order at every pass.
    Reference: Cappé and Moulines (2009), eq. 12.  [cappe2009online]
    """
    n_batches = weights.shape[0] // batch_size
    order = jr.permutation(key, weights.shape[0])[: n_batches * batch_size].reshape(n_batches, batch_size)

    def one(state: Running) -> Running:
        def step(state: Running, index):
            batch, weight = jax.tree.map(lambda a: a[index], rows), weights[index]
            _, now = model.e_step(state.params, batch, weight)
            rate = jnp.where(state.step == 0, 1.0, (state.step + delay) ** -decay).astype(weight.dtype)
            scale = rate * total / jnp.maximum(weight.sum(), jnp.finfo(weight.dtype).tiny)
            mixed = jax.tree.map(lambda s, b: (1 - rate) * s + scale * b, state.statistics, now)
            params = model.m_step(state.params, mixed)
            return Running(params, model.rebased(mixed, state.params, params), state.step + 1), None

        return jax.lax.scan(step, state, order)[0]

    return over(one, alone)(state)
