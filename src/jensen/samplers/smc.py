"""Annealed sequential Monte Carlo: many particles from a wide q to the posterior, through a row of temperatures."""

import dataclasses
import math
from typing import Any, ClassVar

import jax.random as jr
import numpy as np
from jaxtyping import Float

from ..algorithms.gaussian import Gaussian, Mixture
from ..algorithms.mixture import ModeMixture, gaussians
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import BLOCK, Target
from ..compiled import key_for
from .chains import leapfrogs, pooled_gaussian, stein_scores
from .islands import beside, drawn, evidence_of, island_checks, remembered
from .kernel import SEGMENT, Sampler, Segment, needs_derivatives
from .tempered import mean_root, on_path, set_temperature, widened
from .transport import Affine

KEPT_ESS = 0.9  # conditional effective sample size of a step in temperature, as a share of the particles
RESAMPLE = 0.5  # share of effective particles in an island below which it is resampled
ACCEPT = 0.7
TRAJECTORY, MAX_LEAPFROG = 1.6, 16
MOVES = 4  # iterations at each temperature
LEAST_FINAL, MOST_FINAL = 4, 32  # segments at the posterior; the first is for the step size
FORGOTTEN = 1.1  # R-hat of particles as chains
LONG, MOST_LEAPFROG = 2.2, 64  # trajectories there
ISLANDS = 8
MOST_STEPS = 500


@dataclasses.dataclass
class Swarm:
    """Islands of particles at temperature t, and what is known there.

    energy: log p - log g, what one unit of temperature adds to the log weight.   log_weights: (I, n), each island's
    normalised.   log_z: (I,), of each island.   metric: its root whitens the moves.
    memory: R-hat of particles that do not forget where they began; 0 if they do.
    """

    u: Float[np.ndarray, "I n D"]
    energy: Float[np.ndarray, "I n"]
    log_weights: Float[np.ndarray, "I n"]
    log_z: Float[np.ndarray, " I"]
    metric: Gaussian
    t: float = 0.0
    step: float = 0.4
    temperatures: int = 0
    memory: float = 0.0


