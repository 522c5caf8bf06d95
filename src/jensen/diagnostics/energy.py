"""The verdict on a fitted Boltzmann machine."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from .checks import Judged, Judgement, graded
from .partition import LogPartition

WEIGHT_GOOD, WEIGHT_USABLE = 10.0, 30.0  # a single link of that log-odds decides its neighbour alone
STILL = 0.01  # sd over rows of the mean of a unit that does not answer to the data
FEW, MANY = 0.1, 0.5  # share of hidden units that are dead or saturated
GAP_GOOD, GAP_USABLE = 2.0, 10.0  # nats between rows held out and rows learned from
ESS_GOOD, ESS_USABLE = 0.1, 0.02  # of a short annealing run's chains
BRACKET = 1.0, 10.0  # nats between the two directions of annealing


@dataclasses.dataclass
class EnergyDiagnosis(Judged):
    """What was measured.

    largest_weight: of all |W|.   gap: mean log p of rows learned from less that of rows held out, nats a row, or None.
    dead, saturated: share of hidden units that are mostly off, or on, and do not depend on the row.
    log_partition: by a short run (or exact).   bracket: what annealing from the particles downwards gives, less that;
    None without particles.
    """

    largest_weight: float
    dead: float
    saturated: float
    gap: float | None
    log_partition: LogPartition | None
    bracket: float | None


def diagnose_energy(
    weights: list[np.ndarray],
    means: list[Float[np.ndarray, "n d"]],
    *,
    why: str,
    n_steps: int,
    skipped: int,
    spent: str | None = None,
    gap: float | None = None,
    log_z: LogPartition | None = None,
    reverse: LogPartition | None = None,
) -> EnergyDiagnosis:
    """From the weights, the hidden means of some rows, how training ended (spent: the budget that ended it), and partition
    functions from both ends."""
    judge = Judgement()
    largest = float(max(np.abs(w).max() for w in weights))
    _ended(judge, why, n_steps, skipped, spent)
    level = graded(largest, WEIGHT_GOOD, WEIGHT_USABLE)
    tail = "" if not level else ": weights explode; use a smaller step size or weight_decay"
    judge(
        "weights",
        level,
        f"The largest weight is {largest:.3g}{tail}.",
        value=largest,
        limits=(WEIGHT_GOOD, WEIGHT_USABLE),
    )
    mean = np.concatenate([m.mean(0) for m in means])
    still = np.concatenate([m.std(0) for m in means]) < STILL
    dead, saturated = float((still & (mean < 0.5)).mean()), float((still & (mean >= 0.5)).mean())
    level = graded(dead + saturated, FEW, MANY)
    tail = "" if not level else "; fewer units, a sparsity target, or centred=True"
    judge(
        "hidden_units",
        level,
        f"Of {len(mean)} hidden units {dead + saturated:.0%} do not depend on the row ({saturated:.0%} mostly on){tail}.",
        value=dead + saturated,
        limits=(FEW, MANY),
    )
    if gap is not None:
        level = graded(gap, GAP_GOOD, GAP_USABLE)
        tail = "" if not level else ": the machine learns its rows by heart; weight_decay, fewer units or steps"
        judge(
            "held_out",
            level,
            f"Rows held out are {gap:.2f} nats less probable than rows learned from{tail}.",
            value=gap,
            limits=(GAP_GOOD, GAP_USABLE),
        )
    bracket = _partition(judge, log_z, reverse)
    verdict, checks = judge.result()
    return EnergyDiagnosis(verdict, checks, largest, dead, saturated, gap, log_z, bracket)


def _ended(judge: Judgement, why: str, n_steps: int, skipped: int, spent: str | None) -> None:
    if why == "diverged":
        judge("ending", 2, "Training diverged: it was rolled back to its last good state. Use a smaller step size.")
    elif why == "interrupted":
        judge("ending", 1, f"Training was interrupted after {n_steps:,} steps.")
    elif spent:
        judge("budget", 1, f"The budget of {spent} was used up after {n_steps:,} steps, before all that were planned.")
    else:
        judge("ending", 0, f"Training took {n_steps:,} steps.")
    if skipped:
        judge(
            "skipped_steps",
            graded(skipped / n_steps, 0.0, 0.01),
            f"{skipped:,} steps were skipped: their gradient was not finite.",
            value=skipped / n_steps,
            limits=(0.0, 0.01),
        )


def _partition(judge: Judgement, log_z: Any, reverse: Any) -> float | None:
    if log_z is None:
        return None
    if log_z.method == "exact":
        judge("partition", 0, f"log Z is {log_z.estimate:.3f}, exactly.", value=log_z.estimate)
        return None
    level = graded(-log_z.ess, -ESS_GOOD, -ESS_USABLE)
    tail = "" if not level else ": the machine has modes that annealing does not reach evenly; more temperatures"
    judge(
        "evidence_samples",
        level,
        f"A short annealing run keeps {log_z.ess:.0%} of its chains' worth{tail}.",
        value=log_z.ess,
        limits=(ESS_GOOD, ESS_USABLE),
    )
    if reverse is None:
        return None
    gap = reverse.estimate - log_z.estimate
    level = graded(abs(gap), *BRACKET)
    tail = "" if not level else ": the persistent chains do not mix; more chains, n_temperatures, or smaller steps"
    judge(
        "bracket",
        level,
        f"log Z from the particles downwards is {gap:+.2f} nats from that upwards{tail}.",
        value=gap,
        limits=BRACKET,
    )
    return gap
