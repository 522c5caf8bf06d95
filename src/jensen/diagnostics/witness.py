"""A witness: annealed particles from far out that look for mass where q has none."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from ..algorithms.budget import OutOfBudget
from ..algorithms.importance import Weighted
from ..algorithms.solver import Solution
from ..algorithms.target import BLOCK, Target

TEMPERATURES = np.concatenate([np.geomspace(0.02, 1.0, 16), np.ones(8)])
LEAPFROGS = 6
PATIENCE = 6
FEWEST = 8  # particles, where evaluations are dear: then they take every other temperature
MANY = 0.15
SURPRISE = 4.0  # nats by which log p - log q at a particle may exceed the largest importance log-weight


@dataclasses.dataclass
class Testimony:
    """Where the particles ended, the ones q does not account for first.

    surprise: largest excess, in nats, of log p - log q over what importance sampling saw.   n: particles that surprise.
    leads: those that exceed what all but a few of its draws saw: starts for another search.
    holds, moment: mass that lies where they ended, and beyond, and that the draws miss; what that adds to the second moment of
    a coordinate, in variances. None where that is not known (`suspects.py`).
    """

    u: Float[np.ndarray, "n D"]
    surprise: float
    n: int
    excess: Float[np.ndarray, " n"]
    leads: Float[np.ndarray, "m D"]
    holds: float | None = None
    moment: float | None = None


def call_witness(
    target: Target,
    q: Any,
    proposal: Any,
    largest_weight: float,
    floor: float,
    seed: int,
    n_blocks: float = 1,
    usual_weight: float | None = None,
) -> Testimony | None:
    """Runs the particles and compares log p - log q where they end with the largest log-weight seen.

    q: a Gaussian (its moments set the scale).   proposal: what importance sampling drew from.   floor: the least log p
    among the posterior's draws; below it a few particles are stragglers, unless they are many (a wide, shallow mode).
    Cost:   150 gradients a particle, 64 particles a block: as many blocks as the budget pays for. Of less than a block half
            as many gradients, and at least 8 particles.
    Returns: None where it does not pay for one, or ends before they have come home.
    """
    temperatures = TEMPERATURES if n_blocks >= 1 else TEMPERATURES[::2]
    size = BLOCK if n_blocks >= 1 else max(int(n_blocks * BLOCK), FEWEST)
    cost, wanted = size * (1 + LEAPFROGS * len(temperatures)), int(max(n_blocks, 1))
    n = size * (target.affordable(wanted * cost, least=0) // cost)
    if n == 0:
        return None
    try:
        return _heard(target, q, proposal, largest_weight, floor, seed, n, usual_weight, temperatures)
    except OutOfBudget:
        return None


def spared(dim: int) -> Testimony:
    """That of a witness who was not called, because there was no doubt to settle."""
    return Testimony(np.zeros((0, dim)), -np.inf, 0, np.zeros(0), np.zeros((0, dim)))


def _heard(target, q, proposal, largest_weight, floor, seed, n, usual_weight, temperatures) -> Testimony:
    rng, d = np.random.default_rng([seed, 21]), target.dim
    u = np.concatenate([
        q.apply(rng.standard_normal((n // 2, d)) * 10.0 ** rng.uniform(0.3, 1.2, (n // 2, 1))),
        q.mean + rng.uniform(-2, 2, (n // 4, d)) * 5.0 ** rng.uniform(0, 1, (n // 4, 1)),
        rng.standard_normal((n - n // 2 - n // 4, d)) * 10.0 ** rng.uniform(-0.5, 1.0, (n - n // 2 - n // 4, 1)),
    ])  # fmt: skip
    u, value = _anneal(target, q, u, rng, temperatures)
    excess = _excess(u, value, proposal, largest_weight)
    for _ in range(PATIENCE):  # those still on their way are given time to come home
        late = np.nonzero(excess > SURPRISE)[0]
        if not len(late) or target.budget.spent:
            break
        index = np.resize(late, min(BLOCK, n)) if n >= BLOCK else late
        there, new = _anneal(target, q, u[index], rng, np.ones(len(TEMPERATURES)))
        n_late = min(len(late), BLOCK)
        u[late[:n_late]], value[late[:n_late]] = there[:n_late], new[:n_late]
        excess = _excess(u, value, proposal, largest_weight)
    if (excess > SURPRISE).mean() < MANY:
        excess = np.where(value < floor, -np.inf, excess)
    order = np.argsort(-excess)
    usual = largest_weight if usual_weight is None else min(usual_weight, largest_weight)
    leads = u[order][excess[order] > SURPRISE - (largest_weight - usual)]
    return Testimony(u[order], float(excess.max()), int((excess > SURPRISE).sum()), excess[order], leads)


def _excess(u: np.ndarray, value: np.ndarray, proposal: Any, largest: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        out = value - proposal.log_prob(u) - largest
    return np.where(np.isfinite(out), out, -np.inf)


def _anneal(target: Target, q: Any, u: np.ndarray, rng: np.random.Generator, temperatures: np.ndarray):
    """Hamiltonian moves in q's whitened coordinates on p^t; every particle has a step of its own: (u, log p)."""
    n = len(u)
    value, g = target(u)
    z, g = q.whiten(u), q.pull(g)
    step = np.full(n, 0.3)
    for t in temperatures:
        if target.budget.spent:
            break
        p = rng.standard_normal(z.shape)
        energy = -t * value + 0.5 * (p**2).sum(1)
        new, new_g, momentum = z, g, p
        for _ in range(LEAPFROGS):
            momentum = momentum + 0.5 * step[:, None] * t * new_g
            new = new + step[:, None] * momentum
            new_value, raw = target(q.apply(new))
            new_g = q.pull(raw)
            momentum = momentum + 0.5 * step[:, None] * t * new_g
        with np.errstate(over="ignore", invalid="ignore"):
            change = energy + t * new_value - 0.5 * (momentum**2).sum(1)
        accept = np.log(rng.random(n)) < np.where(np.isnan(change), -np.inf, change)
        z, g = np.where(accept[:, None], new, z), np.where(accept[:, None], new_g, g)
        value = np.where(accept, new_value, value)
        step = np.clip(step * np.where(accept, 1.15, 0.5), 1e-4, 2.0)
    return q.apply(z), value


def least(solution: Solution, weighed: Weighted) -> float:
    """About the least log p of the posterior's draws."""
    if solution.corrected == "chains" and solution.log_p is not None:
        return float(np.min(solution.log_p))
    order = np.argsort(weighed.log_p)
    mass = np.cumsum(weighed.weights[order])
    return float(weighed.log_p[order][np.searchsorted(mass, 1e-3)]) if np.isfinite(mass[-1]) else -np.inf
