"""`jensen.em`: expectation maximisation of any `AbstractEM` model, on data in memory or on disk, with a verdict."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float, PyTree

from ..algorithms import em as loops
from ..compiled import key_for
from ..diagnostics.verdict import Judgement, Verdict
from ..errors import ModelError, OptionError, check_count, check_seed, explain
from ..models.em import AbstractEM
from ..process import computes, ready
from . import cache
from .em_passes import stochastic, streamed
from .em_rows import Source, by_chunks, checked, dtype, is_double, opened
from .persist import save_whole

START_ROWS = 5_000  # rows that starts are made from
DEFAULT_STARTS = 4
AGREE = 1e-3  # nats a row, within which two starts have found the same
INITS = "k-means", "random", "both"


@computes
@dataclasses.dataclass
class EMFit:
    """A model fitted by EM.

    model, params: what was fitted (NumPy leaves).   log_likelihood: of the data, nats (a bound for a variational E-step).
    objective: that plus the log prior.   history: the objective before each M-step of the best start, nats.
    n_iter, converged.   starts: the objective each start ended at.   verdict, reasons: RELIABLE, DOUBTFUL or
    UNRELIABLE, and why, the worst first.   n_parameters; n_rows: their total weight (of sequences: their steps).   seconds.
    """

    model: AbstractEM
    params: Any
    log_likelihood: float
    objective: float
    history: Float[np.ndarray, " n_iter"]
    n_iter: int
    converged: bool
    starts: Float[np.ndarray, " n_starts"]
    verdict: Verdict
    reasons: list[str]
    n_parameters: int
    n_rows: float
    seconds: float

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

    @property
    def why(self) -> str:
        """How EM ended: "converged" or "budget"."""
        return "converged" if self.converged else "budget"

    def numbers(self) -> dict[str, Any]:
        """What it is known by, for a program."""
        return {
            "log_likelihood": self.log_likelihood, "objective": self.objective, "bic": self.bic, "aic": self.aic,
            "n_iter": self.n_iter, "converged": self.converged, "starts": self.starts.tolist(), "seconds": self.seconds,
        }  # fmt: skip

    def _apply(self, method: Any, data: Any) -> Any:
        with jax.enable_x64(is_double(self.params)):
            rows = checked(self.model, opened(data), fitting=False)
            return by_chunks(method, self.model.bound_to(rows), self.params, rows)

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
) -> EMFit:
    """Maximum likelihood (or the posterior mode) of a latent-variable model by expectation maximisation.

    Arguments:
        model: a model of `jensen.models`: `GaussianMixture(3)`, `FactorAnalysis(2)`, `HiddenMarkov(4)`, ...
        data: rows (n, d), NaN where a value is missing; sequences (n, T, d), or a list of arrays (T_i, d); a
            table; a `.npy` file's path or a memory-mapped array, which is read block by block.
        weights: of the rows; a row of weight 2 counts as two.   params: to start from, instead of `n_starts` starts.
        n_starts: starts run at once, the best kept (default 4, or 1 where the optimum is unique).
        init: "k-means", "random", or "both": half of the starts each.
        n_iter: iterations at most.   tol: nats a row: ends when Aitken's extrapolation sees no more to gain.
        batch_size: None: every iteration sees all rows; else stochastic EM: `n_epochs` passes in batches of this many,
            with step sizes (t + delay)^-decay, 0.5 < decay <= 1.
        double: float64; None: unless the data are float32 (or float16).
        seed: of starts and batches.
    Returns:    `EMFit`.
    Raises:     DataError, ModelError, OptionError.
    Reference:  Dempster, Laird and Rubin (1977); Cappé and Moulines (2009).  [dempster1977em; cappe2009online]
    """
    began = time.perf_counter()
    cache.switch_on()
    seed = check_seed(seed, "em")
    _check(model, n_starts, n_iter, tol, batch_size, n_epochs, decay, delay, init)
    data = opened(data)
    wide = np.dtype(getattr(data, "dtype", np.float64)).itemsize > 4 or np.dtype(data.dtype).kind != "f"
    with jax.enable_x64(wide if double is None else double):
        return _em(model, data, weights, params, n_starts, init, n_iter, tol, batch_size, n_epochs, decay, delay,
                   seed, began)  # fmt: skip


def _em(model, data, weights, params, n_starts, init, n_iter, tol, batch_size, n_epochs, decay, delay, seed, began):
    source = Source(model, data, weights)
    model, given = source.model, params is not None
    if not source.streamed and batch_size is None:
        source.chunks()
    if params is not None:
        params = jax.tree.map(lambda a: jnp.asarray(a, dtype())[None], params)
    else:
        count = n_starts or (DEFAULT_STARTS if model.several_optima else 1)
        random = jnp.arange(count) % 2 == 1 if init == "both" else jnp.full(count, init == "random")
        keys = jr.split(key_for(seed, "em starts"), count)
        params = loops.start_all(model, keys, source.some(START_ROWS, seed), random)
    alone = jax.tree.leaves(params)[0].shape[0] == 1
    if batch_size is not None:
        climbed, why = stochastic(source, params, alone, batch_size, n_epochs, decay, delay, tol, seed), "stochastic"
    elif source.streamed:
        climbed, why = streamed(source, params, alone, n_iter, tol), ""
    else:
        tolerance = jnp.asarray(tol, dtype())
        climbed, why = loops.climb_all(model, params, source.chunks(), n_iter, alone, tolerance), ""
    return _result(source, climbed, why, given, began)


# ---- the result -----------------------------------------------------------------------------------------------------
def _result(source: Source, climbed: loops.Climb, why: str, given: bool, began: float) -> EMFit:
    model, climbed = source.model, jax.device_get(climbed)
    n_iters = np.asarray(climbed.n_iter)
    value = np.asarray(climbed.log_likelihood, np.float64)
    ends = climbed.history[np.arange(len(n_iters)), n_iters - 1].astype(np.float64) * source.total
    if not np.isfinite(ends).any():
        because = "the parameters have left the range of the floating-point numbers"
        instead = "double=True, data in moderate units, fewer components, or a ridge or prior"
        raise ModelError(explain(f"EM of {type(model).__name__}", "no start has a finite likelihood", because, instead))
    best = int(np.nanargmax(np.where(np.isfinite(ends), ends, -np.inf)))
    params = jax.tree.map(lambda a: a[best], climbed.params)
    n_iter, n_free = int(climbed.n_iter[best]), model.n_parameters(params)
    judge = Judgement()
    for level, sentence in sorted(model.faults(params), key=lambda fault: -fault[0]):
        judge(level, sentence)
    _judge(judge, source, climbed, ends, best, why, n_free, given)
    verdict, reasons = judge.result()
    return EMFit(
        model, params, float(value[best]), float(ends[best]), climbed.history[best, :n_iter] * source.total, n_iter,
        bool(climbed.converged[best]), ends, verdict, reasons, n_free, source.size, time.perf_counter() - began,
    )  # fmt: skip


def _judge(judge, source, climbed, ends, best, why, n_free, given) -> None:
    """How the iterations went, whether starts agree, whether there are rows enough."""
    model, n = source.model, int(climbed.n_iter[best])
    if why == "stochastic":
        last = np.abs(np.diff(climbed.history[best, :n]))[-1:]
        moving = bool(last.size and last[0] > AGREE)
        more = ", and the last still moved it: allow more (n_epochs)." if moving else "."
        judge(int(moving), f"Stochastic EM ran for {n} epochs; the objective may fall from one to the next{more}")
    elif climbed.converged[best]:
        judge(0, f"EM converged after {n} iterations.")
    else:
        judge(1, f"EM had not converged after {n} iterations: allow more (n_iter), or a larger tol.")
    if climbed.fall[best] > 1:
        excuse = f" {model.may_fall[0].upper()}{model.may_fall[1:]}." if model.may_fall else ""
        size = climbed.fall[best] * loops.ROUNDING * float(np.finfo(dtype()).eps) * (1 + abs(ends[best]) / source.total)
        level = 0 if excuse and size < 1e-3 else 2
        judge(level, f"The objective fell at an iteration, by {size:.2g} nats a row, beyond rounding.{excuse}")
    elif not why:
        judge(0, "The objective never fell, beyond rounding.")
    if model.several_optima and not given:
        near = int((ends >= ends[best] - AGREE * source.total).sum())
        if len(ends) == 1:
            judge(1, "There was one start, and there may be better optima: use n_starts=4 or more.")
        elif near == 1:
            judge(1, f"Only one of {len(ends)} starts reached the best optimum: use more, there may be a better one.")
        else:
            judge(0, f"{near} of {len(ends)} starts reached the best optimum.")
    if n_free > source.size:
        judge(1, f"There are more free parameters ({n_free:,}) than rows ({source.size:,.0f}).")


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
