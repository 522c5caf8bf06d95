"""Chains in each mode, and what each mode holds by bridge sampling: for modes that no chain moves between."""

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from ..algorithms.gaussian import Gaussian, Mixture, StudentT, defensive, safe_cholesky
from ..algorithms.importance import evaluated, n_weighed
from ..algorithms.mixture import ModeMixture, gaussians
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import Target
from ..diagnostics.evidence import bridge
from .chains import HMC, enough

N_CHAINS = 32
MOST_CELLS = 16
HEAVY = 1e-3  # weight of a component that gets chains
LEFT_OUT = 0.01  # weight of those that get none, all together, above which this is not tried
ENOUGH = 0.02  # share of a mode's draws that must have stayed in its cell
N_DRAWS = 16_384
TAILS = 5.0  # degrees of freedom


@dataclasses.dataclass
class Cell:
    """One mode's part of space: draws of p there, what it holds, and how the chains did."""

    u: Float[np.ndarray, "n D"]
    log_p: Float[np.ndarray, " n"]
    gaussian: Gaussian
    log_z: float
    se: float
    checks: dict[str, Any]


@dataclasses.dataclass
class BridgedModes(AbstractSolver):
    """Hamiltonian chains in each mode of a mixture; the masses of the modes by bridge sampling.

    Definition: space is cut into cells, c(u) = argmax_k log w_k t(u; m_k, S_k), so that p = sum_k p 1[c = k] exactly.
                Chains that start in component k give draws of p in cell k; a Gaussian with heavy tails is fitted to
                them, and the optimal bridge between the two gives Z_k = integral of p over the cell. Draws count as
                Z_k / sum Z. Chains that cross over do no harm: what they find elsewhere is left to the others. q becomes
                the mixture of the Gaussians fitted to the cells' draws.
    Cost:       that of 32 chains, and 8,192 evaluations, a mode; up to 16 modes.
    Reference:  Meng and Wong (1996); Gronau et al. (2017) for the bridge.  [meng1996bridge, gronau2017bridge]
    """

    n_chains: int = N_CHAINS
    name: ClassVar = "bridged-modes"
    starts_from: ClassVar = ModeMixture
    about: ClassVar = (
        "Chains of Hamiltonian Monte Carlo in each mode by itself; how much each mode holds by bridge sampling, "
        "since no chain moves between them."
    )

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start = start or gaussians(target, seed)
        q = start.q
        if not isinstance(q, Mixture):
            return start
        order = np.argsort(-q.weights)[:MOST_CELLS]
        kept = [q.components[k] for k in order if q.weights[k] > HEAVY]
        weights = np.sort(q.weights)[::-1][: len(kept)]
        if 1 - weights.sum() > LEFT_OUT or not all(isinstance(g, Gaussian) for g in kept):
            return start
        cut = Mixture(tuple(StudentT(g, TAILS) for g in kept), weights / weights.sum())
        cells = []
        for k, gaussian in enumerate(kept):
            cell = self._cell(target, gaussian, cut, k, seed)
            if cell is None:
                return dataclasses.replace(start, why="budget" if target.budget.spent else "stalled")
            cells.append(cell)
        return _joined(target, start, cells, np.random.default_rng([seed, 51]))

    def _cell(self, target: Target, gaussian: Gaussian, cut: Mixture, k: int, seed: int) -> Cell | None:
        """None where the chains did not stay."""
        found = HMC(n_chains=self.n_chains).solve(target, Solution(gaussian), seed + k)
        if found.draws is None or found.log_p is None:
            return None
        inside = cell_of(cut, found.draws) == k
        u, log_p = found.draws[inside], found.log_p[inside]
        if len(u) < max(ENOUGH * len(inside), 10 * target.dim):
            return None
        spread = np.atleast_2d(np.cov(u.T))
        refitted = Gaussian(u.mean(0), safe_cholesky(spread + 1e-12 * np.diag(np.diag(spread))))
        proposal = defensive(refitted)
        new = proposal.sample(np.random.default_rng([seed, 50, k]), n_weighed(target))
        value, new = evaluated(target, new)
        value = np.where(cell_of(cut, new) == k, value, -np.inf)
        checks = dict(found.findings["chains"])
        ess = inside.mean() / checks["se_mean"] ** 2
        log_z, se = bridge(value, proposal.log_prob(new), log_p, proposal.log_prob(u), ess=ess)
        return Cell(u, log_p, refitted, log_z, se, checks) if math.isfinite(log_z) else None


