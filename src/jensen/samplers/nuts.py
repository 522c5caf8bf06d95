"""The No-U-Turn sampler with windows of adaptation: the reference sampler, and the ladder's last rung."""

import dataclasses
import math
from typing import Any, ClassVar

import jax.random as jr
import numpy as np
from jaxtyping import Float

from ..algorithms.budget import OutOfBudget
from ..algorithms.low_rank import LowRankGaussian
from ..algorithms.mixture import ModeMixture, gaussians
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import Target
from ..compiled import key_for
from .chains import DRAWN_ON, KEPT, agreement, enough, initial_points, longest_run, settled, stein_scores
from .metric import COLUMNS, fisher_metric
from .transport import LowRank
from .trees import Chain, Run, Trees, started

N_CHAINS = 8
PIECES = 2  # of each chain, taken for chains of their own where errors are judged
ACCEPT, MOST_ACCEPT = 0.9, 0.98  # of the proposals: half of the rest is won where more than a few of them diverge
DIVERGENT = 0.005
WINDOWS = 15, 25, 50, 100  # draws a chain, after each of which the metric is learned anew; then the step size alone
SETTLING = 50
LEAST, FEWEST = 100, 4 * PIECES  # draws a chain: before errors are looked at, and to be judged at all
LEARNED_FROM = 512  # draws of the rung below, and their gradients
SLACK = 1.15  # times the standard errors at which chains of HMC stop
PATIENCE, AT_LEAST = 10, 500_000  # gradients: in those of all rungs below
GROWTH = 1.15  # in an effective number of draws, while the gradients double
SECONDS, FIRST = 0.5, 64  # a call; leapfrogs of the first
ENDED = {
    "patience": "The chains were ended after {:,} gradients, the default patience (ten times what came before, or half "
    "a million, fewer where a gradient is dear), while they still got better: budget='seconds:600' lets them go on.",
    "stalled": "The second half of the chains' {:,} gradients made nothing better.",
}


@dataclasses.dataclass
class Walk:
    """Chains on their way: metric, state, and of each chain the draws that are kept (every `stride`-th) and its moves."""

    metric: LowRankGaussian
    chains: Chain
    key: Any
    u: list[np.ndarray]
    log_p: list[np.ndarray]
    moved: list[np.ndarray]
    wanted: float  # acceptance
    diverged: int = 0
    accepted: float = 0.0
    stride: int = 1

    @classmethod
    def begun(cls, metric: LowRankGaussian, at: Float[np.ndarray, "C D"], wanted: float, key: Any) -> "Walk":
        """Nothing is kept yet."""
        none = [[np.zeros((0, *s)) for _ in at] for s in ((at.shape[1],), (), ())]
        chains = started(metric.whiten(at), min(1.0, at.shape[1] ** -0.25))
        return cls(metric, chains, key, none[0], none[1], [m.astype(bool) for m in none[2]], wanted)

    def keep(self, run: Run) -> None:
        for c, n in enumerate(run.n):
            rows = np.arange(n)[(len(self.moved[c]) + np.arange(n)) % self.stride == 0]
            self.u[c] = np.concatenate([self.u[c], run.u[c, rows]])
            self.log_p[c] = np.concatenate([self.log_p[c], run.log_p[c, rows]])
            self.moved[c] = np.concatenate([self.moved[c], run.moved[c, :n]])
            self.diverged += int(run.diverged[c, :n].sum())
            self.accepted += float(run.accepted[c, :n].sum())
        if sum(u.size for u in self.u) > KEPT:
            self.stride *= 2
            self.u, self.log_p = [u[::2].copy() for u in self.u], [v[::2].copy() for v in self.log_p]

    @property
    def iterations(self) -> int:
        """That each chain has at least."""
        return min(len(m) for m in self.moved)

    def pieces(self, of: list[np.ndarray]) -> np.ndarray:
        """(T, PIECES C, ...): as many draws of each chain, cut into pieces that lie side by side."""
        size = min(len(a) for a in of) // PIECES
        return np.stack([a[i * size : (i + 1) * size] for i in range(PIECES) for a in of], 1)


