"""A mixture of Gaussians: one for each distinct mode that was found."""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from .dadvi import DADVI
from .gaussian import Gaussian, Mixture, standardised_draws
from .laplace import DISTINCT, Laplace
from .low_rank import DENSE
from .natural_gradient import NaturalGradient
from .solver import AbstractSolver, Solution
from .target import BLOCK, Target

HUGE = 1e100
BESIDE = 0.5  # as DISTINCT, of a fit from a mode that is known to be another one
FITTED = 24  # further modes that get a fit; the others stay as their curvature has them
NEGLIGIBLE = 9.0  # nats below the best: a component that would weigh less than 1e-4


@dataclasses.dataclass
class ModeMixture(AbstractSolver):
    """sum_k w_k N(m_k, S_k): each component a natural-gradient fit from one of the modes found, w_k by its evidence.

    Definition: log w_k = ELBO of component k on its fixed draws, normalised. One component where there is one mode.
    Cost:       that of `NaturalGradient`, times the number of distinct modes.
    """

    name: ClassVar = "mixture"
    starts_from: ClassVar = Laplace
    about: ClassVar = "A Gaussian for each mode that was found, with the mass it holds."

    def _solve(self, target: Target, start: Solution | None, seed: int) -> Solution:
        start = start or Laplace().solve(target, None, seed)
        if start.q is None:
            return start
        ng = NaturalGradient()
        starts: list[Any] = [p.best for p in start.findings.get("components", [])] or [start.q]
        fitted: list[tuple[float, Gaussian]] = []
        best, ending = -np.inf, start.why
        for q in starts:
            new, history, why = ng.fit(target, q, seed)
            if history[-1] > best:
                best, ending = history[-1], why
            if _sane(new, history[-1]) and all(_apart(new, other) for _, other in fitted):
                fitted.append((history[-1], new))
        own: Any = start.q
        if not fitted:  # at least something with a density, for the verdict to look at
            q = own if _sane(own, 0.0) else Gaussian(np.zeros(own.dim), np.eye(own.dim))
            return dataclasses.replace(start, q=q, why="diverged")
        return self.assemble(start, fitted, ending)

    def extended(self, target: Target, start: Solution, more: list[Gaussian], seed: int) -> Solution:
        """A mixture with components from these modes too, the heaviest first. Where a fit leaves its mode for another
        component's place, or there are more than 24, the Gaussian stays as it is."""
        ng, fitted = NaturalGradient(), list(start.findings["fitted"])
        eps = standardised_draws(max(BLOCK, 2 * target.dim), target.dim, seed)
        for i, local in enumerate(more):
            new, elbo = local, -np.inf
            if i < FITTED:
                new, history, _ = ng.fit(target, local, seed)
                elbo = history[-1]
            if not (_sane(new, elbo) and all(_apart(new, other, BESIDE) for _, other in fitted)):
                value = target.value(local.apply(eps))
                new, elbo = local, float(value.mean() + local.entropy())
            if _sane(new, elbo):
                fitted.append((elbo, new))
        return self.assemble(start, fitted, start.why)

    def assemble(self, start: Solution, fitted: list[tuple[float, Gaussian]], why: str) -> Solution:
        fitted = sorted(fitted, key=lambda f: -f[0])
        kept = [f for f in fitted if f[0] >= fitted[0][0] - NEGLIGIBLE]
        elbos = np.array([f[0] for f in kept])
        weights = np.exp(elbos - elbos.max())
        q = kept[0][1] if len(kept) == 1 else Mixture(tuple(f[1] for f in kept), weights / weights.sum())
        findings = {**start.findings, "fitted": fitted, "n_components": len(kept)}
        return Solution(q, why, history=list(elbos), findings=findings)


def _sane(q: Gaussian, elbo: float) -> bool:
    """A density that grows without end drives q to where numbers end."""
    return bool(np.isfinite(elbo) and abs(elbo) < HUGE and np.abs(q.mean).max() < HUGE and q.sd.max() < HUGE)


def _apart(a: Gaussian, b: Gaussian, share: float = DISTINCT) -> bool:
    """Further from each other than this share of the typical radius of one of them, or of very different widths."""
    distance = min(np.linalg.norm(a.whiten(b.mean[None])), np.linalg.norm(b.whiten(a.mean[None])))
    return bool(distance > share * np.sqrt(a.dim) or np.abs(np.log(a.sd / b.sd)).max() > 0.7)


def gaussians(target: Target, seed: int) -> Solution:
    """Where a sampler starts when nothing came before: a Gaussian at each mode, or mean field in many dimensions."""
    return (ModeMixture() if target.dim <= DENSE else DADVI()).solve(target, None, seed)
