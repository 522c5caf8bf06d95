"""The bench: arms (an estimator with a plan) are made, walked along a fit, trained, and run in turn."""

import functools
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PyTree

from ..batch import Batch
from ..compiled import key_for
from ..errors import ModelError, explain
from ..fit.driver import STEP_SIZES
from ..fit.minibatch import n_rows
from ..gradients.base import Parts, draw_noise
from .count import evaluations
from .probe import OWN_RATE, Rates, Runner, State, Sums, forget, sums
from .subject import Candidate, Refused, Subject, _first_line

LONGEST = 8192  # steps in a block: single precision sums no more
LEAST_BLOCK = 0.004  # seconds: what is shorter cannot be timed
MAX_EVALUATIONS = 2**18  # a step: above, an enumeration would not fit in memory
TRIAL, TRAIN, BLOCKS = 40, 400, 16  # steps with each step size; of an estimator's own training; blocks at each point


class Arm(NamedTuple):
    """One row of the table to be: an estimator with a plan."""

    runner: Runner
    plan: str
    evaluations: int

    @property
    def candidate(self) -> Candidate:
        return self.runner.candidate

    @property
    def label(self) -> str:
        return f"{self.candidate.name}, {self.plan}"


class Timed(NamedTuple):
    """What a run of one arm at one point gave."""

    state: State
    sums: Sums
    seconds: float  # a step, the median of blocks


def fixed_batch(subject: Subject) -> Batch:
    """The rows on which everything is measured: random ones, counting for all."""
    if not subject.minibatched:
        return Batch(subject.rows, None)
    n, size = n_rows(subject.rows), int(subject.batch_size or 1)
    index = np.sort(np.random.default_rng([subject.seed, 17]).choice(n, size, replace=False))
    return Batch(jax.tree.map(lambda a: a[index], subject.rows), jnp.asarray(subject.first.weight))


def arms_of(
    subject: Subject, candidates: Iterable[Candidate], fixed: Batch, run: bool = True
) -> tuple[list[Arm], list[Refused]]:
    """Each candidate traced, compiled and run for one step (if `run`); one that fails is refused with its error."""
    arms, refused = [], []
    for c in candidates:
        try:
            arms += _one(subject, c, fixed, run)
        except Exception as error:  # an estimator may be anybody's
            refused.append(Refused(c.name, "any", f"it raised {type(error).__name__}: {_first_line(error)}"))
    return arms, refused


def _one(subject: Subject, c: Candidate, fixed: Batch, run: bool) -> list[Arm]:
    parts = Parts(subject.model, subject.family, c.estimator)
    plan = next(iter(c.plans.values()))
    n = evaluations(parts, subject.objective, plan, fixed, c.n_samples)
    if n > MAX_EVALUATIONS:
        asked = f"`{c.name}` on {type(subject.model).__name__}"
        because, instead = "they are held in memory at once", "an estimator that draws, or fewer rows a step"
        raise ModelError(explain(asked, f"it takes {n:,} evaluations a step", because, instead))
    spec = jax.eval_shape(lambda: draw_noise(jr.key(0), parts, plan, fixed, c.n_samples))
    if sum(a.size for a in jax.tree.leaves(spec)) == 0:  # nothing is drawn: one plan is as good as another
        c = c._replace(plans={next(iter(c.plans)): plan})
    runner = Runner(subject, c)
    if run:
        runner.advance(runner.start(fixed), fixed, key_for(subject.seed, "first"), next(iter(c.plans)), 1)
    return [Arm(runner, p, n) for p in c.plans]


