"""What the loop watches, inside the compiled code: window means of the value, and what follows from them.

Steps are grouped in windows of W. At a window's end its mean is compared with that of
the last one that made progress. Decisions are a function
of steps alone, never of wall time, so that chunk borders, a resume or a slow machine change nothing.
"""

import enum
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, PyTree

DECAY = 0.3  # step-size factor when progress stalls
SHRINK = 0.25  # step-size factor when steps fail
MAX_DECAYS = 4
MAX_SHRINKS = 8
PATIENCE = 3  # windows without progress before the step size falls
BAD_RUN = 10  # failed steps in a row before rolling back


class Status(enum.IntEnum):
    RUNNING = 0
    CONVERGED = 1
    DIVERGED = 2


class Monitor(NamedTuple):
    """Scalars; a row of this window's running mean and sum of squares, the previous window's, and counters."""

    count: Array
    mean: Array
    m2: Array
    previous: Array  # mean of the last window that made progress: slow rises add up until they show
    previous_se2: Array
    best: Array  # best window mean so far: `safe` is the state at its end
    stalls: Array  # windows in a row without progress
    decays: Array
    shrinks: Array
    bad_run: Array  # failed steps in a row
    skipped: Array  # failed steps in all
    scale: Array  # step-size multiplier
    status: Array


def start(dtype, scale, best) -> Monitor:
    """`best`: a value known to be within reach (a trial's): a first window far below it counts as a fall."""
    zero, none = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    low = jnp.full((), -jnp.inf, dtype)
    best = jnp.asarray(best, dtype)
    return Monitor(zero, zero, zero, low, zero, best, none, none, none, none, none, jnp.asarray(scale, dtype), none)


def observe(m: Monitor, value: Array) -> Monitor:
    """Welford's update with one step's value."""
    count = m.count + 1
    delta = value - m.mean
    mean = m.mean + delta / count
    return m._replace(count=count, mean=mean, m2=m.m2 + delta * (value - mean))


def decide(m: Monitor, decay: bool, stop: bool) -> tuple[Monitor, Array, Array, Array]:
    """At a window's end: (new monitor, keep this state as the safe one?, go back to the safe one?, restart averaging?)."""
    se2 = m.m2 / jnp.maximum(m.count * (m.count - 1), 1)
    first = jnp.isneginf(m.previous)
    noise = jnp.sqrt(se2 + m.previous_se2)
    progress = first | (m.mean - m.previous > noise)
    better = m.mean >= m.best
    # far below the best window: the step size is too large for where we are
    fell = decay & (m.best - m.mean > 20 * noise + 1.0)
    stalls = jnp.where(progress | fell, 0, m.stalls + 1)
    lower = decay & (stalls >= PATIENCE)
    done = stop & lower & (m.decays >= MAX_DECAYS)
    shrinks = m.shrinks + fell
    scale = m.scale * jnp.where(lower & ~done, DECAY, 1.0) * jnp.where(fell, SHRINK, 1.0)
    status = jnp.where(done, Status.CONVERGED, jnp.where(shrinks > MAX_SHRINKS, Status.DIVERGED, m.status))
    # after a fall the next window is a first one: the safe state may itself be worse than the window it ended
    low = jnp.full_like(m.mean, -jnp.inf)
    zero, renew = jnp.zeros_like(m.mean), progress | lower
    new = m._replace(
        count=zero, mean=zero, m2=zero,
        previous=jnp.where(fell, low, jnp.where(renew, m.mean, m.previous)),
        previous_se2=jnp.where(renew, se2, m.previous_se2), best=jnp.where(fell, low, jnp.maximum(m.best, m.mean)),
        stalls=jnp.where(lower, 0, stalls), decays=m.decays + lower, shrinks=shrinks, scale=scale,
        status=status.astype(jnp.int32),
    )  # fmt: skip
    return new, better, fell, (progress | fell | lower) & ~done


def failed(m: Monitor, ok: Array) -> tuple[Monitor, Array]:
    """After a step: counts a failed one; (new monitor, roll back?) when too many failed in a row."""
    bad_run = jnp.where(ok, 0, m.bad_run + 1)
    back = bad_run >= BAD_RUN
    shrinks = m.shrinks + back
    status = jnp.where(shrinks > MAX_SHRINKS, Status.DIVERGED, m.status).astype(jnp.int32)
    scale = jnp.where(back, SHRINK, 1.0).astype(m.scale.dtype) * m.scale
    bad_run = jnp.where(back, 0, bad_run)
    return m._replace(bad_run=bad_run, shrinks=shrinks, skipped=m.skipped + ~ok, scale=scale, status=status), back


def summary(m: PyTree) -> dict[str, float]:
    """Host numbers for messages."""
    return {k: float(v) for k, v in m._asdict().items()}
