"""Fitting Boltzmann machines by the compiled loop, and what is done with them."""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from ..algorithms.budget import Budget
from ..algorithms.contrastive_divergence import ContrastiveDivergence
from ..algorithms.descent import Hints, Optimiser
from ..arrays import host, lifted
from ..compiled import compiled, key_for
from ..data.binarized import for_loop
from ..diagnostics.energy import EnergyDiagnosis, diagnose_energy
from ..diagnostics.partition import LogPartition, kept_half, log_partition
from ..errors import DataError, OptionError, check_seed, explain
from ..function import Static
from ..models.boltzmann import RBM, AbstractBoltzmann
from ..models.deep_boltzmann import DBM, composed, stack_gains
from ..process import computes, ready
from . import cache
from .base import AbstractResult
from .keep import Keeper
from .loop import Plan, Runner
from .minibatch import first_batch, steps_per_epoch
from .persist import save_whole
from .progress import progress_bar
from .rows import as_rows

OF_SGD = Hints("steps go uphill", "optimizer=0.05", "optax.sgd(0.05, momentum=0.9), or a step size")
EPOCHS, BATCH, RATE, RATE_REAL = 20, 100, 0.05, 1e-3
SHORT: dict[str, Any] = {"n_chains": 64, "temperatures": 1000}  # the annealing runs of a verdict
JUDGED = 1000  # rows
BLOCK = 1000  # rows at once


