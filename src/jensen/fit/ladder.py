"""The ladder: cheap methods first, each looked at, and a step up only where the look says so."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..algorithms.budget import OutOfBudget
from ..algorithms.dadvi import DADVI
from ..algorithms.gaussian import Gaussian, Mixture
from ..algorithms.heavy_tails import FEW as FEW_FOR_TAILS
from ..algorithms.heavy_tails import HeavyTails, Tails
from ..algorithms.importance import HOPELESS, Weighted, corrected, n_proposals, proposal_of, weigh
from ..algorithms.laplace import Laplace, Path, distinct, search
from ..algorithms.low_rank import DENSE
from ..algorithms.mixture import ModeMixture
from ..algorithms.mode_search import Searched, follow, search_modes
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import BLOCK, Target
from ..diagnostics.marginals import Marginals, Move, moved, of_chains, of_draws, of_weighted
from ..diagnostics.others import disagreement
from ..diagnostics.psis import log_sum
from ..diagnostics.solution import Case, difference, judge_solution
from ..diagnostics.tails import improper_direction
from ..diagnostics.verdict import ESS_USABLE, KHAT_USABLE, Diagnosis, Verdict, noted
from ..diagnostics.witness import Testimony, call_witness, least
from ..samplers.bridged import BridgedModes
from ..samplers.chains import Chains, gaussian_like, gaussian_of, reported_chains, unvisited_tails
from ..samplers.conditional import ConditionalGaussian
from ..samplers.nested import NestedLaplace
from ..samplers.nuts import NUTS
from ..samplers.tilted import settle
from ..samplers.walls import Support
from .methods import SOLVERS
from .view import View, learned_view
from .walled import within_walls

CHECKS = 0.3  # of the budget, kept for the checks
FEW = 30  # dimensions
MOST_BLOCKS = 16  # of 64 particles
MOST_MODES = 64
USUAL = 0.99  # share of q's draws below whose log-weights a particle is no lead
PLAIN = 0.02  # by which weights may move a Gaussian that is kept as it is
MANY_DRAWS = 8  # times as many as are weighed, of a q that is the answer
RANK = {Verdict.RELIABLE: 2, Verdict.DOUBTFUL: 1, Verdict.UNRELIABLE: 0}


@dataclasses.dataclass
class Step:
    """One rung that was tried. `solution`, `home` (the weights): in the model's coordinates; `own`, `weighed`: its view's."""

    name: str
    solution: Solution
    diagnosis: Diagnosis
    weighed: Weighted
    seconds: float
    evaluations: int
    own: Solution
    view: View
    home: Weighted
    marginals: Marginals
    testimony: Testimony | None = None
    climbed: str = ""  # why it was not the last


class Ladder:
    """Climbs from modes to Gaussians, to importance weights, to chains, to a conditional Gaussian and its chains.

    Every rung starts from the one below; all of them are in `steps`. The first RELIABLE one is taken; if there is none,
    the one with the best verdict and the fewest faults. Where the Gaussians do not do and the model has
    `other` coordinates (a hierarchy's non-centred ones), those are tried too, and the better of the two go first.
    """

    def __init__(
        self,
        target: Target,
        seed: int,
        n_draws: int,
        on_step: Callable[[Step], Any] | None = None,
        other: Callable[[], View | None] | None = None,
    ):
        self.target, self.seed, self.n_draws, self.on_step = target, seed, n_draws, on_step
        self.other = other or (lambda: None)
        self.steps: list[Step] = []
        self.searches: dict[str, Searched] = {}  # for modes, by the labels of views
        self.improper: str | None = None
        self.support: Support | None = None  # where the density ends, if it does
        self.cut = False  # did the budget end the last method, or its checks?

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

    def single(self, solver: AbstractSolver, name: str) -> Step | None:
        """One solver (from the rungs it needs), judged like a rung; None where no start has a finite density."""
        began, used = self._now()
        solution = self._from_below(self.target, solver)
        if solution.q is None:
            return None
        view = View(self.target)
        weighed = solution.findings.get("weighted") or self._weigh(view, solution)
        self.improper = self._improper(view, solution)
        if self.improper is None and view.target.dim <= DENSE and isinstance(solution.q, Gaussian | Mixture):
            self._look(view, solution, weighed)
        testimony = self._witness(view, solution, weighed) if self.improper is None else None
        return self._add(view, name, solution, weighed, began, used, testimony)

    def best(self) -> Step:
        ranked = [(RANK[s.diagnosis.verdict], -s.diagnosis.details["faults"], i) for i, s in enumerate(self.steps)]
        return self.steps[max(ranked)[2]]

    def _more(self) -> bool:
        """Is there need of another rung, and leave to try it?"""
        d = self.steps[-1].diagnosis
        return d.details["open"] and not (self.improper is not None or self.cut or self.target.budget.spent)

    def _elsewhere(self, make: Callable[[], View | None]) -> list[tuple[View, Step]]:
        """The Gaussians, and what their weights make of them, in other coordinates; none where there are no such."""
        view = make()
        base = None if view is None else self._gaussians(view)
        if view is None or base is None:
            return []
        return [(view, self._corrected(view, base))]

    # ---- rungs ---------------------------------------------------------------------------------------------------
    def _gaussians(self, view: View) -> Step | None:
        """Modes, a Gaussian at each, weights; once more from where the witness found something."""
        began, used = self._now()
        if view.target.dim > DENSE:  # no room for a covariance: mean-field
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
            leads = _leads(testimony, step.weighed)
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

    def _look(self, view: View, solution: Solution, weighed: Weighted) -> Searched | None:
        with view.target.budget.keeping(CHECKS):
            found = search_modes(view.target, solution.q, weighed, self.seed)
        if found is not None:
            self.searches[view.label] = found
        return found

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
        name = view.label + ("mixture" if several else "natural-gradient" if view.target.dim <= DENSE else "dadvi")
        if several or view.back is not None or not self._plain(solution.q, weighed):
            solution = corrected(weighed, solution, min(self.n_draws, len(weighed.u)), self.seed)
            name += " + importance"
        return self._add(view, name, solution, weighed, began, used, testimony), testimony

    def _plain(self, q: Any, weighed: Weighted) -> bool:
        """Is q the answer as it is: do weights hardly move it, nor what is reported, and do its own draws settle that?"""
        if max(difference(q, weighed, self.target.names)[:2]) > PLAIN:
            return False
        if self.target.reported.identity:
            return True
        move = self._moved(q, weighed)
        return max(move[:2]) <= PLAIN and not self._own_marginals(q).marked(move.undetermined).undetermined.any()

    def _moved(self, q: Any, weighed: Weighted) -> Move:
        """How far the weights move what is reported of q."""
        log_w = q.log_prob(weighed.u) - weighed.log_q
        shown = self.target.reported(weighed.u)
        return moved(shown, log_w - log_sum(log_w), weighed.log_weights, self.target.reported.names)

    def _own_marginals(self, q: Any) -> Marginals:
        """Of q's own draws, of which more cost next to nothing."""
        most = n_proposals(self.target.dim)
        for n in (min(self.n_draws, most), MANY_DRAWS * most):
            m = of_draws(
                self.target.reported(q.sample(np.random.default_rng([self.seed, 3]), n)), self.target.reported.names
            )
            if not m.undetermined.any():
                break
        return m

    def _marginals(self, at_home: Solution, home: Weighted) -> Marginals:
        """Of the draws that are the result: all of them, in the coordinates that are reported."""
        shown, names = self.target.reported, self.target.reported.names
        if at_home.corrected == "none" or at_home.draws is None:
            return self._own_marginals(at_home.q)
        if at_home.corrected == "importance":
            return of_weighted(shown(home.u), home.log_weights, names)
        checks, u = at_home.findings["chains"], np.asarray(at_home.draws)
        if "islands" in checks:  # resampled by their shares: what they are worth is known between the islands
            return of_draws(shown(u), names, checks["se_mean"] ** -2)
        x = u.reshape(*at_home.findings["shape"], -1)
        m = of_chains(reported_chains(self.target, x), names)
        return m.marked(unvisited_tails(self.target, x, m))

    def _settled(self, view: View, case: Case, solution: Solution, weighed: Weighted) -> Case:
        """With more draws where they would settle what is open, at no more than what the fit has cost so far."""
        report = self.target.reported if view.back is None else lambda u: self.target.reported(view.back(u))
        proposal, names = proposal_of(solution.q), self.target.reported.names
        if solution.corrected == "chains" and not (weighed.khat < KHAT_USABLE and weighed.ess > ESS_USABLE):
            return case
        found = settle(view.target, report, names, weighed, proposal, self.seed, self.target.budget.used)[1]
        return dataclasses.replace(
            case, marginals=found if solution.corrected == "importance" else case.marginals.completed(found)
        )

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
        if found is None or sum(m.maximum for m in found.modes) < 2:
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
        return self._run(view, "hmc", Chains(), base)

    def _conditional(self, view: View, base: Step) -> Step | None:
        if view.target.dim > DENSE:
            return None
        return (
            self._run(view, "conditional-gaussian", ConditionalGaussian(), base) if base.name.endswith("hmc") else None
        )

    def _conditional_chains(self, view: View, base: Step) -> Step | None:
        if not base.name.endswith("conditional-gaussian") or base.weighed.khat > 1.0:  # a map that does not fit
            return None
        return self._run(view, "conditional-gaussian + hmc", Chains(most=120), base)

    def _last(self) -> None:
        """The reference sampler, from the best step so far: it goes on until it is right, or its patience is at an end."""
        able = [s for s in self.steps if s.own.q is not None and "no_warp" not in s.own.findings]
        base = min(able, key=lambda s: s.diagnosis.details["faults"])
        self._run(base.view, "nuts", NUTS(), base)

    def _climbs(self) -> None:
        """Notes why the last rung was not the last."""
        self.steps[-1].climbed = self.steps[-1].climbed or self.steps[-1].diagnosis.reasons[0]

    # ---- one rung ------------------------------------------------------------------------------------------------
    def _run(self, view: View, name: str, solver: AbstractSolver, base: Step) -> Step | None:
        self._climbs()
        began, used = self._now()
        start = base.own
        try:
            solution = self._solved(view.target, solver, start)
        except np.linalg.LinAlgError:  # a covariance beyond what double precision resolves: the rungs below stand
            return None
        if solution.draws is None or solution.draws is start.draws or "no_warp" in solution.findings:
            return None
        weighed = solution.findings.get("weighted") if solution.corrected == "importance" else None
        weighed = weighed or self._weigh(view, solution)
        testimony = self._witness(view, solution, weighed)
        return self._add(view, view.label + name, solution, weighed, began, used, testimony)

    def _solved(self, target: Target, solver: AbstractSolver, start: Solution | None = None) -> Solution:
        """What the method finds while a share of the budget is kept for the checks."""
        with target.budget.keeping(CHECKS):
            solution = solver.solve(target, start, self.seed)
            self.cut = target.budget.spent
        return solution

    def _from_below(self, target: Target, solver: AbstractSolver) -> Solution:
        """As `_solved`, with what it starts from as a result of its own if the budget has an end."""
        start = None
        if target.budget.finite and solver.starts_from is not None and target.dim <= DENSE:
            start = self._from_below(target, SOLVERS[solver.starts_from]())
            if self.cut or start.q is None:
                return start
        return self._solved(target, solver, start)

    def _unless_spent(self, rung: Callable, *args: Any) -> Any:
        """The rung's result; None where the budget ends in the middle of it: those below stand."""
        try:
            return rung(*args)
        except OutOfBudget:
            self.cut = True
            return None

    def _now(self) -> tuple[float, int]:
        return time.perf_counter(), self.target.budget.used

    def _weigh(self, view: View, solution: Solution) -> Weighted:
        return weigh(view.target, proposal_of(solution.q), n_proposals(view.target.dim), self.seed)

    def _improper(self, view: View, solution: Solution) -> str | None:
        try:
            return improper_direction(view.target, gaussian_of(solution.q), view.target.names)
        except OutOfBudget:
            self.cut = True
            return None

    def _witness(self, view: View, solution: Solution, weighed: Weighted):
        if self.target.budget.overdrawn:
            return None
        proposal = proposal_of(solution.q)
        largest = np.max(weighed.log_p - weighed.log_q, initial=-np.inf)
        if solution.corrected == "chains" and solution.draws is not None:
            some = slice(None, None, max(1, len(solution.draws) // min(4096, n_proposals(view.target.dim))))
            largest = max(largest, np.max(np.asarray(solution.log_p)[some] - proposal.log_prob(solution.draws[some])))
        blocks = 4 if solution.findings.get("n_components", 1) > 1 else 1
        if solution.draws is not None and self.steps and view.target.dim <= FEW:  # a rung has failed: look harder
            blocks = MOST_BLOCKS
        plain = solution.draws is None or isinstance(solution.q, HeavyTails)
        scale = gaussian_of(solution.q) if plain else gaussian_like(solution.draws)
        usual = float(np.quantile(weighed.log_p - weighed.log_q, USUAL)) if np.isfinite(largest) else None
        floor = least(solution, weighed)
        return call_witness(view.target, scale, proposal, float(largest), floor, self.seed, blocks, usual)

    def _modes(self, view: View, solution: Solution) -> tuple[Searched | None, float]:
        """What was searched in these coordinates, and the share of what was found that the solution misses."""
        found = self.searches.get(view.label)
        if found is None:
            return None, 0.0
        u = solution.draws
        return found, found.missed(solution.q.sample(np.random.default_rng([self.seed, 9]), 4096) if u is None else u)

    def _add(self, view: View, name, solution, weighed, began, used, testimony) -> Step:
        at_home, home_weighed = view.home(self.target, solution, weighed)
        marginals = self._marginals(at_home, home_weighed)
        move = None
        if at_home.corrected == "none" and np.isfinite(weighed.log_p).any():
            move = self._moved(at_home.q, weighed)
            marginals = marginals.marked(move.undetermined)
        case = Case(
            at_home, home_weighed, self.target.names, marginals, move,
            self.improper, testimony, solution.evidence, None if view.back is None else weighed,
            self.cut or self.target.budget.spent, self.target.budget.used - used, *self._modes(view, solution),
            {} if self.support is None else self.support.told(self.target.names),
        )  # fmt: skip
        diagnosis = judge_solution(case)
        reliable = diagnosis.verdict is Verdict.RELIABLE and not self.target.budget.spent
        if reliable and at_home.corrected != "none" and marginals.undetermined.any():
            case = self._settled(view, case, solution, weighed)
            diagnosis = judge_solution(case)
        if not diagnosis.details["open"]:
            tried = [(s.name, s.solution, s.home) for s in self.steps]
            notes = disagreement(at_home, home_weighed, tried, self.target)
            diagnosis = noted(diagnosis, notes)
            diagnosis.details["faults"] += len(notes)
            diagnosis.details["open"] |= bool(notes)
        spent, cost = time.perf_counter() - began, self.target.budget.used - used
        step = Step(
            name, at_home, diagnosis, weighed, spent, cost, solution, view, home_weighed, case.marginals, testimony
        )
        self.steps.append(step)
        if self.on_step is not None:
            self.on_step(step)
        return step


def _leads(testimony: Testimony | None, weighed: Weighted) -> np.ndarray:
    """Points from which to look for further modes: the witness's, and draws that carry the weights of many."""
    log_w = weighed.log_p - weighed.log_q
    heavy = weighed.u[np.argsort(-log_w)[:3]] if weighed.ess < 0.5 and np.isfinite(log_w).any() else weighed.u[:0]
    return heavy if testimony is None else np.concatenate([testimony.leads[:4], heavy])


def _same(a: Solution, b: Solution) -> bool:
    """As many components, and no better."""
    number = lambda s: s.findings.get("n_components", 0)  # none where no fit stayed where numbers are finite
    elbo = lambda s: s.history[0] if s.history else -np.inf
    return number(a) == number(b) and elbo(a) < elbo(b) + 0.1


def _fitness(weighed: Weighted) -> float:
    """Larger for a q that is closer: effective sample size, less what the tail costs."""
    return weighed.ess - max(min(weighed.khat, 2.0), 0.0)
