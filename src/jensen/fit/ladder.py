"""The ladder: cheap methods first, each looked at, and a step up only where the look says so."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ..algorithms.dadvi import DADVI
from ..algorithms.gaussian import Gaussian, Mixture
from ..algorithms.heavy_tails import FEW as FEW_FOR_TAILS
from ..algorithms.heavy_tails import Tails
from ..algorithms.importance import HOPELESS, Weighted, corrected
from ..algorithms.laplace import Laplace, Path, distinct, search, starting_points
from ..algorithms.low_rank import DENSE, DENSE_OF_DEAR
from ..algorithms.mixture import ModeMixture
from ..algorithms.mode_search import follow
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import BLOCK, Target
from ..diagnostics.witness import Testimony
from ..samplers.bridged import BridgedModes
from ..samplers.chains import HMC, gaussian_of
from ..samplers.conditional import ConditionalGaussian
from ..samplers.nested import NestedLaplace
from ..samplers.nuts import NUTS
from .rungs import FEW, Rungs, Step
from .view import View, learned_view
from .walled import within_walls

MOST_MODES = 64


class Ladder(Rungs):
    """Climbs from modes to Gaussians, to importance weights, to chains, to a conditional Gaussian and its chains.

    Every rung starts from the one below; all of them are in `steps`. The first RELIABLE one is taken; if there is none,
    the one with the best verdict and the fewest faults. Where the Gaussians do not do and the model has
    `other` coordinates (a hierarchy's non-centred ones), those are tried too, and the better of the two go first.
    """

    def climb(self) -> Step | None:
        """The step to be taken; None where no start has a finite density."""
        own = View(self.target)
        base = self._gaussians(own)
        if base is None:
            return None
        if self.support is not None and self.support.ends is None:
            return self.best()  # no method that follows gradients stays within such walls
        own = base.view
        views = [(own, self._corrected(own, base))]
        for make in (self.other, lambda: learned_view(self.target, gaussian_of(base.own.q))):
            if self._more() and self.support is None:
                self._climbs()
                views += self._unless_spent(self._elsewhere, make) or []
        views.sort(key=lambda v: -_fitness(v[1].weighed))
        for view, base in views:
            for rung in (self._bridged, self._chains, self._conditional, self._conditional_chains):
                if not self._more():
                    return self.best()
                base = self._unless_spent(rung, view, base) or base
                base = self._unless_spent(self._followed, view) or base
        if self._more():
            self._unless_spent(self._last)
        return self.best()

    def single(self, solver: AbstractSolver) -> Step | None:
        """One solver (from the rungs it needs), judged like a rung; None where no start has a finite density."""
        self.said = {"asked": solver.label} | ({"method_options": solver.chosen} if solver.chosen else {})
        began, used = self._now()
        solution = self._from_below(self.target, solver)
        if solution.q is None:
            return None
        view = View(self.target)
        weighed = solution.findings.get("weighted") or self._weigh(view, solution)
        self.improper = self._improper(view, solution)
        if self.improper is None and _has_covariance(solution.q):
            self._look(view, solution, weighed)
        testimony = self._witness(view, solution, weighed) if self.improper is None else None
        return self._add(view, solver.label, solution, weighed, began, used, testimony)

    def onward(self) -> Step:
        """The reference sampler, from the best step so far, whatever it was; and the best of all. The search for modes is
        made up for."""
        base, self.cut = self.best(), False
        self.seed += 1
        if base.view.label not in self.searches and _has_covariance(base.own.q):
            self.unsearched.discard(base.view.label)
            self._unless_spent(self._look, base.view, base.own, base.weighed)
        self._unless_spent(self._run, base.view, "nuts", NUTS(), base)
        return self.best()

    def _elsewhere(self, make: Callable[[], View | None]) -> list[tuple[View, Step]]:
        """The Gaussians, and what their weights make of them, in other coordinates; none where there are no such."""
        view = make()
        base = None if view is None else self._gaussians(view)
        if view is None or base is None:
            return []
        return [(view, self._corrected(view, base))]

    def _gaussians(self, view: View) -> Step | None:
        """Modes, a Gaussian at each, weights; once more from where the witness found something."""
        began, used = self._now()
        if view.target.dim > most_dense(view.target):  # no room for a covariance: mean-field
            wide = self._solved(view.target, DADVI())
            if wide.q is None:
                return None
            self.improper = self._improper(view, wide)
            return self._weighed_step(view, wide, self._weigh(view, wide), began, used)[0]
        modes = self._solved(view.target, Laplace())
        within = within_walls(self, modes) if view.back is None and self.target.n_outside else None
        if within is not None or modes.q is None:
            return within
        mixture = self._solved(view.target, ModeMixture(), modes)
        mixture, weighed = self._searched(view, mixture)
        step, testimony = self._weighed_step(view, mixture, weighed, began, used)
        for _ in range(2):
            leads = _leads(testimony, step.weighed, view.target.pace.effort < 1)
            if not len(leads) or self.improper is not None or self.target.budget.spent:
                break
            began, used = self._now()
            more = self._unless_spent(self._from, view, leads, mixture)
            if more is None or _same(more, mixture):
                break
            step.climbed, mixture = "Mass was found that these Gaussians miss.", more
            self.improper = self._improper(view, mixture)
            step, testimony = self._weighed_step(view, mixture, self._weigh(view, mixture), began, used)
        return step

    def _searched(self, view: View, solution: Solution) -> tuple[Solution, Weighted]:
        """With the modes that a search finds beside those of q, and q's weights."""
        weighed = self._weigh(view, solution)
        self.improper = self._improper(view, solution)
        if self.improper is not None or self.cut:
            return solution, weighed
        found = self._look(view, solution, weighed)
        if found is not None and found.new and "fitted" in solution.findings:
            gaussians = [m.gaussian for m in found.new]
            more = self._unless_spent(ModeMixture().extended, view.target, solution, gaussians, self.seed)
            if more is not None:
                return more, self._weigh(view, more)
        return solution, weighed

    def _followed(self, view: View) -> Step | None:
        """A mixture with the modes that the last witness's particles lead to, and chains in each; None if to none."""
        testimony, found, last = self.steps[-1].testimony, self.searches.get(view.label), self._mixture(view)
        if found is None or testimony is None or not len(testimony.leads) or last is None or not self._more():
            return None
        began, used = self._now()
        new = follow(view.target, found, testimony.leads[:BLOCK], self.seed)
        if not new:
            return None
        self._climbs()
        gaussians = [m.gaussian for m in sorted(new, key=lambda m: -m.log_z)]
        more = ModeMixture().extended(view.target, last.own, gaussians, self.seed)
        step = self._weighed_step(view, more, self._weigh(view, more), began, used)[0]
        return (self._bridged(view, step) or step) if self._more() else step

    def _mixture(self, view: View) -> Step | None:
        """The last of this view's Gaussians."""
        made = lambda s: s.view is view and "fitted" in s.own.findings and isinstance(s.own.q, Gaussian | Mixture)
        return next((s for s in self.steps[::-1] if made(s)), None)

    def _weighed_step(self, view: View, solution: Solution, weighed: Weighted, began: float, used: int):
        # where the weights have failed anyway a witness only helps to find modes, and costs most in many dimensions
        heard = self.improper is None and (weighed.ess > HOPELESS or view.target.dim <= FEW)
        testimony = self._witness(view, solution, weighed) if heard else None
        several = solution.findings.get("n_components", 1) > 1
        name = view.label + ("mixture" if several else "natural-gradient" if _has_covariance(solution.q) else "dadvi")
        if several or view.back is not None or not self._plain(solution.q, weighed):
            weighed = self._weigh_enough(view, solution, weighed)
            solution = corrected(weighed, solution, min(self.n_draws, len(weighed.u)), self.seed)
            name += " + importance"
        return self._add(view, name, solution, weighed, began, used, testimony), testimony

    def _from(self, view: View, u: np.ndarray, mixture: Solution) -> Solution | None:
        """A mixture with the modes reached from these points too, or None if they lead nowhere new."""
        value, gradient = view.target(u)
        paths = [Path(*p, scale=np.ones(view.target.dim)) for p in zip(u, value.tolist(), gradient, strict=True)]
        found = search(view.target, paths, self.seed, 40)
        known = [Path(q.mean, 0.0, q.mean, q.sd, q, elbo) for elbo, q in mixture.findings.get("fitted", [])]
        every = distinct([*known, *found], MOST_MODES)
        if len(every) <= len(known):
            return None
        start = dataclasses.replace(mixture, findings={**mixture.findings, "components": every})
        return ModeMixture().solve(view.target, start, self.seed)

    def _corrected(self, view: View, base: Step) -> Step:
        """The better of a Gaussian and a q made from its weights."""
        for rung in (self._nested, self._tails):
            step = self._unless_spent(rung, view, base) if self._more() else None
            if step is not None and _fitness(step.weighed) > _fitness(base.weighed):
                return step
        return base

    def _nested(self, view: View, base: Step) -> Step | None:
        """Where few coordinates set the scales."""
        if view.rest is None:
            return None
        return self._run(view, "nested-laplace + importance", NestedLaplace(view.rest), base)

    def _tails(self, view: View, base: Step) -> Step | None:
        """Where a Gaussian's tails end too soon."""
        if view.target.dim > FEW_FOR_TAILS or not isinstance(base.own.q, Gaussian | Mixture):
            return None
        own = dataclasses.replace(base.own, findings={**base.own.findings, "weighted": base.weighed})
        return self._run(view, "student-t + importance", Tails(), dataclasses.replace(base, own=own))

    def _bridged(self, view: View, base: Step) -> Step | None:
        """Where there are modes: chains in each, and what each holds."""
        found, base = self.searches.get(view.label), self._mixture(view) or base
        if found is None or sum(m.isolated for m in found.modes) < 2:
            return None
        step = self._run(view, "hmc in each mode", BridgedModes(), base)
        if step is None or not self._more() or step.weighed.ess <= base.weighed.ess:
            return step
        began, used = self._now()  # what the chains drew from, as a proposal of importance sampling
        fitted = [(float(np.log(w)), g) for w, g in zip(step.own.q.weights, step.own.q.components, strict=True)]
        again = dataclasses.replace(
            base.own, q=step.own.q, draws=None, findings={**base.own.findings, "fitted": fitted}
        )
        return self._weighed_step(view, again, step.weighed, began, used)[0]

    def _chains(self, view: View, base: Step) -> Step | None:
        return self._run(view, "hmc", HMC(), base)

    def _conditional(self, view: View, base: Step) -> Step | None:
        if view.target.dim > DENSE:
            return None
        return (
            self._run(view, "conditional-gaussian", ConditionalGaussian(), base) if base.name.endswith("hmc") else None
        )

    def _conditional_chains(self, view: View, base: Step) -> Step | None:
        if not base.name.endswith("conditional-gaussian") or base.weighed.khat > 1.0:  # a map that does not fit
            return None
        return self._run(view, "conditional-gaussian + hmc", HMC(most=120), base)

    def _last(self) -> None:
        """The reference sampler, from the best step so far: it goes on until it is right, or its patience is at an end."""
        able = [s for s in self.steps if s.own.q is not None and "no_warp" not in s.own.findings]
        base = min(able, key=lambda s: s.diagnosis.details["faults"])
        self._run(base.view, "nuts", NUTS(), base)


def most_dense(target: Target) -> int:
    """The largest dimension in which a covariance is formed: larger where the density costs more than the algebra."""
    if DENSE < target.dim <= DENSE_OF_DEAR and target.smooth:
        starting_points(target, 0, 1)  # the price is known after two blocks
        return DENSE_OF_DEAR if target.pace.effort < 1 else DENSE
    return DENSE


def _has_covariance(q: Any) -> bool:
    return isinstance(q, Mixture) or (isinstance(q, Gaussian) and not q.diagonal)


def _leads(testimony: Testimony | None, weighed: Weighted, dear: bool) -> np.ndarray:
    """Points from which to look for further modes: the witness's, and draws that carry the weights of many."""
    log_w = weighed.log_p - weighed.log_q
    telling = (HOPELESS if dear else 0.0) <= weighed.ess < 0.5 and np.isfinite(log_w).any()
    heavy = weighed.u[np.argsort(-log_w)[:3]] if telling else weighed.u[:0]
    return heavy if testimony is None else np.concatenate([testimony.leads[:4], heavy])


def _same(a: Solution, b: Solution) -> bool:
    """As many components, and no better."""
    number = lambda s: s.findings.get("n_components", 0)  # none where no fit stayed where numbers are finite
    elbo = lambda s: s.history[0] if s.history else -np.inf
    return number(a) == number(b) and elbo(a) < elbo(b) + 0.1


def _fitness(weighed: Weighted) -> float:
    """Larger for a q that is closer: effective sample size, less what the tail costs."""
    return weighed.ess - max(min(weighed.khat, 2.0), 0.0)
