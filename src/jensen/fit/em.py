"""`jensen.em`: expectation maximisation of any `AbstractEM` model, on data in memory or on disk, with a verdict."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float, PyTree

from ..algorithms import em as loops
from ..algorithms.budget import Budget
from ..compiled import key_for
from ..diagnostics.checks import Judged
from ..errors import ModelError, OptionError, check_count, check_seed, explain
from ..models.em import AbstractEM
from ..process import computes, ready
from . import cache
from .base import AbstractResult
from .em_passes import climbed, in_memory, stochastic, streamed
from .em_rows import Source, by_chunks, checked, dtype, is_double, opened
from .em_verdict import ended, judged, thin
from .keep import Keeper
from .loop import _interruptible
from .persist import save_whole
from .progress import progress_bar

START_ROWS = 5_000  # rows that starts are made from
DEFAULT_STARTS, MOST_BATCHES = 4, 4  # starts at once; more of them where the first say too little
INITS = "k-means", "random", "both"


@computes
@dataclasses.dataclass
class EMFit(AbstractResult):
    """A model fitted by EM.

    model, params: what was fitted (NumPy leaves).   log_likelihood: of the data, nats (a bound for a variational E-step).
    objective: that plus the log prior.   history: the objective before each M-step of the best start, nats.
    n_iter, converged.   why: how EM ended, "converged", "budget" (of time, evaluations or iterations) or "interrupted".
    starts: the objective each start ended at.   diagnosis: the verdict and its checks.   n_parameters.
    n_rows: their total weight (of sequences: their steps).   seconds.
    """

    model: AbstractEM
    params: Any
    log_likelihood: float
    objective: float
    history: Float[np.ndarray, " n_iter"]
    n_iter: int
    converged: bool
    starts: Float[np.ndarray, " n_starts"]
    diagnosis: Judged
    n_parameters: int
    n_rows: float
    seconds: float
    why: str = ""  # of a fit saved before it was written down: by `converged`

    def __post_init__(self) -> None:
        self.why = self.why or ("converged" if self.converged else "budget")

    @property
    def bic(self) -> float:
        """Bayesian information criterion, -2 log L + p log n; smaller is better."""
        return -2 * self.log_likelihood + self.n_parameters * float(np.log(self.n_rows))

    @property
    def aic(self) -> float:
        """Akaike's information criterion, -2 log L + 2 p; smaller is better."""
        return -2 * self.log_likelihood + 2 * self.n_parameters

    def log_prob(self, data: Any) -> Float[np.ndarray, " n"]:
        """log p(row) of each, nats."""
        return self._apply(type(self.model).log_prob, data)

    def posterior(self, data: Any) -> Any:
        """The latents of each row: responsibilities, posterior means, state probabilities, as the model says."""
        return self._apply(type(self.model).posterior, data)

    def sample(self, n: int, seed: int = 0) -> Any:
        """(rows, latents) drawn from the fitted model."""
        with jax.enable_x64(is_double(self.params)):
            return jax.device_get(self.model.sample(self.params, key_for(seed, "em sample"), int(n)))

    def save(self, folder: str | Path) -> Path:
        """Writes the fit to a folder, without pickle; `jensen.load` reads it."""
        return save_whole(self, folder)

    def numbers(self) -> dict[str, Any]:
        """What it is known by, for a program."""
        return {
            "log_likelihood": self.log_likelihood, "objective": self.objective, "bic": self.bic, "aic": self.aic,
            "n_iter": self.n_iter, "converged": self.converged, "why": self.why, "starts": self.starts.tolist(),
            "seconds": self.seconds,
        }  # fmt: skip

    def _apply(self, method: Any, data: Any, *more: Any) -> Any:
        with jax.enable_x64(is_double(self.params)):
            rows = checked(self.model, opened(data), fitting=False)
            return by_chunks(method, self.model.bound_to(rows), self.params, rows, *more)

    def __repr__(self) -> str:
        lines = [f"EM of {type(self.model).__name__}: {self.verdict}, log-likelihood {self.log_likelihood:,.2f} nats"]
        return "\n".join([*lines, *(f"  - {r}" for r in self.reasons)])


