"""Rungs must agree: where the draws of others have been, and this one's have not."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..algorithms.importance import Weighted
from ..algorithms.solver import Solution
from ..algorithms.target import Target

TAILS = (0.01, 0.05, 0.2)  # of the draws that are judged: what lies beyond these quantiles, on either side
MATTERS = 0.1  # of a second moment that may be missing beyond one of them: a twentieth of an sd
SURE = 4.0  # standard errors
FARTHEST = 5.0  # sd at which a draw is counted: one far out decides nothing
MOST = 16_384  # draws of chains that are looked at
TOGETHER = 1.05  # R-hat up to which chains are worth their effective number


class Draws(NamedTuple):
    """Draws of Q quantities and the share of the mass that each stands for.

    weights: 1 / n of chains; p / (n q Z) of a proposal, not normalised: what it does not reach is no part of the others.
    worth:   effective number of draws.   chains: how many these are, side by side; 1 of draws that are independent.
    """

    name: str
    x: Float[np.ndarray, "n Q"]
    weights: Float[np.ndarray, " n"]
    worth: float
    chains: int = 1


class Missing(NamedTuple):
    """The mass beyond a point that one rung found and another did not."""

    rung: str
    quantity: str
    below: bool
    point: float
    found: float
    held: float

    def __str__(self) -> str:
        where = f"{self.quantity} {'below' if self.below else 'above'} {self.point:.3g}"
        return (
            f"{self.held:.1%} of its draws have {where}, where {self.rung!r} found {self.found:.1%} of the mass: it does not "
            "enter a region that an earlier rung has reached."
        )


def draws_of(
    name: str, solution: Solution, home: Weighted, evidence: float, target: Target, witness: bool = True
) -> list[Draws]:
    """What a rung has drawn: by its weights, at this evidence; and its chains. As a witness all there is, where it can be
    trusted; else what is the result."""
    found = []
    of = lambda u: np.concatenate([u] if target.reported.identity else [u, target.reported(u)], 1)
    if witness or solution.corrected != "chains":
        with np.errstate(invalid="ignore"):
            w = np.exp(home.log_p - home.log_q - evidence) / max(len(home.u), 1)
        w = np.where(np.isfinite(w), w, 0.0)
        found.append(Draws(name, of(home.u), w, home.ess * len(home.u)))
    if solution.corrected == "chains" and solution.draws is not None:
        checks, u, c = solution.findings["chains"], np.asarray(solution.draws), chains_of(solution)
        u = u.reshape(-1, c, u.shape[1])[:: max(1, -(-len(u) // MOST))].reshape(-1, u.shape[1])
        if not witness or checks["rhat"] < TOGETHER:
            found.append(Draws(name, of(u), np.full(len(u), 1 / len(u)), min(checks["se_mean"] ** -2, 4.0 * len(u)), c))
    return found


def chains_of(solution: Solution) -> int:
    """How many chains the draws are of, side by side; 1 where they are none, or resampled."""
    if "islands" in solution.findings["chains"] or "shape" not in solution.findings:
        return 1
    return int(solution.findings["shape"][1])


def disagreement(
    solution: Solution, home: Weighted, tried: list[tuple[str, Solution, Weighted]], target: Target
) -> list[tuple[int, str]]:
    """For a verdict: what rungs that were tried before (name, solution, weights) found, and this one does not account for. Of
    a q that weights hardly move nothing is asked."""
    if solution.corrected == "none" or not tried:
        return []
    evidence = max(w.evidence[0] for w in (home, *(w for _, _, w in tried)))
    told = [d for name, s, w in tried for d in draws_of(name, s, w, evidence, target)]
    own = draws_of("", solution, home, evidence, target, witness=False)[0]
    missing = unaccounted(own, told, [*target.names, *target.reported.names])
    return [] if missing is None else [(1, str(missing))]


def unaccounted(judged: Draws, others: list[Draws], names: list[str]) -> Missing | None:
    """The worst of the tails in which `others` found more than `judged` has; None where it accounts for all of them.

    Definition: E[z^2; beyond a quantile] of the others less its own, z standardised: more than an sd may be off, and more than
                the standard errors explain. One-sided: what others have not found says nothing.
    """
    w = judged.weights / judged.weights.sum()
    mean = w @ judged.x
    sd = np.sqrt(w @ (judged.x - mean) ** 2)
    unit = np.where(sd > 0, sd, np.inf)
    z = (judged.x - mean) / unit
    order = np.argsort(z, axis=0)
    mass = np.cumsum(w[order], axis=0)
    worst, found = 0.0, None
    for share, side in ((t, s) for t in TAILS for s in (-1.0, 1.0)):
        at = (mass >= (share if side < 0 else 1 - share)).argmax(0)
        point = np.take_along_axis(z, np.take_along_axis(order, at[None], 0), 0)[0]
        own, own_error, held = _tail(w, z, side * z > side * point, judged.worth, judged.chains)
        for other in others:
            ok = np.isfinite(other.x).all(1) & (other.weights > 0)
            y, weights = (np.where(ok[:, None], other.x, mean) - mean) / unit, np.where(ok, other.weights, 0.0)
            more, error, its = _tail(weights, y, side * y > side * point, other.worth, other.chains)
            least = 0.2 * FARTHEST**2 / judged.worth  # where none of its draws is, an error by none
            excess = (more - own) / np.sqrt(error**2 + own_error**2 + least * np.maximum(own, more))
            excess = np.where((more - own > MATTERS) & (sd > 0), excess, 0.0)
            j = int(np.argmax(excess))
            if excess[j] > max(worst, SURE):
                worst, where = float(excess[j]), float(mean[j] + sd[j] * point[j])
                found = Missing(other.name, names[j], side < 0, where, float(its[j]), float(held[j]))
    return found


def _tail(
    w: np.ndarray, z: np.ndarray, beyond: np.ndarray, worth: float, chains: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(second moment of what lies beyond, its standard error, its mass): the largest of three errors, the last between
    chains, of which one may have stayed where the others were not."""
    f = np.minimum(z**2, FARTHEST**2) * beyond
    value = w @ f
    errors = w**2 @ f**2, (w @ f**2) / max(worth, 1.0)
    if chains > 1:
        each = f.reshape(-1, chains, f.shape[1]).mean(0) * w.sum()
        errors += (each.var(0, ddof=1) / chains,)
    return value, np.sqrt(np.maximum.reduce(errors)), w @ beyond