def cell_of(cut: Mixture, u: Float[np.ndarray, "n D"]) -> np.ndarray:
    """The number of the cell of each point."""
    return np.argmax([np.log(w) + t.log_prob(u) for w, t in zip(cut.weights, cut.components, strict=True)], 0)


def _joined(target: Target, start: Solution, cells: list[Cell], rng: np.random.Generator) -> Solution:
    log_z, se = np.array([c.log_z for c in cells]), np.array([c.se for c in cells])
    total = float(np.logaddexp.reduce(log_z))
    share = np.exp(log_z - total)
    counts = np.maximum(np.round(share * N_DRAWS).astype(int), 1)
    index = [rng.choice(len(c.u), n, replace=n > len(c.u)) for c, n in zip(cells, counts, strict=True)]
    order = rng.permutation(counts.sum())
    u = np.concatenate([c.u[i] for c, i in zip(cells, index, strict=True)])[order]
    log_p = np.concatenate([c.log_p[i] for c, i in zip(cells, index, strict=True)])[order]
    evidence = total, float(np.sqrt(((share * se) ** 2).sum()))
    checks = _checks(cells, share, se)
    why = "converged" if all(enough(c.checks, target) for c in cells) else "stalled"
    findings = {**start.findings, "chains": checks, "shape": (1, len(u))}
    q = Mixture(tuple(c.gaussian for c in cells), share)
    return Solution(q, why, u, log_p, corrected="chains", evidence=evidence, findings=findings)


def _checks(cells: list[Cell], share: np.ndarray, se: np.ndarray) -> dict[str, Any]:
    """What `chains.convergence` tells, of the worst cell that matters; the errors of means and sds with those of the shares.

    A mean is sum_k s_k m_k: its variance is sum_k s_k^2 (v_k + se_k^2 (m_k - m)^2), v_k that within a cell.
    """
    mean = np.array([c.u.mean(0) for c in cells])
    variance = np.array([c.u.var(0) for c in cells])
    whole = share @ mean
    away = (mean - whole) ** 2
    sd2 = share @ (variance + away)
    weigh = (share**2)[:, None]
    within = np.array([c.checks["se_mean"] for c in cells])[:, None] ** 2 * variance
    se_mean = np.sqrt((weigh * (within + se[:, None] ** 2 * away)).sum(0) / sd2)
    second = 4 * np.array([c.checks["se_sd"] for c in cells])[:, None] ** 2 * variance**2 + 4 * within * away
    excess = (variance + away - sd2) ** 2
    se_sd = 0.5 * np.sqrt((weigh * (second + se[:, None] ** 2 * excess)).sum(0)) / sd2
    large = [c.checks for c, s in zip(cells, share, strict=True) if s > LEFT_OUT] or [cells[0].checks]
    worst = {
        key: max((c[key], c.get(f"{key}_worst", "")) for c in large) for key in ("rhat", "halves", "stein", "stuck")
    }
    names = {f"{key}_worst": name for key, (_, name) in worst.items() if name}
    return {key: value for key, (value, _) in worst.items()} | names | {
        "se_mean": float(se_mean.max()), "se_sd": float(se_sd.max()),
        "se_mean_worst": large[0]["se_mean_worst"], "se_sd_worst": large[0]["se_sd_worst"],
        "diverged": float(sum(s * c.checks["diverged"] for c, s in zip(cells, share, strict=True))),
        "stein_by_chance": max(c.get("stein_by_chance", 0.0) for c in large),
        "iterations": min(c["iterations"] for c in large), "accepted": float(np.mean([c["accepted"] for c in large])),
        "islands": len(cells), "shares": share.tolist(), "shares_se": (share * se).tolist(),
    }  # fmt: skip
