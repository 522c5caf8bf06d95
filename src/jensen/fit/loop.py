"""The compiled loop: chunks of steps, one host synchronisation a chunk. It knows only an algorithm.

What makes the second fit compile nothing: the jitted functions live at module level; everything that varies (data, keys,
state, step counts) is an argument; only shapes, `Plan` and the algorithm's static fields key the cache; `strong` removes
weak types, or the second chunk would compile again.

Finiteness is optimistic: a chunk runs unchecked with one bit at its end; if that is bad, the chunk is replayed from the
kept carry in a careful variant that skips failed steps, rolls back and shrinks the step size. Nothing is different when nothing
goes wrong.
"""

import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree

from ..algorithms.base import AbstractAlgorithm
from ..batch import Batch
from ..compiled import Compiled, Recent, compiled, root_key
from ..data.binarized import drawn
from ..function import Static
from ..tree import default_float, length
from . import monitor as mon
from .minibatch import Stream, batch_at, permutation, steps_per_epoch
from .monitor import Monitor, Status

CAPACITY = 8192  # steps in one chunk, at most
CHUNK_SECONDS = 0.25
BLOCK = 256  # steps whose noise is drawn in one call, where it is drawn ahead
GROWTH = 16  # a chunk has at most so many times the steps of the one before
_PACE: Recent[int] = Recent(256)  # steps a chunk, learned from earlier fits: chunk borders decide nothing


class Plan(NamedTuple):
    """Static: part of the cache key."""

    batch_size: int | None = None  # None: all rows at every step
    decay: bool = False  # lower the step size when progress stalls
    stop: bool = False  # end when it has stalled at the lowest step size
    average: bool = False  # keep the mean of the iterates since progress last stopped
    streamed: bool = False  # the data argument is this chunk's batches
    donate: bool = False  # one copy of the state less, finiteness checked at every step
    capacity: int = CAPACITY
    ahead: bool = True  # draw the noise of a whole chunk in one call


class Carry(NamedTuple):
    """All that a checkpoint must hold; resuming from it is bit-exact, because every random number is a function of
    (key, step) and every decision a function of steps."""

    state: PyTree
    safe: PyTree  # the state at the end of the best window, for rolling back; () if donated
    average: PyTree  # mean of the iterates, () if not wanted
    n_averaged: Array
    monitor: Monitor
    key: Array  # raw key data, so that it can be saved
    step: Array


class Outcome(NamedTuple):
    carry: Carry
    values: np.ndarray
    why: str  # "converged" | "budget" | "diverged" | "interrupted"
    seconds: float


def strong(tree: PyTree) -> PyTree:
    """Without weak types."""
    return jax.tree.map(lambda a: jax.lax.convert_element_type(a, a.dtype) if eqx.is_array(a) else a, tree)


@compiled(0, 1)
def _init(static: Static, plan: Plan, arrays, key_data, batch: Batch, scale, best) -> Carry:
    algorithm: AbstractAlgorithm = eqx.combine(arrays, static.tree)
    state = strong(algorithm.init(jr.fold_in(jr.wrap_key_data(key_data), 0), batch))
    average = jax.tree.map(jnp.zeros_like, algorithm.parameters(state)) if plan.average else ()
    none = jnp.zeros((), jnp.int32)
    return Carry(
        state, () if plan.donate else state, average, none, mon.start(default_float(), scale, best), key_data, none
    )


def _finite(tree: PyTree) -> Array:
    leaves = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(a).all() for a in leaves]).all() if leaves else jnp.array(True)