@computes
@dataclasses.dataclass
class EnergyFit(AbstractResult):
    """A fitted Boltzmann machine, and a verdict on it.

    machine:  fitted.   history: the pseudo log-likelihood at every step, nats, whole data.   why: how training ended,
    "budget" | "diverged" | "interrupted".   chains: the odd layers of the persistent chains, or None.   rows, held_out: data.
    """

    machine: Any
    rows: Any
    history: np.ndarray
    why: str
    seconds: float
    seed: int
    n_skipped: int
    options: dict[str, Any]
    chains: Any = None
    held_out: Any = None

    @functools.cached_property
    def diagnosis(self) -> EnergyDiagnosis:
        """What was measured: at the first call, a second or two of annealing."""
        some = lambda rows: np.asarray(rows[:: max(1, len(rows) // JUDGED)][:JUDGED], np.float32)
        means = self.hidden_means(some(self.rows))
        gap = None
        if self.held_out is not None:
            gap = float(np.mean(self.log_weight(some(self.rows))) - np.mean(self.log_weight(some(self.held_out))))
        log_z = reverse = None
        weights = [np.asarray(w) for w in self.machine.weights]
        if all(np.isfinite(w).all() for w in weights):
            log_z = self.log_partition(**SHORT)
            if log_z.method == "ais" and self.chains is not None:
                reverse = self.log_partition("reverse", temperatures=SHORT["temperatures"])
        ended: Any = {"why": self.why, "spent": self.options.get("budget"), "n_steps": len(self.history)}
        ended["skipped"] = self.n_skipped
        return diagnose_energy(weights, means, gap=gap, log_z=log_z, reverse=reverse, **ended)

    def __repr__(self) -> str:
        widths = "-".join(str(u.size) for u in self.machine.units)
        head = f"EnergyFit({type(self.machine).__name__} {widths}, {self.options['method']}): {self.verdict}"
        work = f"  {len(self.history):,} steps, {self.seconds:.2f} s   {self.why}"
        return "\n".join([head, work, *(f"  - {r}" for r in self.reasons)])

    def save(self, folder: str | Path) -> Path:
        """Writes the machine, its chains and the verdict to a folder, without the rows and without pickle; `jensen.load`
        reads it."""
        return save_whole(self.without_rows(), folder)

    def without_rows(self) -> "EnergyFit":
        """The same fit with its verdict, which was made from the rows, and no rows."""
        light = copy.copy(self)
        light.diagnosis, light.rows, light.held_out = self.diagnosis, None, None
        return light

    def numbers(self) -> dict[str, Any]:
        """What it is known by, for a program."""
        d = self.diagnosis
        log_z = None if d.log_partition is None else d.log_partition.estimate
        return {
            "log_partition": log_z, "bracket": d.bracket, "largest_weight": d.largest_weight, "dead": d.dead,
            "saturated": d.saturated, "n_steps": len(self.history), "why": self.why, "seconds": self.seconds,
        }  # fmt: skip

    # ---- rows -------------------------------------------------------------------------------------------------
    def _of_rows(self, fn: Any, x: Any) -> Any:
        arrays, static = eqx.partition(self.machine, eqx.is_array)
        x, out, size = host("x", x), [], min(BLOCK, len(x))
        for at in range(0, len(x), size):
            part = x[at : at + size]
            padded = np.concatenate([part, np.repeat(part[:1], size - len(part), 0)])
            made = jax.device_get(fn(Static(static), arrays, jnp.asarray(padded, self.machine.biases[0].dtype)))
            out.append(jax.tree.map(lambda a: a[: len(part)], made))
        return jax.tree.map(lambda *a: np.concatenate(a), *out)

    def hidden_means(self, x: Any) -> list[Float[np.ndarray, "n d"]]:
        """E[h | x] of each hidden layer: exact for an RBM, by mean field for a DBM."""
        return list(self._of_rows(_means, x))

    @property
    def n_hidden(self) -> int:
        """Hidden units of all layers."""
        return sum(u.size for u in self.machine.units[1:])

    def decode(self, z: Any) -> Float[np.ndarray, "n v"]:
        """E[x | h] of values of the hidden layers, one after another, of which the first is next to x."""
        first = np.asarray(z)[:, : self.machine.units[1].size]
        field = np.asarray(self.machine.biases[0]) + first @ np.asarray(self.machine.weights[0]).T
        return np.asarray(self.machine.units[0].mean(jnp.asarray(field)))

    def log_weight(self, x: Any) -> Float[np.ndarray, " n"]:
        """log p(x) + log Z of rows, nats: exact for an RBM, the mean-field bound for a DBM."""
        return self._of_rows(_log_weight, x)

    @functools.cached_property
    def _default_partition(self) -> LogPartition:
        return self.log_partition()

    def score_samples(self, x: Any, log_z: float | LogPartition | None = None) -> Float[np.ndarray, " n"]:
        """log p(x) of rows, nats (a DBM's: its variational bound). log_z: default, `log_partition()`, computed once."""
        found = self._default_partition if log_z is None else log_z
        return self.log_weight(x) - (found.estimate if isinstance(found, LogPartition) else found)

    def log_partition(self, method: str = "auto", **options: Any) -> LogPartition:
        """log Z, as `jensen.diagnostics.partition.log_partition`; base rates are those of the data, and "reverse" starts
        from the persistent chains."""
        options = {"mean": self.options["mean"], "seed": self.seed} | options
        if method == "reverse" and "samples" not in options:
            options["samples"] = self.particles()[kept_half(self.machine)]
        return log_partition(self.machine, method, **options)

    # ---- fantasies --------------------------------------------------------------------------------------------
    def particles(self, n_steps: int = 1, seed: int = 0) -> Any:
        """(even, odd) layers of the persistent chains, so many sweeps on; of CD, of chains from no input and 1,000 sweeps."""
        start = self.machine.at_random(key_for(seed, "chains"), BATCH, 1) if self.chains is None else self.chains
        n = n_steps if self.chains is not None else max(n_steps, BLOCK)
        return self._gibbs(start, n, seed)

    def _gibbs(self, odd: Any, n_steps: int, seed: int) -> Any:
        arrays, static = eqx.partition(self.machine, eqx.is_array)
        odd = tuple(map(jnp.asarray, odd))
        return jax.device_get(_sweeps(Static(static), arrays, jr.key_data(key_for(seed, "gibbs")), odd, n_steps))

    def sample(self, n: int = 100, seed: int = 0, *, n_steps: int = 1000) -> Float[np.ndarray, "n v"]:
        """Rows from Gibbs chains, `n_steps` sweeps on from the persistent particles (repeated where n is larger)."""
        start = self.machine.at_random(key_for(seed, "chains"), n, 1) if self.chains is None else self.chains
        index = np.random.default_rng([check_seed(seed), 5]).permutation(np.arange(n) % len(start[0]))
        return np.asarray(self._gibbs([np.asarray(a)[index] for a in start], n_steps, seed)[0][0])

    def gibbs(self, x: Any, n_steps: int = 1, seed: int = 0) -> Float[np.ndarray, "n v"]:
        """Rows after so many sweeps from x."""
        odd = self.hidden_means(x)[0::2]
        rng = np.random.default_rng([check_seed(seed), 6])
        odd = [(rng.random(m.shape) < m).astype(m.dtype) for m in odd]
        return np.asarray(self._gibbs(odd, n_steps, seed)[0][0])


@compiled(0)
def _means(static: Static, arrays: Any, x: Array) -> Any:
    machine: Any = eqx.combine(arrays, static.tree)
    return machine.mean_field(x, tolerance=1e-4) if isinstance(machine, DBM) else machine.means((x,), 1)


@compiled(0)
def _log_weight(static: Static, arrays: Any, x: Array) -> Array:
    machine: Any = eqx.combine(arrays, static.tree)
    return machine.bound(x) if isinstance(machine, DBM) else machine.log_marginal((x,), 0)


@compiled(0)
def _sweeps(static: Static, arrays: Any, key_data: Array, odd: Any, n_steps: Array) -> Any:
    return eqx.combine(arrays, static.tree).gibbs(jr.wrap_key_data(key_data), odd, n_steps)


@ready()
def fit_energy(
    machine: AbstractBoltzmann,
    data: Any,
    *,
    method: str | ContrastiveDivergence | None = None,
    optimizer: optax.GradientTransformation | float | None = None,
    n_steps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    budget: str | float | None = None,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    on_chunk: Callable[[int, np.ndarray], bool | None] | None = None,
    held_out: Any = None,
    chains: Any = None,
) -> EnergyFit:
    """Fits a Boltzmann machine to rows; what `jensen.fit` does with one.

    Arguments:  method: "pcd" (default), "cd", "parallel-tempering", all of them centred for a DBM, whose upper units die
                    otherwise; or `ContrastiveDivergence(...)` with its options.
                optimizer: an Optax transformation; a number: plain gradient steps of that size; None: of 0.05 (real
                    visibles: 0.001), falling linearly to 0.
                n_steps: None: 20 passes over the data.   batch_size: None: 100, or all.   held_out: rows for the verdict only.
                chains: odd layers from which persistent chains go on.
                budget: "seconds:30", "evaluations:2000" (a step is one), or a number of seconds.
                checkpoint: folder; written every `checkpoint_seconds`, and gone on from if it holds the same fit.
    Raises:     DataError for rows outside the visible units' range, NaN, or of another width; OptionError; CheckpointError.
    """
    limit = Budget.parse(budget)
    cache.switch_on()
    seed = check_seed(seed, "fit")
    rows = lifted(as_rows(data))
    check_rows(machine, rows)
    held_out = None if held_out is None else host("held_out", held_out)
    n = len(rows)
    batch_size = min(batch_size or BATCH, n)
    n_steps = n_steps or EPOCHS * steps_per_epoch(n, batch_size)
    chosen = _named(method)
    algorithm = chosen.bind(machine, _optimiser(optimizer, machine, n_steps))
    runner = Runner(
        algorithm, for_loop(data, rows), first_batch(rows, batch_size), Plan(batch_size=batch_size, ahead=False)
    )
    carry = runner.init(seed)
    if chains is not None and algorithm.persistent:
        params, opt, (_, *rest) = carry.state
        tiled = tuple(jnp.tile(jnp.asarray(a), (algorithm.n_temperatures, 1)) for a in chains)
        carry = carry._replace(state=(params, opt, (tiled, *rest)))
    keeper = Keeper(checkpoint, type(machine).__name__, checkpoint_seconds)
    keeper.of((algorithm, n_steps, batch_size, seed), jax.tree.leaves((runner.arrays, runner.data, chains)))
    before, stopped = [np.zeros(0)], False
    kept = keeper.load((carry, np.zeros(n_steps)))
    if kept is not None:
        carry, before = kept[0], [np.asarray(kept[1])[: int(kept[0].step)]]
    whole = lambda: np.concatenate([*before, np.full(n_steps - sum(map(len, before)), math.nan)])
    with progress_bar(progress, n_steps, type(machine).__name__) as bar:

        def seen(step: int, values: np.ndarray, carry: Any) -> bool:
            nonlocal stopped
            before.append(values)
            bar.update(step, float(values[-1]) if len(values) else math.nan)
            limit.spend(len(values))
            if keeper.due:
                keeper.save((carry, whole()), step)
            stopped = limit.spent and step < n_steps
            return stopped or bool(on_chunk is not None and on_chunk(step, values))

        last = int(min(n_steps, int(carry.step) + limit.evaluations))
        outcome = runner.run(carry, last, int(np.clip(n_steps // 50, 100, 1000)), seen)
    history = np.concatenate(before)
    keeper.save((outcome.carry, whole()), len(history))
    why = "budget" if stopped and outcome.why == "interrupted" else outcome.why
    state = outcome.carry.safe if outcome.why == "diverged" else outcome.carry.state
    params, _, (last, *_) = state
    if algorithm.persistent:  # those at beta = 1
        last = tuple(np.asarray(a)[-(len(a) // algorithm.n_temperatures) :] for a in last)
    options = {
        "method": chosen.label,
        "n_steps": n_steps,
        "batch_size": batch_size,
        "budget": str(limit) if stopped else None,
        "mean": np.asarray(rows).mean(0, dtype=np.float64),
    }
    out = EnergyFit(
        algorithm.assemble(params), rows, history, why, outcome.seconds, seed,
        int(outcome.carry.monitor.skipped), options, last if algorithm.persistent else None, held_out,
    )  # fmt: skip
    out.onward = functools.partial(_go_on, chosen, optimizer, batch_size)
    return out


def _go_on(method: Any, optimizer: Any, batch_size: int, fit: EnergyFit, budget: Budget, progress: Any) -> EnergyFit:
    """Steps from where the machine and its chains are."""
    how = {"batch_size": batch_size, "seed": fit.seed + len(fit.history), "budget": budget, "progress": progress}
    kept = {"held_out": fit.held_out, "chains": fit.chains}
    more = fit_energy(fit.machine, fit.rows, method=method, optimizer=optimizer, **how, **kept)
    more.history, more.n_skipped = np.concatenate([fit.history, more.history]), fit.n_skipped + more.n_skipped
    more.seconds, more.seed = fit.seconds + more.seconds, fit.seed
    return more


@ready()
def pretrained(machine: DBM, data: Any, **options: Any) -> DBM:
    """The DBM with weights from RBMs trained one on the other, each on the hidden probabilities of the one below; inputs
    are doubled where a neighbour is missing.  Arguments: options of `fit_energy`; method: "cd" by default.

    Reference:  Salakhutdinov and Hinton (2009), section 3.1.
    """
    rows, stack, n = data, [], len(machine.weights)
    options = {"method": "cd"} | options
    for i in range(n):
        first = machine.units[0] if i == 0 else "bernoulli"
        mean = np.asarray(rows, np.float32).mean(0)
        width = machine.units[i].size, machine.units[i + 1].size
        made = RBM(*width, first, mean=mean, seed=i, gains=stack_gains(i, n))
        fit = fit_energy(made, rows, **options)
        if fit.why == "interrupted":
            raise KeyboardInterrupt  # half a start is no result
        stack.append(fit.machine)
        rows = fit.hidden_means(rows)[0]
    return composed(stack, machine.recognition is not None)


def check_rows(machine: AbstractBoltzmann, rows: Any) -> None:
    """Raises: DataError if rows are not of the machine's visible layer."""
    asked = f"fitting `{type(machine).__name__}` to data of shape {getattr(rows, 'shape', None)}"
    if rows is None or not hasattr(rows, "ndim"):
        raise DataError(explain(asked, "there is no one array of rows", "a row is a visible layer", "fit(model, X)"))
    if rows.ndim != 2 or rows.shape[1] != machine.n_visible:
        wrong = f"the machine has {machine.n_visible} visible units"
        raise DataError(explain(asked, wrong, "a column is a unit", "X of shape (n, n_visible)"))
    machine.units[0].check(np.asarray(rows), asked)


def _named(method: Any) -> ContrastiveDivergence:
    if isinstance(method, ContrastiveDivergence):
        return method
    found = ContrastiveDivergence.called("pcd" if method is None else str(method))
    if not isinstance(found, ContrastiveDivergence):
        instead = f"one of {sorted(ContrastiveDivergence.variants)}, or ContrastiveDivergence(...)"
        because = "a Boltzmann machine is learned from Gibbs chains"
        raise OptionError(explain(f"method={method!r}", "there is no such method here", because, instead))
    return found


def _optimiser(optimizer: Any, machine: AbstractBoltzmann, n_steps: int) -> Optimiser:
    rate = RATE if machine.units[0].states is not None else RATE_REAL
    return Optimiser.parse(optimizer, optax.sgd, optax.sgd(optax.linear_schedule(rate, 0.0, n_steps)), OF_SGD)