@ready()
def em(
    model: AbstractEM,
    data: Any,
    *,
    weights: Any = None,
    params: PyTree = None,
    n_starts: int | None = None,
    init: str = "both",
    n_iter: int = 1000,
    tol: float = 1e-6,
    batch_size: int | None = None,
    n_epochs: int = 20,
    decay: float = 0.7,
    delay: float = 2.0,
    double: bool | None = None,
    seed: int = 0,
    budget: str | float | None = None,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    on_chunk: Callable[[int, np.ndarray], bool | None] | None = None,
) -> EMFit:
    """Maximum likelihood (or the posterior mode) of a latent-variable model by expectation maximisation.

    Arguments:
        model: a model of `jensen.models`: `GaussianMixture(3)`, `FactorAnalysis(2)`, `HiddenMarkov(4)`, ...
        data: rows (n, d), NaN where a value is missing; sequences (n, T, d), or a list of arrays (T_i, d); a
            table; a `.npy` file's path or a memory-mapped array, which is read block by block.
        weights: of the rows; a row of weight 2 counts as two.   params: to start from, instead of `n_starts` starts.
        n_starts: starts run at once, the best kept. None: 1 where the optimum is unique; else 4, and 4 more at a time,
            16 at most, while two or more but not half of them agree on the best.
        init: "k-means", "random", or "both": half of the starts each.
        n_iter: iterations at most.   tol: nats a row: ends when Aitken's extrapolation sees no more to gain.
        batch_size: None: every iteration sees all rows; else stochastic EM: `n_epochs` passes in batches of this many,
            with step sizes (t + delay)^-decay, 0.5 < decay <= 1.
        double: float64; None: unless the data are float32 (or float16).
        seed: of starts and batches.
        budget: "seconds:30", "evaluations:200" (an iteration of all starts is one), or a number of seconds; Ctrl-C does
            the same: what is best by then is returned, with its verdict.
        progress: a Rich bar; None: only at a terminal.
        checkpoint: folder; written every `checkpoint_seconds`, and gone on from if it holds the same fit.
        on_chunk: called with (iteration, the best start's objective at the last ones, nats); True stops.
    Returns:    `EMFit`.
    Raises:     DataError, ModelError, OptionError, CheckpointError.
    Reference:  Dempster, Laird and Rubin (1977); Cappé and Moulines (2009).  [dempster1977em; cappe2009online]
    """
    limit = Budget.parse(budget)
    cache.switch_on()
    seed = check_seed(seed, "em")
    _check(model, n_starts, n_iter, tol, batch_size, n_epochs, decay, delay, init)
    data = opened(data)
    wide = np.dtype(getattr(data, "dtype", np.float64)).itemsize > 4 or np.dtype(data.dtype).kind != "f"
    way = Way(n_starts, init, n_iter, tol, batch_size, n_epochs, decay, delay, seed)
    keeper = Keeper(checkpoint, "EM", checkpoint_seconds)
    with jax.enable_x64(wide if double is None else double):
        out = _em(model, data, weights, params, way, limit, keeper, progress, on_chunk)
    out.onward = functools.partial(_go_on, data, weights, way, double)
    return out


def _go_on(
    data: Any, weights: Any, way: "Way", double: bool | None, fit: EMFit, budget: Budget, progress: Any
) -> EMFit:
    """Iterations from where the fit is; what its starts said stands."""
    how = {name: value for name, value in way._asdict().items() if name not in ("n_starts", "init")}
    more = em(
        fit.model, data, weights=weights, params=fit.params, double=double, budget=budget, progress=progress, **how
    )  # fmt: skip
    starts = [c for c in fit.diagnosis.checks if c.code == "initialisation"]
    more.diagnosis = Judged.of([*more.diagnosis.checks, *starts])
    more.starts = np.where(fit.starts == np.nanmax(fit.starts), more.objective, fit.starts)
    more.history, more.n_iter = np.concatenate([fit.history, more.history]), fit.n_iter + more.n_iter
    more.seconds += fit.seconds
    return more


class Way(NamedTuple):
    """The options that decide what EM does: what a checkpoint must agree with."""

    n_starts: int | None
    init: str
    n_iter: int
    tol: float
    batch_size: int | None
    n_epochs: int
    decay: float
    delay: float
    seed: int


def _em(model, data, weights, params, way: Way, limit: Budget, keeper: Keeper, progress, on_chunk) -> EMFit:
    source = Source(model, data, weights)
    batched, given = way.batch_size is not None, params is not None
    keeper.of((source.model, way, str(dtype())), _arrays(source, params))
    resident = not source.streamed and not batched
    n_iter = way.n_epochs if batched else way.n_iter
    states: list[loops.Climb] = []
    with _interruptible() as asked:
        while True:
            before = DEFAULT_STARTS * len(states)
            state = _first(source, params, way, resident, before)
            alone = len(state.n_iter) == 1
            label = f"EM of {type(model).__name__}" + (f", {len(state.n_iter)} more starts" if states else "")
            kept = keeper.load(state, before)
            with progress_bar(progress, n_iter, label) as bar:

                def seen(state: loops.Climb, n: int, bar: Any = bar, before: int = before) -> bool:
                    at = int(np.max(state.n_iter))
                    values = np.asarray(state.history, np.float64)[:, max(at - n, 0) : at] * source.total
                    highest = np.where(np.isfinite(values), values, -np.inf).max(0)
                    bar.update(at, float(highest[-1]))
                    if keeper.due:
                        keeper.save(state, at, before)
                    return on_chunk is not None and bool(on_chunk(at, highest))

                advance = _advance(source, way, resident, alone)
                state, why = climbed(advance, state if kept is None else kept, n_iter, limit, asked, seen)
            keeper.save(state, int(np.max(state.n_iter)), before)
            states.append(jax.device_get(state))
            found = jax.tree.map(lambda *a: np.concatenate(a), *states)
            more = way.n_starts is None and not given and len(states) < MOST_BATCHES and not alone
            if why not in ("settled", "iterations") or not (more and thin(source, ended(source, found))):
                return _result(source, found, why, batched, given, limit)


