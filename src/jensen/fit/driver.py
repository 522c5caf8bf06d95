"""One fit of one composition: start, step size, loop, checkpoints; then draws, verdict, result."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ..algorithms.budget import Budget
from ..algorithms.descent import AbstractDescent
from ..algorithms.restarts import Restarts
from ..arrays import in_double
from ..batch import Batch
from ..compiled import key_for
from ..diagnostics.activity import activity
from ..diagnostics.verdict import FEW_DRAWS, diagnose_rows, noted, too_few
from ..errors import ModelError, OptionError
from ..facts import Fact
from ..function import description
from ..judge import Composition
from ..models.base import AbstractModel
from ..models.black_box import BlackBox
from ..tree import length, split_trainable
from .attempt import Attempt
from .checkpoint import Clock, check_writable, load_carry, or_warned, save_carry
from .evaluate import draws_global, draws_rows, draws_streamed, draws_within
from .loop import Carry, Outcome, Plan, Runner
from .measured import constrained_draws, diagnosis_by_draws, global_diagnosis, reported_by
from .minibatch import MappedArray, Stream, n_rows, steps_per_epoch
from .monitor import PATIENCE
from .nowhere import never_finite, too_large
from .progress import progress_bar
from .result import Fit

STEP_SIZES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
STREAM_BYTES = 32 * 2**20
AHEAD_SCALARS = 2**18  # noise drawn for a chunk in one call, at most: only where a step needs little of it
VERDICT, TRIALS = 0.2, 0.4  # of the budget: kept for the verdict; for the step-size trial, at most
STEPPING = 0.5  # of what is left: one chunk, at most
NOISE = 4.0  # sd of the objective below its start, from which it has fallen
EVALUATED_ROWS, DRAWS_A_ROW = 100, 200


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything about a fit that is not its composition."""

    rows: Any
    data: Any  # the rows as the loop has them
    batch_size: int | None
    first: Batch
    seed: int
    n_steps: int
    early_stop: bool
    average: bool
    donate: bool
    n_restarts: int
    progress: bool | None
    checkpoint: Path | None
    checkpoint_seconds: float
    n_draws: int
    on_chunk: Callable | None
    tuned: bool
    asked_step: float | None
    limit: Budget

    def spend(self, steps: int) -> str:
        """A step counts as one evaluation. "budget" where nothing is left but what the verdict needs."""
        self.limit.spend(steps)
        return "budget" if self.limit.spent else ""

    @property
    def room(self) -> Callable[[float], float] | None:
        """How many steps of so many seconds the budget pays for."""
        return (lambda seconds: self.limit.room(seconds, STEPPING)) if self.limit.finite else None

    @property
    def window(self) -> int:
        """Steps between two decisions: an epoch where that is possible."""
        epoch = 1 if self.batch_size is None else steps_per_epoch(n_rows(self.rows), self.batch_size)
        return int(np.clip(max(self.n_steps // 50, min(epoch, self.n_steps // 10)), 100, 1000))


def _runner(algorithm: Any, job: Job) -> Runner:
    algorithm = Restarts(algorithm, job.n_restarts) if job.n_restarts > 1 else algorithm
    stream, capacity = None, Plan().capacity
    if isinstance(job.rows, MappedArray):
        row_bytes = max(1, int(np.prod(job.rows.shape[1:])) * job.rows.dtype.itemsize)
        capacity = int(np.clip(STREAM_BYTES // (row_bytes * (job.batch_size or 1)), 1, 1024))
        stream = Stream(job.rows, job.batch_size or 1, job.seed, capacity)
    noise = jax.eval_shape(lambda: algorithm.noise(jr.key(0), job.first))
    scalars = sum(a.size for a in jax.tree.leaves(noise))
    keys = any(jnp.issubdtype(a.dtype, jax.dtypes.prng_key) for a in jax.tree.leaves(noise))
    ahead = scalars <= AHEAD_SCALARS // 1024 and not keys
    if ahead:
        capacity = min(capacity, AHEAD_SCALARS // max(scalars, 1))
    plan = Plan(
        batch_size=job.batch_size, decay=job.tuned, stop=job.early_stop and job.tuned, average=job.average,
        streamed=stream is not None, donate=job.donate, capacity=capacity, ahead=ahead,
    )  # fmt: skip
    return Runner(algorithm, job.data if stream is None else None, job.first, plan, stream)


class _BadStart(Exception):
    """The first step from the starting values failed."""


def _check_start(values: np.ndarray, carry: Carry) -> None:
    """Raises `_BadStart` if the first step of a run was not finite."""
    if len(values) and (not np.isfinite(values[0]) or int(carry.monitor.skipped) >= len(values)):
        raise _BadStart


def _alive(runner: Runner, carry: Carry) -> bool:
    """Does one step from here succeed?"""
    if runner.plan.donate:
        carry = jax.tree.map(jnp.array, carry)
    after, seen = runner.advance(carry, int(carry.step) + 1, 10**9)
    return bool(seen[3]) and int(after.monitor.skipped) == 0


def _shifted_start(algorithm: AbstractDescent, job: Job, composition: Composition) -> AbstractDescent:
    """The algorithm with starting values shifted at random until a step succeeds.

    Raises: ModelError if none of 60 starts has a finite log density and gradient.
    """
    family = algorithm.parts.family
    still = _runner(algorithm, job)
    if not job.tuned and _alive(still, still.init(job.seed, 0.0)):
        raise OptionError(too_large(job.asked_step))
    params, rest = split_trainable(family)
    leaves, treedef = jax.tree.flatten(params)
    for i in range(60):
        keys = jr.split(key_for(job.seed, f"start {i}"), len(leaves))
        spread = (0.5, 1.0, 2.0)[i % 3]
        moved = [a + spread * jr.normal(k, a.shape, a.dtype) for a, k in zip(leaves, keys, strict=True)]
        shifted = eqx.combine(jax.tree.unflatten(treedef, moved), rest)
        candidate = eqx.tree_at(lambda a: a.parts.family, algorithm, shifted)
        runner = _runner(candidate, job)
        if _alive(runner, runner.init(job.seed)):
            return candidate
        if job.limit.spent:
            break
    raise ModelError(never_finite(composition.model, job.first, job.seed))


def _best_step_size(runner: Runner, job: Job) -> tuple[float, float, Outcome | None]:
    """The step size with the highest objective after a short trial from the same start, and that objective.

    Interrupted, the trial under way is the third value: all there is.
    """
    n = int(np.clip(job.n_steps // 25, 20, 200))
    scores = []
    least = (1 - TRIALS) * job.limit.share_left
    enough = lambda: job.limit.finite and job.limit.share_left < least
    for scale in STEP_SIZES:
        carry = runner.init(job.seed, scale)
        seen = lambda step, values, carry: job.spend(len(values)) or ("budget" if enough() else "")
        out = runner.run(carry, n, 10**9, seen, job.room)
        if scale == STEP_SIZES[0]:
            _check_start(out.values, out.carry)
        tail = out.values[len(out.values) // 2 :]
        healthy = out.why == "budget" and int(out.carry.monitor.skipped) == 0 and len(tail) and np.isfinite(tail).all()
        scores.append(float(np.mean(tail)) if healthy else -np.inf)
        if out.why == "interrupted":
            return scale, -np.inf, out
        if enough():
            break
    best = int(np.argmax(scores))
    return STEP_SIZES[best], scores[best], None


def _fingerprint(runner: Runner, job: Job) -> str:
    """What must agree for a checkpoint to be resumed: the plan, the model with its code, the parts, the data."""
    digest, algorithm = hashlib.sha256(), runner.algorithm
    algorithm = algorithm.inner if isinstance(algorithm, Restarts) else algorithm
    digest.update(repr((runner.plan, job.seed, job.n_steps, job.n_restarts)).encode())
    digest.update(repr((description(runner.algorithm), runner.digest(), _called_back(algorithm))).encode())
    data = (
        runner.data if runner.stream is None else (np.asarray(job.rows.shape), _some_rows(job))
    )  # a file: a part of it
    arrays = eqx.filter(algorithm, eqx.is_array)
    if isinstance(algorithm.parts.model, BlackBox):  # the number it is called by is of this process
        arrays = eqx.tree_at(lambda a: a.parts.model.number, arrays, None)
    for leaf in jax.tree.leaves((arrays, data)):
        a = np.asarray(leaf)
        digest.update(repr((a.shape, str(a.dtype))).encode())
        digest.update(np.ascontiguousarray(a).data)
    return digest.hexdigest()[:24]


def _called_back(algorithm: AbstractDescent) -> list[str]:
    """What a function that is called back says at two points: no trace shows what it reads."""
    model = algorithm.parts.model
    return [f"{v:.9g}" for v in model.fixed_points()] if isinstance(model, BlackBox) else []


def drive(algorithm: AbstractDescent, composition: Composition, job: Job) -> Fit:
    """Start, step size, loop, verdict; from other starting values if the given ones do not work."""
    try:
        return _drive(algorithm, composition, job)
    except _BadStart:
        return _drive(_shifted_start(algorithm, job, composition), composition, job)


def _drive(algorithm: AbstractDescent, composition: Composition, job: Job) -> Fit:
    label = type(composition.family).__name__
    path = None if job.checkpoint is None else job.checkpoint / f"{label}.ckpt"
    runner = _runner(algorithm, job)
    fingerprint, history, step_size = "", np.zeros(0), None
    carry = None
    if path is not None:
        fingerprint = _fingerprint(runner, job)
        if path.exists():
            carry, history, header = load_carry(path, runner.init(job.seed), fingerprint)
            step_size = header.get("step_size")
        else:
            with or_warned(path):
                check_writable(path)
    if carry is None:
        reached = -np.inf
        if job.tuned:
            with job.limit.keeping(VERDICT):
                step_size, reached, cut_short = _best_step_size(runner, job)
            if cut_short is not None:
                return _result(algorithm, composition, job, runner, cut_short, cut_short.values, step_size)
        carry = runner.init(job.seed, step_size or 1.0, reached)
    clock, seen = Clock(job.checkpoint_seconds), [history]

    def save(carry: Carry) -> None:
        if path is not None:
            extra = {"step_size": step_size, "step": int(carry.step)}
            with or_warned(path):
                save_carry(path, carry, fingerprint, np.concatenate(seen), extra)

    with progress_bar(job.progress, job.n_steps, label) as bar:

        def on_chunk(step: int, values: np.ndarray, carry: Carry) -> bool | str:
            if step == len(values):
                _check_start(values, carry)
            seen.append(values)
            bar.update(step, composition.objective.sense * float(values[-1]) if len(values) else float("nan"))
            if clock.due():
                save(carry)
            spent = job.spend(len(values))
            return bool(job.on_chunk is not None and job.on_chunk(step, values)) or spent

        with job.limit.keeping(VERDICT):
            outcome = runner.run(carry, job.n_steps, job.window, on_chunk, job.room)
    save(outcome.carry)
    return _result(algorithm, composition, job, runner, outcome, np.concatenate(seen), step_size)


def _final_parameters(runner: Runner, job: Job, outcome: Outcome) -> Any:
    """The averaged iterates if there are enough of them, else the last ones; the safe ones if it diverged."""
    carry = outcome.carry
    if outcome.why == "diverged" and not job.donate:
        return runner.algorithm.parameters(carry.safe)
    if job.average and int(carry.n_averaged) >= job.window:
        return carry.average
    return runner.algorithm.parameters(carry.state)


def _final_carry(runner: Runner, job: Job, outcome: Outcome) -> Any:
    """What the algorithm remembered at the end, of the lane that is kept."""
    state = outcome.carry.safe if outcome.why == "diverged" and not job.donate else outcome.carry.state
    lanes: Any = runner.algorithm
    return lanes.best(state, state[0][2]) if job.n_restarts > 1 else state[2]


def _why(job: Job, outcome: Outcome) -> str:
    """`budget` splits: with a fixed step size, no progress over the last windows is `stalled`."""
    if outcome.why == "budget" and int(outcome.carry.step) < job.n_steps:  # ended by the budget, not by its steps
        return "budget"
    stalled = outcome.why == "budget" and int(outcome.carry.monitor.stalls) >= PATIENCE and not job.tuned
    settled = outcome.why == "budget" and job.tuned and int(outcome.carry.monitor.decays) >= 2
    return "stalled" if stalled else "converged" if settled else outcome.why


def _result(algorithm, composition, job, runner, outcome, history, step_size) -> Fit:
    params = _final_parameters(runner, job, outcome)
    if job.n_restarts > 1:
        params = runner.algorithm.best(outcome.carry.state, params)
    carry = _final_carry(runner, job, outcome)
    parts = algorithm.fitted(params, carry)
    why, skipped, n_steps = _why(job, outcome), int(outcome.carry.monitor.skipped), int(outcome.carry.step)
    common: dict[str, Any] = {"why": why, "skipped": skipped, "n_steps": n_steps}
    marginals = None
    rows, complete = (_some_rows(job) if parts.model.plated else job.rows), True
    n = _paid_for(job, runner, composition, DRAWS_A_ROW if parts.model.plated else job.n_draws, rows)
    if parts.model.plated:
        z, log_p, log_q = draws_rows(parts.model, parts.family, rows, n, job.seed)
    elif isinstance(rows, MappedArray):
        z, log_p, log_q, complete = draws_streamed(parts.model, parts.family, rows, job.seed)
    else:
        of = parts.model, parts.family, Batch(rows, None)
        dear = n < job.n_draws
        spent = lambda: job.limit.overdrawn
        z, log_p, log_q = draws_within(*of, n, job.seed, spent) if dear else draws_global(*of, n, job.seed)
        n = len(log_p)
    if Fact.LOG_RATIO not in parts.family.facts:
        value = composition.objective.sense * float(np.mean(history[-job.window :])) if len(history) else np.nan
        more = {"complete": complete, "value": value, "seed": job.seed}
        diagnosis = diagnosis_by_draws(parts.model, rows, z, log_p, common | more)
    elif parts.model.plated:
        layers = activity(z, getattr(parts.model, "site_kinds", {}))
        learned = bool(jax.tree.leaves(split_trainable(parts.model)[0]))
        diagnosis = diagnose_rows(log_p - log_q, n_rows(job.rows), layers=layers, learned=learned, **common)
    else:
        more = functools.partial(constrained_draws, parts, rows, job.seed)
        marginals = reported_by(parts.model, z, log_p, log_q, more)
        diagnosis = global_diagnosis(z, log_p, log_q, marginals, common | {"complete": complete})
    enough = min(FEW_DRAWS, DRAWS_A_ROW) if parts.model.plated else FEW_DRAWS
    also = {
        "few_draws": too_few(n, enough), "model_parameters": _also_fitted(parts.model),
        "estimator": algorithm.findings(carry), "step_size": _step_size_at_fault(job, outcome, history),
    }  # fmt: skip
    for code, notes in also.items():
        diagnosis = noted(diagnosis, code, notes)
    family = type(composition.family).__name__
    seconds = outcome.seconds
    return Fit(
        family=parts.family,
        model=parts.model,
        rows=job.rows,
        diagnosis=diagnosis,
        history=composition.objective.sense * history,
        why=why,
        seconds=seconds,
        step_size=step_size,
        seed=job.seed,
        draws=z,
        log_p=log_p,
        log_q=log_q,
        double=in_double(),
        options=_options(composition, job),
        n_skipped=skipped,
        trail=[Attempt(family, str(diagnosis.verdict), diagnosis.khat, diagnosis.elbo, seconds, why)],
        marginals=None if marginals is None else marginals[0],
    )


def _also_fitted(model: AbstractModel) -> list[tuple[int, str]]:
    """Of a model whose latents all rows share: which of its own arrays were fitted, so that data are not by mistake."""
    trained = [] if model.plated else jax.tree_util.tree_flatten_with_path(split_trainable(model)[0])[0]
    if not trained:
        return []
    named = ", ".join(f"`{jax.tree_util.keystr(path).lstrip('.')}` ({leaf.size:,})" for path, leaf in trained[:3])
    more = f" and {len(trained) - 3} more arrays" if len(trained) > 3 else ""
    what = "Point estimates, fitted along with q, are numbers of the model's own"
    return [(0, f"{what}: {named}{more}. What is data is held as `Frozen`.")]


def _step_size_at_fault(job: Job, outcome: Outcome, history: np.ndarray) -> list[tuple[int, str]]:
    """For `noted`, where the user chose the step size: steps that led to where nothing is finite, or downhill."""
    if job.tuned or not len(history):
        return []
    last = history[-min(job.window, len(history)) :]
    last = last[np.isfinite(last)]
    shrinks, diverged = int(outcome.carry.monitor.shrinks), outcome.why == "diverged"
    fell = not last.size or last.mean() < history[0] - NOISE * last.std() - 1.0
    if not (shrinks or diverged or fell):
        return []
    what = f"The step size {job.asked_step:g} is" if job.asked_step is not None else "The optimiser's steps are"
    how = f"{shrinks} times its steps led to where numbers are not finite" if shrinks else "the objective fell"
    return [(2 if diverged or fell else 1, f"{what} too large: {how}. Give a smaller one, or optimizer=None.")]


def _paid_for(job: Job, runner: Runner, composition: Composition, n: int, rows: Any) -> int:
    """Draws for the verdict (for each row, where each has a latent): n, or as many as the budget pays for, at the price
    of the last steps. Two at least: a verdict is made from something."""
    if not job.limit.finite or not np.isfinite(job.limit.seconds):
        return n
    at_once, judged = (job.first, n_rows(rows)) if composition.model.plated else (None, 1)
    cells = composition.n_samples * job.n_restarts * (1 if at_once is None else length(at_once.rows))
    return int(min(n, max(job.limit.room(runner.seconds / cells * judged), 2)))


def _some_rows(job: Job) -> Any:
    """Up to 100 rows, spread over the data, on which the verdict is made."""
    n = n_rows(job.rows)
    index = np.unique(np.linspace(0, n - 1, min(n, EVALUATED_ROWS)).astype(int))
    return job.rows[index] if isinstance(job.rows, MappedArray) else jax.tree.map(lambda a: a[index], job.rows)


def _options(c: Composition, job: Job) -> dict[str, Any]:
    name = lambda part: type(part).__name__
    return {
        "model": name(c.model), "family": name(c.family), "objective": name(c.objective), "gradient": name(c.gradient),
        "plan": name(c.plan), "n_samples": c.n_samples, "n_steps": job.n_steps, "batch_size": job.batch_size,
        "n_restarts": job.n_restarts, "seed": job.seed, "averaged": job.average,
    }  # fmt: skip
