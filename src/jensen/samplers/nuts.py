"""The No-U-Turn sampler with windows of adaptation: the reference sampler, and the ladder's last rung."""

import dataclasses
import math
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Float

from ..algorithms.budget import OutOfBudget
from ..algorithms.low_rank import LowRankGaussian
from ..algorithms.mixture import gaussians
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import Target
from ..compiled import key_for
from .chains import agreement, enough, initial_points, longest_run, stein_scores
from .metric import COLUMNS, fisher_metric
from .transport import LowRank
from .trees import Chain, Run, Trees, started

N_CHAINS = 8
PIECES = 2  # of each chain, taken for chains of their own where errors are judged
ACCEPT = 0.9
WINDOWS = 15, 25, 50, 100  # draws a chain, after each of which the metric is learned anew; then the step size alone
SETTLING = 50
LEAST = 100  # draws a chain
LEARNED_FROM = 512  # draws of the rung below, and their gradients
SLACK = 1.15  # times the standard errors at which chains of HMC stop
PATIENCE, AT_LEAST = 10, 1_000_000  # gradients: in those of all rungs below
GROWTH = 1.15  # in an effective number of draws, while the gradients double
SECONDS, FIRST = 0.5, 64  # a call; leapfrogs of the first
ENDED = {
    "patience": "The chains were ended after {:,} gradients, the default patience (ten times what came before, or a "
    "million), while they still got better: budget='seconds:600' lets them go on.",
    "stalled": "The second half of the chains' {:,} gradients made nothing better.",
}


@dataclasses.dataclass
class Walk:
    """Chains on their way: metric, state, and the draws of each that are kept."""

    metric: LowRankGaussian
    chains: Chain
    key: Any
    u: list[list[np.ndarray]]
    log_p: list[list[np.ndarray]]
    moved: list[list[np.ndarray]]
    diverged: int = 0
    accepted: float = 0.0
    n: int = 0  # transitions, of all chains
    stride: int = 1

    def keep(self, run: Run) -> None:
        rows = [np.arange(n) for n in run.n]
        for mine, found in ((self.u, run.u), (self.log_p, run.log_p), (self.moved, run.moved)):
            for chain, a, i in zip(mine, found, rows, strict=True):
                chain.append(a[i])
        inside = np.arange(run.u.shape[1]) < run.n[:, None]
        self.n += int(run.n.sum())
        self.diverged += int(run.diverged[inside].sum())
        self.accepted += float(run.accepted[inside].sum())

    @property
    def length(self) -> int:
        """Draws that each chain has at least."""
        return min(sum(len(a) for a in chain) for chain in self.u)

    def pieces(self, of: list[list[np.ndarray]], k: int) -> np.ndarray:
        """(T, k C, ...): as many draws of each chain, cut into k pieces that lie side by side."""
        size = self.length // k
        whole = [np.concatenate(chain)[: k * size] for chain in of]
        return np.stack([a[i * size : (i + 1) * size] for i in range(k) for a in whole], 1)