# ---- along a fit ----------------------------------------------------------------------------------------------------
def walk(subject: Subject, runner: Runner, fixed: Batch, steps: list[int]) -> dict[int, PyTree]:
    """{step: (model, family) parameters} of a short fit, with the best of the usual step sizes."""
    plan, key = runner.plans[0], key_for(subject.seed, "walk")

    def run(state: State, n: int, scale: float) -> State:
        return runner.advance(state, fixed, key, plan, n, Rates(scale, scale, subject.minibatched))

    def score(scale: float) -> float:
        half = forget(run(runner.start(fixed), TRIAL // 2, scale))
        value = subject.objective.sense * sums(run(half, TRIAL // 2, scale)).value
        return value if np.isfinite(value) else -np.inf

    scores = [score(scale) for scale in STEP_SIZES]
    best = STEP_SIZES[int(np.argmax(scores))]
    out, at, state = {}, 0, runner.start(fixed)
    for step in sorted(set(steps)):
        ahead = run(state, step - at, best)
        params = ahead.params.model, ahead.params.family
        if not all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(params)):
            asked = f"the short fit along which gradients are measured, to step {step}"
            because, instead = "there is no point to measure at", 'at=("start",), or another family'
            raise ModelError(explain(asked, "its parameters are not finite", because, instead))
        out[step], state, at = params, ahead, step
    return out


def same_estimator(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(eqx.tree_equal(a, b))


# ---- at a point -----------------------------------------------------------------------------------------------------
def measure(
    subject: Subject, arms: list[Arm], fixed: Batch, at: PyTree, name: str, n_repeats: int, seconds: float
) -> list[Timed]:
    """Every arm in turn, block by block, so that a disturbance of the machine hits them alike."""
    share = seconds / max(len(arms), 1)
    running = [_Run.begin(subject, arm, fixed, at, name, share) for arm in arms]
    most = lambda run: max(-(-n_repeats // BLOCKS), LEAST_BLOCK / run.fastest)
    for _ in range(BLOCKS):
        for run in running:
            run.block(int(np.clip(share / BLOCKS / run.fastest, 2, min(most(run), LONGEST))))
    return [Timed(run.state, functools.reduce(Sums.plus, run.blocks), float(np.median(run.spent))) for run in running]


class _Run:
    """An arm at work at one point."""

    def __init__(self, arm: Arm, fixed: Batch, key: Array, state: State):
        self.arm, self.fixed, self.key, self.state = arm, fixed, key, state
        self.spent: list[float] = []
        self.blocks: list[Sums] = []
        self.call = min(self._timed(0) for _ in range(3))  # what a call costs without any step
        self.fastest = max(self._timed(20) - self.call, 1e-6) / 20

    @classmethod
    def begin(cls, subject: Subject, arm: Arm, fixed: Batch, at: PyTree, name: str, share: float) -> "_Run":
        """What the estimator has of its own settles first, where it has anything."""
        run = cls(arm, fixed, key_for(subject.seed, f"{name} {arm.label}"), arm.runner.start(fixed, at))
        if jax.tree.leaves((run.state.carry, run.state.params.estimator)):
            run._timed(int(np.clip(share / run.fastest, 20, TRAIN)), Rates(0.0, OWN_RATE, subject.minibatched))
        run.state = forget(run.state)
        return run

    def block(self, n: int) -> None:
        self.call = min(self.call, self._timed(0))
        self.spent.append(max(self._timed(n) - self.call, 1e-9) / n)
        self.blocks.append(sums(self.state))
        self.state = forget(self.state)
        self.fastest = min(self.fastest, self.spent[-1])

    def _timed(self, n: int, rates: Rates = Rates()) -> float:  # noqa: B008
        began = time.perf_counter()
        self.state = self.arm.runner.advance(self.state, self.fixed, self.key, self.arm.plan, n, rates)
        return time.perf_counter() - began


def minibatch_variance(subject: Subject, arm: Arm, fixed: Batch, timed: Timed, seconds: float) -> float:
    """What the choice of rows adds to the variance of any unbiased estimator: that over batches, less that on one."""
    if not subject.minibatched:
        return 0.0
    n = int(np.clip(seconds / max(timed.seconds, 1e-6), 16, 2000))
    key = key_for(subject.seed, f"rows {arm.label}")
    state = arm.runner.advance(forget(timed.state), fixed, key, arm.plan, n, Rates(0.0, 0.0, True))
    return max(sums(state).variance - timed.sums.variance, 0.0)