def _advance(source: Source, way: Way, resident: bool, alone: bool) -> Any:
    if way.batch_size is not None:
        return stochastic(source, alone, way.batch_size, way.decay, way.delay, way.tol, way.seed)
    return in_memory(source, way.tol, alone) if resident else streamed(source, way.tol, alone)


def _first(source: Source, params: PyTree, way: Way, resident: bool, before: int) -> loops.Climb:
    """Before the first iteration: the state of every start, after so many others."""
    model, n_iter = source.model, way.n_epochs if way.batch_size is not None else way.n_iter
    shapes = source.chunks() if resident else source.one_chunk()
    if params is not None:
        params = jax.tree.map(lambda a: jnp.asarray(a, dtype())[None], params)
        state = loops.begin_all(model, params, n_iter, shapes)
    else:
        count = way.n_starts or (DEFAULT_STARTS if model.several_optima else 1)
        random = np.arange(count) % 2 == 1 if way.init == "both" else np.full(count, way.init == "random")
        keys = jr.split(key_for(way.seed, f"em starts {before}" if before else "em starts"), count)
        rows, order = source.some(START_ROWS, way.seed), np.asarray(before, np.int32)
        state = loops.start_all(model, keys, rows, random, order, n_iter, shapes)
    if not resident:  # these numbers are the host's
        wide = lambda a: np.asarray(a, np.float64)
        numbers = {name: wide(getattr(state, name)) for name in ("history", "log_likelihood", "fall")}
        state = state._replace(**numbers)
    return state


def _arrays(source: Source, params: PyTree) -> Iterator[Any]:
    """What a checkpoint's fit was made of: weights, given parameters, rows."""
    yield source.weights
    yield from jax.tree.leaves(params)
    for rows, _ in source.blocks():
        yield rows


# ---- the result -----------------------------------------------------------------------------------------------------
def _result(source: Source, state: loops.Climb, why: str, batched: bool, given: bool, limit: Budget) -> EMFit:
    model = source.model
    n_iters, ends = np.asarray(state.n_iter), ended(source, state)
    value = np.asarray(state.log_likelihood, np.float64)
    if not np.isfinite(ends).any():
        because = "the parameters have left the range of the floating-point numbers"
        instead = "double=True, data in moderate units, fewer components, or a ridge or prior"
        raise ModelError(explain(f"EM of {type(model).__name__}", "no start has a finite likelihood", because, instead))
    best = int(np.argmax(np.where(np.isfinite(ends), ends, -np.inf)))
    params = jax.tree.map(lambda a: a[best], state.params)
    n_iter, n_free = int(n_iters[best]), model.n_parameters(params)
    converged = bool(state.done[best]) or (batched and why == "iterations")
    if why in ("settled", "iterations"):
        why = "converged" if converged else "budget"
    judgement = judged(source, state, ends, best, why, n_free, batched=batched, given=given, limit=limit)
    return EMFit(
        model, params, float(value[best]), float(ends[best]), state.history[best, :n_iter] * source.total, n_iter,
        converged, ends, judgement, n_free, source.size, limit.elapsed, why,
    )  # fmt: skip


def _check(model, n_starts, n_iter, tol, batch_size, n_epochs, decay, delay, init) -> None:
    if not isinstance(model, AbstractEM):
        because = "EM needs an E-step and an M-step"
        instead = "jensen.fit(model, data) for other models; jensen.models.GaussianMixture(3) and the like here"
        raise ModelError(explain(f"`em({type(model).__name__})`", "it is not a model for EM", because, instead))
    counts = {"n_iter": n_iter, "n_epochs": n_epochs, "n_starts": n_starts, "batch_size": batch_size}
    for name, value in counts.items():
        if value is not None:
            check_count(name, value)
    ranges = (("tol", tol, tol >= 0, "0 or more"), ("decay", decay, 0.5 < decay <= 1, "above 0.5, at most 1"),
              ("delay", delay, delay > 0, "above 0"), ("init", init, init in INITS, f"one of {INITS}"))  # fmt: skip
    for name, value, fine, instead in ranges:
        if not fine:
            because = (
                "the series of step sizes must converge" if name in ("decay", "delay") else "see `help(jensen.em)`"
            )
            raise OptionError(explain(f"{name}={value!r}", "it is out of range", because, instead))