class NUTS(AbstractSolver):
    """The No-U-Turn sampler: 8 chains from the rung below, with a metric learned from draws and gradients.

    Definition: multinomial trees with the generalised U-turn criterion; the step size by dual averaging; the metric (a
                diagonal and a few directions, `samplers/metric.py`) from the rung below, then from the pooled draws of
                windows of 15, 25, 50 and 100 iterations, before 50 in which only the step size is adapted. Then it
                runs until the standard errors and R-hat suffice, or no longer get better.
    Cost:       without a budget at most ten times the gradients of all rungs below, or a million, whichever is more
                (a default patience, named by the verdict where it ends the chains); else what the budget leaves.
    Errors:     IncompatibleComposition for a density without derivatives.
    Reference:  Hoffman and Gelman (2014); Betancourt (2017), appendix A; Phan, Pradhan and Jankowiak (2019), for trees
                without recursion.  [hoffman2014nuts, betancourt2017conceptual]
    """

    name, starts_from = "nuts", "mixture"

    def __init__(self, n_chains: int = N_CHAINS, accept: float = ACCEPT, at_least: int = AT_LEAST):
        self.n_chains, self.accept, self.at_least = n_chains, accept, at_least

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start = start or gaussians(target, seed)
        if start.q is None:
            return start
        self.begun = target.budget.used
        self.patience = self.begun + max(PATIENCE * self.begun, self.at_least)
        trees = Trees(target)
        draws = earlier(target, start, seed)
        if len(draws) < 2:
            return dataclasses.replace(start, why="diverged")
        metric = learned(target, draws)
        at = draws[np.linspace(0, len(draws) - 1, self.n_chains).astype(int)]
        chains = started(metric.whiten(at), min(1.0, target.dim**-0.25))
        walk = Walk(metric, chains, key_for(seed, "nuts"), *([[] for _ in at] for _ in range(3)))
        self.warm(trees, walk)
        why, checks = self.collect(trees, walk)
        return self.result(target, start, walk, why, checks)

    # ---- on their way --------------------------------------------------------------------------------------------
    def step(self, trees: Trees, walk: Walk, adapting: bool) -> Run:
        """One call of the compiled program: about half a second. Raises: OutOfBudget where none is left for a leapfrog."""
        t = trees.target
        most = FIRST if trees.price is None else max(1, int(SECONDS / trees.price))
        room = t.budget.room((trees.price or t.pace.price) / self.n_chains) / self.n_chains
        if room < 1:
            raise OutOfBudget
        walk.key, key = jr.split(walk.key)
        columns = min(COLUMNS, t.dim)
        run = trees.run(LowRank.of(walk.metric, columns), walk.chains, key, self.accept, adapting, int(min(most, room)))
        walk.chains = run.chains
        return run

    def warm(self, trees: Trees, walk: Walk) -> None:
        """Raises: OutOfBudget; what it learned from is no draw of the posterior."""
        for window in (*WINDOWS, SETTLING):
            u, g, n = [], [], 0
            while n < window * self.n_chains:
                run = self.step(trees, walk, adapting=True)
                inside = np.arange(run.u.shape[1]) < run.n[:, None]
                u.append(run.u[inside])
                g.append(walk.metric.unpull(run.g[inside]))
                n += len(u[-1])
            here, dual = walk.metric.apply(np.asarray(walk.chains.draw.z)), walk.chains.dual
            log_step = float(np.mean(dual.mean))
            if window != SETTLING:
                walk.metric = fisher_metric(np.concatenate(u), np.concatenate(g))
            walk.chains = started(walk.metric.whiten(here), math.exp(log_step))

    def collect(self, trees: Trees, walk: Walk) -> tuple[str, dict[str, Any]]:
        """(how it ended, what is known of the chains)."""
        budget, looked, past = trees.target.budget, LEAST, []
        checks: dict[str, Any] = {}
        try:
            while True:
                walk.keep(self.step(trees, walk, adapting=False))
                impatient = not budget.finite and budget.used > self.patience
                if walk.length < 2 * PIECES:
                    continue
                if walk.length >= looked or impatient or budget.spent:
                    checks = self.checks(trees.target, walk)
                    looked = math.ceil(1.3 * walk.length)
                    if enough(checks, SLACK):
                        return "converged", checks
                    if budget.spent or impatient:
                        return "budget" if budget.spent else "patience", checks
                    past.append((budget.used, checks["se_mean"] ** -2, checks["se_sd"] ** -2, checks["rhat"] - 1))
                    if stalled(past):
                        return "stalled", checks
        except OutOfBudget:
            why = "budget"
        except KeyboardInterrupt:
            why = "interrupted"
        if walk.length < 2 * PIECES:
            raise OutOfBudget
        return why, self.checks(trees.target, walk)

    def checks(self, target: Target, walk: Walk) -> dict[str, Any]:
        runs = np.stack([np.concatenate(m)[: walk.length] for m in walk.moved], 1)
        return agreement(walk.pieces(walk.u, PIECES), target.names) | {
            "stuck": int(longest_run(~runs)), "accepted": walk.accepted / walk.n, "diverged": walk.diverged / walk.n,
            "iterations": len(runs),
        }  # fmt: skip

    def result(self, target: Target, start: Solution, walk: Walk, why: str, checks: dict[str, Any]) -> Solution:
        x, log_p = walk.pieces(walk.u, PIECES), walk.pieces(walk.log_p, PIECES).reshape(-1)
        checks = checks | stein_scores(target, x)
        findings = {**start.findings, "chains": checks, "shape": x.shape[:2]}
        if why in ENDED:
            findings["notes"] = [(1, ENDED[why].format(target.budget.used - self.begun))]
        return Solution(
            start.q,
            why,
            x.reshape(-1, target.dim),
            log_p,
            corrected="chains",
            evidence=start.evidence,
            findings=findings,
        )


def earlier(target: Target, start: Solution, seed: int) -> Float[np.ndarray, "n D"]:
    """Draws from which to start and to learn: those of earlier chains, later halves, else of q, by their weights."""
    if start.corrected != "chains" or start.draws is None:
        return initial_points(target, start.q, min(LEARNED_FROM, 16 * N_CHAINS), seed)
    x = np.asarray(start.draws, np.float64).reshape(*start.findings["shape"], target.dim)
    flat = x[len(x) // 2 :].reshape(-1, target.dim)
    rng = np.random.default_rng([seed, 9])
    return flat[rng.choice(len(flat), min(LEARNED_FROM, len(flat)), replace=False)]


def learned(target: Target, draws: Float[np.ndarray, "n D"]) -> LowRankGaussian:
    value, g = target(draws)
    inside = np.isfinite(value)
    return fisher_metric(draws[inside], g[inside])


def stalled(past: list[tuple[int, float, float, float]]) -> bool:
    """Is nothing better than when half of the gradients were spent? past: (gradients, two effective numbers, R-hat - 1)."""
    used, *worth, rhat = past[-1]
    before = [p for p in past if p[0] <= used / 2]
    if not before:
        return False
    return rhat > before[-1][3] / GROWTH and all(
        w < GROWTH * old for w, old in zip(worth, before[-1][1:3], strict=True)
    )