def _where(condition: Array, a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _chunk(static: Static, plan: Plan, careful: bool, arrays, carry: Carry, end, window, data: PyTree, order, known):
    """Steps from carry.step to `end`, dynamic, at most plan.capacity of them. `order` is the epoch's permutation if
    `known`: a function of the key, handed on only to save its making at every chunk."""
    algorithm: AbstractAlgorithm = eqx.combine(arrays, static.tree)
    root = jr.wrap_key_data(carry.key)
    data_key, step_key, bits_key = (jr.fold_in(root, i) for i in (1, 2, 3))
    first = carry.step
    resident = plan.batch_size is not None and not plan.streamed
    n_data, batch_size = length(data) if resident else 0, plan.batch_size or 0
    per_epoch = steps_per_epoch(n_data, batch_size) if resident else 1
    shuffled = lambda step: permutation(data_key, step // per_epoch, n_data, batch_size)
    if resident:
        order = jax.lax.cond(known & (first % per_epoch > 0), lambda: order, lambda: shuffled(first))

    def batch_of(step, order):
        fresh = lambda rows: drawn(jr.fold_in(bits_key, step), rows)
        if plan.batch_size is None:
            return Batch(fresh(data), None), order
        if not resident:  # streamed: (rows, weights) of this very chunk
            rows, weight = jax.tree.map(lambda a: a[step - first], data)
            return Batch(rows, weight), order
        position = step % per_epoch
        order = jax.lax.cond((position == 0) & (step > first), lambda: shuffled(step), lambda: order)
        batch = batch_at(data, order, position, n_data, batch_size)
        return Batch(fresh(batch.rows), batch.weight), order

    noise_of = lambda step, batch: algorithm.noise(jr.fold_in(step_key, step), batch)
    ahead = ()
    if plan.ahead:  # the noise of this chunk's steps, a block of steps a call
        spec = jax.eval_shape(lambda: batch_of(first, order)[0])
        size = min(BLOCK, plan.capacity)
        draw = jax.vmap(lambda step: noise_of(step, spec))
        one = jax.eval_shape(lambda: draw(jnp.arange(size)))
        n_blocks = -(-plan.capacity // size)
        empty = jax.tree.map(lambda a: jnp.zeros((n_blocks * size, *a.shape[1:]), a.dtype), one)
        put = lambda buffer, block, at: jax.lax.dynamic_update_slice_in_dim(buffer, block, at, 0)
        fill = lambda b, ahead: jax.tree.map(
            lambda a, new: put(a, new, b * size), ahead, draw(first + b * size + jnp.arange(size))
        )
        ahead = jax.lax.fori_loop(0, (end - first + size - 1) // size, fill, empty)

    def step(i, c):
        carry, order, values = c
        batch, order = batch_of(i, order)
        noise = jax.tree.map(lambda a: a[i - first], ahead) if plan.ahead else noise_of(i, batch)
        state, value = algorithm.step(noise, carry.state, batch, carry.monitor.scale)
        m = carry.monitor
        if careful:  # passes over the whole state: only after a failure
            ok = _finite((state, value))
            m, back = mon.failed(m, ok)
            state = _where(ok, state, carry.state)
            if not plan.donate:
                state = _where(back, carry.safe, state)
            m = jax.tree.map(lambda a, b: jnp.where(ok, a, b), mon.observe(m, value), m)
        else:
            m = mon.observe(m, value)
        average, n_averaged = carry.average, carry.n_averaged
        if plan.average:
            n_averaged = n_averaged + 1
            rate = 1 / n_averaged.astype(default_float())
            new = algorithm.parameters(state)
            average = jax.tree.map(lambda a, p: a + (rate * (p - a)).astype(a.dtype), average, new)
        carry = carry._replace(state=state, monitor=m, step=i + 1, average=average, n_averaged=n_averaged)
        return carry, order, values.at[i - first].set(value.astype(values.dtype))

    def window_end(carry: Carry) -> Carry:
        m, better, fell, restart = mon.decide(carry.monitor, plan.decay, plan.stop)
        if not plan.donate:
            state = _where(fell, carry.safe, carry.state)
            carry = carry._replace(state=state, safe=_where(better, carry.state, carry.safe))
        return carry._replace(monitor=m, n_averaged=jnp.where(restart, 0, carry.n_averaged))

    def one_window(c):
        carry, order, values = c
        stop = jnp.minimum(end, (carry.step // window + 1) * window)
        carry, order, values = jax.lax.fori_loop(carry.step, stop, step, (carry, order, values))
        carry = jax.lax.cond((carry.step % window == 0) & (carry.monitor.count > 1), window_end, lambda c: c, carry)
        return carry, order, values

    running = lambda c: (c[0].step < end) & (c[0].monitor.status == Status.RUNNING)
    start = (carry, order, jnp.full(plan.capacity, jnp.nan, default_float()))
    carry, order, values = jax.lax.while_loop(running, one_window, start)
    n = carry.step - first
    fine = _finite((carry.state, jnp.where(jnp.arange(plan.capacity) < n, values, 0.0)))
    return carry, (values, carry.step, carry.monitor, fine), order


# kept: the old carry stays for a replay; donated: half the memory, no replay. {algorithm.thorough: program}
_KEPT = {t: Compiled(_chunk, thorough=t, static=(0, 1, 2)) for t in (False, True)}
_DONATED = {t: Compiled(_chunk, thorough=t, static=(0, 1, 2), donate=(4,)) for t in (False, True)}


class Runner:
    """An algorithm made ready: its arrays as arguments, its static half hashed once."""

    def __init__(
        self, algorithm: AbstractAlgorithm, data: PyTree, first: Batch, plan: Plan, stream: Stream | None = None
    ):
        arrays, static = eqx.partition(algorithm, eqx.is_array)
        self.arrays, self.static = strong(arrays), Static(static)
        self.algorithm, self.data, self.first, self.plan, self.stream = algorithm, data, first, plan, stream
        self.seconds = 0.0  # a step, in the last chunk
        self._order, self._order_at = (), None
        if plan.batch_size is not None and stream is None:
            padded = steps_per_epoch(length(data), plan.batch_size) * plan.batch_size
            self._order = np.zeros(padded, np.int32)

    def init(self, seed: int, scale: float = 1.0, best: float = -np.inf) -> Carry:
        numbers = np.asarray(scale, default_float()), np.asarray(best, default_float())
        return _init(self.static, self.plan, self.arrays, jr.key_data(root_key(seed)), self.first, *numbers)

    def digest(self) -> str | None:
        """Of the traced steps and what they read, where they run code of a user's own; None where they do not."""
        carry = self.init(0)
        data = self.data if self.stream is None else self.stream.get(0)
        numbers = np.int32(0), np.int32(1)
        args = (
            self.static,
            self.plan,
            self.plan.donate,
            self.arrays,
            carry,
            *numbers,
            data,
            self._order,
            np.bool_(False),
        )
        return _KEPT[self.algorithm.thorough].digest(*args)

    def advance(self, carry: Carry, end: int, window: int) -> tuple[Carry, Any]:
        """One chunk, to step `end` at most; replayed carefully if something was not finite. (carry, host numbers)."""
        data = self.data if self.stream is None else self.stream.get(int(carry.step))
        kept, donated = _KEPT[self.algorithm.thorough], _DONATED[self.algorithm.thorough]
        run = donated if self.plan.donate else kept
        known = np.bool_(int(carry.step) == self._order_at)
        args = np.int32(end), np.int32(window), data, self._order, known
        new, seen, order = run(self.static, self.plan, self.plan.donate, self.arrays, carry, *args)
        seen = jax.device_get(seen)  # the one synchronisation
        if not seen[3] and not self.plan.donate:
            new, seen, order = kept(self.static, self.plan, True, self.arrays, carry, *args)
            seen = jax.device_get(seen)
        self._order, self._order_at = order, int(seen[1])
        return new, seen

    def run(
        self,
        carry: Carry,
        n_steps: int,
        window: int,
        on_chunk: Callable[[int, np.ndarray, Carry], bool | str] = lambda step, values, carry: False,
        room: Callable[[float], float] | None = None,
    ) -> Outcome:
        """Until `n_steps`, or the monitor says stop, or `on_chunk` asks to (its answer says why: "budget"; True is
        "interrupted"), or Ctrl-C (which finishes the chunk and returns what there is).

        room: how many steps of so many seconds a budget still pays for: no chunk is longer.
        """
        if self.plan.donate:
            carry = jax.tree.map(jnp.array, carry)  # donation must not eat the caller's copy
        began, values, why = time.perf_counter(), [], "budget"
        step, pace = int(carry.step), _PACE.get((self.static, self.plan), lambda: 1) if room is None else 1
        with _interruptible() as asked:
            while step < n_steps:
                t = time.perf_counter()
                carry, (v, new_step, monitor, _) = self.advance(carry, min(step + pace, n_steps), window)
                n = int(new_step) - step
                step = int(new_step)
                # a first chunk may have compiled: its time says nothing
                self.seconds = (time.perf_counter() - t) / max(n, 1)
                wanted = CHUNK_SECONDS / self.seconds if values else max(pace, GROWTH if room is None else 1)
                pace = int(np.clip(wanted, 1, min(self.plan.capacity, GROWTH * pace)))
                _PACE.put((self.static, self.plan), pace)
                if room is not None:
                    pace = int(np.clip(room(self.seconds if values else 0.0), 1, pace))
                values.append(v[:n])
                if monitor.status != Status.RUNNING:
                    why = Status(int(monitor.status)).name.lower()
                    on_chunk(step, v[:n], carry)
                    break
                said = on_chunk(step, v[:n], carry)
                if said or asked:
                    why = said if isinstance(said, str) and not asked else "interrupted"
                    break
        history = np.concatenate(values) if values else np.zeros(0)
        return Outcome(carry, history, why, time.perf_counter() - began)


class _interruptible:
    """Ctrl-C sets a flag instead of raising. Only the main thread may install a handler."""

    def __enter__(self) -> list:
        self.asked: list = []
        try:
            self.old = signal.signal(signal.SIGINT, lambda *_: self.asked.append(1))
        except ValueError:
            self.old = None
        return self.asked

    def __exit__(self, *exc) -> None:
        if self.old is not None:
            signal.signal(signal.SIGINT, self.old)