@dataclasses.dataclass
class AnnealedSMC(AbstractSolver):
    """Annealed sequential Monte Carlo (SMC) from a wide mixture of Gaussians to the posterior, with evidence.

    Definition: densities g^(1 - t) p^t, g being q with wider components; t rises so that each step keeps a conditional
                effective sample size of 90 %; Hamiltonian moves at each t; systematic resampling. Particles live on
                `n_islands` islands that never mix: the spread of their estimates gives standard errors. Masses of
                separate modes come out right if q covers all of them.
    Cost:       about 20 gradients a particle and a temperature; temperatures: 5 to 50.
    Reference:  Del Moral, Doucet and Jasra (2006); Zhou, Johansen and Aston (2016) for the steps; Buchholz, Chopin and
                Jacob (2021) for the moves.  [delmoral2006smc]
    """

    n_particles: int = 1024
    n_islands: int = ISLANDS
    kept_ess: float = KEPT_ESS
    name: ClassVar = "smc"
    starts_from: ClassVar = ModeMixture
    about: ClassVar = (
        "Sequential Monte Carlo: particles moved from a wide start to the posterior through ever colder densities."
    )

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        needs_derivatives(target, self.name)
        start = start or gaussians(target, seed)
        if start.q is None:
            return start
        base, rng, key = widened(start.q, seed), np.random.default_rng([seed, 41]), key_for(seed, "smc")
        view = on_path(target, base)
        sampler, swarm = Sampler(view, "hmc"), self.begun(target, base, rng)
        while swarm.t < 1 and swarm.temperatures < MOST_STEPS and not target.budget.spent:
            reweigh(swarm, self.kept_ess)
            if not np.isfinite(swarm.log_z).any():
                return dataclasses.replace(start, why="diverged")
            resample(swarm, rng, RESAMPLE)
            if len(base.components) == 1:
                swarm.metric = weighted_gaussian(swarm)
            set_temperature(view, swarm.t)
            key, sub = jr.split(key)
            self.move(sampler, target, base, swarm, sub, rng)
        if swarm.t < 1:
            return dataclasses.replace(start, why="budget" if target.budget.spent else "stalled")
        resample(swarm, rng, math.inf)
        kept, why = self.settle(sampler, swarm, base, key, rng)
        target.evaluations += view.evaluations
        return dataclasses.replace(finished(target, start, swarm, kept, rng), why=why)

    def begun(self, target: Target, base: Mixture, rng: np.random.Generator) -> Swarm:
        per_island = max(BLOCK, self.n_particles // self.n_islands // BLOCK * BLOCK)
        islands = max(2, min(self.n_islands, self.n_particles // per_island))
        shape = islands, per_island
        u = np.concatenate([base.sample(rng, per_island) for _ in range(islands)])
        energy = (target.value(u) - base.log_prob(u)).reshape(shape)
        even = np.full(shape, -math.log(per_island))
        roots = [q.root for q in base.components]  # the width of one component: what a move crosses
        root = roots[0] if len(roots) == 1 else mean_root(base)
        return Swarm(u.reshape(*shape, -1), energy, even, np.zeros(islands), Gaussian(base.components[0].mean, root))

    def move(self, sampler: Sampler, target: Target, base: Mixture, swarm: Swarm, key: Any, rng) -> None:
        """Hamiltonian moves at the current temperature, and the step size for the next."""
        n = np.zeros(SEGMENT, int)
        n[:MOVES] = leapfrogs(rng, swarm.step, MOVES, TRAJECTORY, MAX_LEAPFROG)
        parts = run_blocks(sampler, swarm, key, n, rng)
        swarm.u = np.concatenate([p.u[-1] for p in parts]).reshape(swarm.u.shape)
        flat = swarm.u.reshape(-1, target.dim)
        swarm.energy = (target.value(flat) - base.log_prob(flat)).reshape(swarm.energy.shape)
        swarm.step = adapted(swarm.step, parts, MOVES)

    def settle(self, sampler: Sampler, swarm: Swarm, base: Mixture, key: Any, rng) -> tuple[list[Segment], str]:
        """Moves at the posterior until the particles have forgotten where they began: the last two thirds of them."""
        every: list[Segment] = []
        labels = np.argmax([q.log_prob(swarm.u.reshape(-1, base.dim)) for q in base.components], 0)
        why, kept = "stalled", every
        for i in range(1, MOST_FINAL + 1):
            key, sub = jr.split(key)
            parts = run_blocks(sampler, swarm, sub, leapfrogs(rng, swarm.step, SEGMENT, LONG, MOST_LEAPFROG), rng)
            swarm.u = np.concatenate([p.u[-1] for p in parts]).reshape(swarm.u.shape)
            swarm.step = adapted(swarm.step, parts, SEGMENT)
            every.append(beside(parts))
            kept = every[(i + 1) // 3 :]
            if i >= LEAST_FINAL and (i & (i - 1)) == 0 and remembered(kept, labels) < FORGOTTEN:
                why = "converged"
                break
            if sampler.target.budget.spent:
                why = "budget"
                break
        swarm.memory = 0.0 if why == "converged" else remembered(kept, labels)
        return kept, why


def weighted_gaussian(swarm: Swarm) -> Gaussian:
    """Moments of the particles, by resampling them by their weights."""
    d = swarm.u.shape[2]
    w = np.exp(swarm.log_weights).reshape(-1)
    index = np.minimum(np.searchsorted(np.cumsum(w / w.sum()), (np.arange(w.size) + 0.5) / w.size), w.size - 1)
    return pooled_gaussian(swarm.u.reshape(-1, d)[index], swarm.metric)


def reweigh(swarm: Swarm, kept_ess: float) -> None:
    """The next temperature, by bisection on the conditional effective sample size, and the weights there."""
    change = next_temperature(swarm, kept_ess) - swarm.t
    new = swarm.log_weights + np.where(np.isfinite(swarm.energy), change * swarm.energy, -np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        top = new.max(1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        gain = np.log(np.exp(new - top).sum(1)) + top[:, 0]
        swarm.log_weights = np.where(np.isfinite(gain)[:, None], new - gain[:, None], new)
    swarm.log_z = swarm.log_z + gain
    swarm.t += change
    swarm.temperatures += 1


def next_temperature(swarm: Swarm, kept_ess: float) -> float:
    weights = np.exp(swarm.log_weights) / len(swarm.log_weights)
    energy = np.where(np.isfinite(swarm.energy), swarm.energy, -np.inf)
    top = energy.max(initial=-np.inf)

    def ess(change: float) -> float:
        w = np.exp(change * (energy - top))  # -inf: no weight at any temperature
        return float((weights * w).sum() ** 2 / (weights * w**2).sum())

    alive = float(weights[np.isfinite(energy)].sum())  # those without density leave at the first step, however small
    if not math.isfinite(top) or ess(1 - swarm.t) >= kept_ess * alive:
        return 1.0
    low, high = 0.0, 1 - swarm.t
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if ess(middle) >= kept_ess * alive else (low, middle)
    return swarm.t + max(low, 1e-12)


def resample(swarm: Swarm, rng: np.random.Generator, below: float) -> None:
    """Systematic, within each island whose share of effective particles is below a level."""
    n = swarm.u.shape[1]
    for i, log_w in enumerate(swarm.log_weights):
        w = np.exp(log_w)
        if not np.isfinite(swarm.log_z[i]) or 1 / (w**2).sum() >= below * n:
            continue
        edges = np.cumsum(w)
        index = np.minimum(np.searchsorted(edges, edges[-1] * (np.arange(n) + rng.random()) / n), n - 1)
        swarm.u[i], swarm.energy[i], swarm.log_weights[i] = swarm.u[i][index], swarm.energy[i][index], -math.log(n)


def run_blocks(sampler: Sampler, swarm: Swarm, key: Any, n: np.ndarray, rng: np.random.Generator) -> list[Segment]:
    """One segment of every particle, in blocks of the one compiled shape; step sizes vary by particle."""
    out, transport = [], Affine.of(swarm.metric)
    z = swarm.metric.whiten(swarm.u.reshape(-1, swarm.u.shape[2]))
    for sub, at in zip(jr.split(key, len(z) // BLOCK), range(0, len(z), BLOCK), strict=True):
        out.append(sampler.run(transport, z[at : at + BLOCK], sub, swarm.step * rng.uniform(0.7, 1.2, BLOCK), n))
    return out


def adapted(step: float, parts: list[Segment], n_moves: int) -> float:
    accepted = float(np.mean([np.nan_to_num(p.accepted[:n_moves]).mean() for p in parts]))
    return float(np.clip(step * math.exp(1.5 * (accepted - ACCEPT)), 1e-4, 1.5))


def finished(target: Target, start: Solution, swarm: Swarm, kept: list[Segment], rng: np.random.Generator) -> Solution:
    """Draws, evidence and checks."""
    evidence, shares = evidence_of(swarm.log_z)
    whole = Segment(*(np.concatenate([getattr(s, f) for s in kept]) for f in Segment._fields))
    checks = island_checks(whole, shares, target.names) | stein_scores(target, whole.u)
    checks["rhat"] = max(checks["rhat"], swarm.memory)
    u, log_p = drawn(whole, shares, rng)
    findings = {
        **start.findings, "chains": checks | {"temperatures": swarm.temperatures},
        "shape": (len(u) // whole.u.shape[1], whole.u.shape[1]),
    }  # fmt: skip
    return Solution(
        start.q, draws=u, log_p=log_p, corrected="chains", evidence=evidence, history=start.history, findings=findings
    )