@dataclasses.dataclass
class NUTS(AbstractSolver):
    """The No-U-Turn sampler: 8 chains from the rung below, with a metric learned from draws and gradients.

    Definition: multinomial trees with the generalised U-turn criterion; the step size by dual averaging, the smallest of
                all chains', for more acceptance where proposals diverge; the metric (a diagonal and a few directions,
                `samplers/metric.py`) from the rung below, then from the pooled draws of windows of 15, 25, 50 and 100
                iterations, before 50 in which only the step size is adapted. Then it runs until the standard errors
                and R-hat suffice, or no longer get better.
    Cost:       without a budget at most ten times the gradients of all rungs below, or half a million (fewer where they
                are dear), whichever is more (a default patience, named by the verdict where it ends the chains); else
                what the budget leaves.
    Errors:     IncompatibleComposition for a density without derivatives.
    Reference:  Hoffman and Gelman (2014); Betancourt (2017), appendix A; Phan, Pradhan and Jankowiak (2019), for trees
                without recursion.  [hoffman2014nuts, betancourt2017conceptual]
    """

    n_chains: int = N_CHAINS
    accept: float = ACCEPT
    at_least: int = AT_LEAST
    name: ClassVar = "nuts"
    starts_from: ClassVar = ModeMixture
    about: ClassVar = (
        "The No-U-Turn sampler: chains side by side, each path as long as it pays, in coordinates learned from "
        "draws and slopes, run until they agree."
    )

    def may_take(self, target: Target) -> int:
        """The default patience."""
        return max(PATIENCE * target.budget.used, target.fewer(self.at_least))

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start = start or gaussians(target, seed)
        if start.q is None:
            return start
        self.begun = target.budget.used
        self.patience = self.begun + self.may_take(target)
        trees = Trees(target)
        draws = earlier(target, start, seed)
        metric = learned(target, draws)
        if metric is None:
            return dataclasses.replace(start, why="diverged")
        at = draws[np.linspace(0, len(draws) - 1, self.n_chains).astype(int)]
        walk = Walk.begun(metric, at, self.accept, key_for(seed, "nuts"))
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
        run = trees.run(LowRank.of(walk.metric, columns), walk.chains, key, walk.wanted, adapting, int(min(most, room)))
        walk.chains = run.chains
        return run

    def warm(self, trees: Trees, walk: Walk) -> None:
        """Raises: OutOfBudget; what it learned from is no draw of the posterior."""
        for window in (*WINDOWS, SETTLING):
            u, g, n, diverged = [], [], 0, 0
            while n < window * self.n_chains:
                run = self.step(trees, walk, adapting=True)
                inside = np.arange(run.u.shape[1]) < run.n[:, None]
                u.append(run.u[inside])
                g.append(walk.metric.unpull(run.g[inside]))
                n, diverged = n + len(u[-1]), diverged + int(run.diverged[inside].sum())
            here, dual = walk.metric.apply(np.asarray(walk.chains.draw.z)), walk.chains.dual
            log_step = float(np.min(dual.mean))  # a chain in a narrow place would stay there with longer ones
            if window in WINDOWS[2:] and diverged > DIVERGENT * n:
                walk.wanted = min(1 - 0.5 * (1 - walk.wanted), MOST_ACCEPT)
            if window != SETTLING:
                walk.metric = fisher_metric(np.concatenate(u), np.concatenate(g))
            walk.chains = started(walk.metric.whiten(here), math.exp(log_step))

    def collect(self, trees: Trees, walk: Walk) -> tuple[str, dict[str, Any]]:
        """(how it ended, what is known of the chains)."""
        budget, looked, sufficed, past = trees.target.budget, LEAST, 0, []
        try:
            while True:
                walk.keep(self.step(trees, walk, adapting=False))
                impatient = not budget.finite and budget.used > self.patience
                if walk.iterations < FEWEST:
                    continue
                if walk.iterations >= looked or impatient or budget.spent:
                    checks = self.checks(trees.target, walk)
                    looked = math.ceil(1.3 * walk.iterations)
                    if enough(checks, trees.target, SLACK):
                        sufficed = sufficed or walk.iterations
                        if walk.iterations >= DRAWN_ON * sufficed or settled(trees.target, walk.pieces(walk.u)):
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
        if walk.iterations < FEWEST:
            raise OutOfBudget
        return why, self.checks(trees.target, walk)

    def checks(self, target: Target, walk: Walk) -> dict[str, Any]:
        moved, n = np.stack([m[: walk.iterations] for m in walk.moved], 1), sum(len(m) for m in walk.moved)
        return agreement(walk.pieces(walk.u), target.names) | {
            "stuck": int(longest_run(~moved)), "accepted": walk.accepted / n, "diverged": walk.diverged / n,
            "iterations": len(moved),
        }  # fmt: skip

    def result(self, target: Target, start: Solution, walk: Walk, why: str, checks: dict[str, Any]) -> Solution:
        x, log_p = walk.pieces(walk.u), walk.pieces(walk.log_p).reshape(-1)
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


def learned(target: Target, draws: Float[np.ndarray, "n D"]) -> LowRankGaussian | None:
    """The metric of these draws; None where fewer than two are in the support."""
    value, g = target(draws)
    inside = np.isfinite(value)
    return None if inside.sum() < 2 else fisher_metric(draws[inside], g[inside])


def stalled(past: list[tuple[int, float, float, float]]) -> bool:
    """Is nothing better than when half of the gradients were spent? past: (gradients, two effective numbers, R-hat - 1)."""
    used, *worth, rhat = past[-1]
    before = [p for p in past if p[0] <= used / 2]
    if not before:
        return False
    return rhat > before[-1][3] / GROWTH and all(
        w < GROWTH * old for w, old in zip(worth, before[-1][1:3], strict=True)
    )
