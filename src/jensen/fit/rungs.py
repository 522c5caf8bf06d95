"""One rung of the ladder: a method tried in some coordinates, weighed, looked at and judged."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..algorithms.budget import OutOfBudget
from ..algorithms.heavy_tails import HeavyTails
from ..algorithms.importance import Weighted, corrected, n_proposals, n_weighed, proposal_of, weigh, weigh_more
from ..algorithms.low_rank import DENSE
from ..algorithms.mode_search import search_modes
from ..algorithms.modes import modes_of
from ..algorithms.searched import Searched
from ..algorithms.solver import AbstractSolver, Solution
from ..algorithms.target import Target
from ..diagnostics.difference import difference
from ..diagnostics.marginals import (
    MEAN_AND_SD,
    Marginals,
    Move,
    interval_error,
    moved,
    of_chains,
    of_draws,
    of_weighted,
)
from ..diagnostics.others import disagreement
from ..diagnostics.psis import log_sum
from ..diagnostics.solution import WEIGHED_ESS, Case, judge_solution
from ..diagnostics.suspects import Known, looked_into
from ..diagnostics.tails import improper_direction
from ..diagnostics.verdict import ESS_USABLE, KHAT_USABLE, Diagnosis, Verdict, noted
from ..diagnostics.witness import Testimony, call_witness, least, spared
from ..samplers.chains import gaussian_like, gaussian_of, reported_chains, unvisited_tails
from ..samplers.tilted import settle
from ..samplers.walls import Support
from .progress import Untold
from .view import View

CHECKS = 0.3  # of the budget, kept for the checks
FEW = 30  # dimensions
MOST_BLOCKS = 16  # of 64 particles
USUAL = 0.99  # share of q's draws below whose log-weights a particle is no lead
FEW_CHAINS = 8
PLAIN = 0.02  # by which weights may move a Gaussian that is kept as it is
MOST_ASKED = 32  # times the usual number of draws, where an accuracy is asked for
LOOKS, AT_ONCE = 3, 4.0  # at what more draws have settled; and how many times as many are added at once
ENOUGH = 1.2  # times the effective draws that the accuracy asks for
SURE_KHAT, SURE_ESS = 0.5, 0.8  # of weights that leave no doubt that a witness could settle, where it is dear
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


class Rungs:
    """What was tried so far, and how another method is tried: it runs, its result is weighed, a witness is heard, what is
    reported is measured, and all of it is judged.

    Attributes: steps: in order.   searches: for modes, by the labels of views.   improper: a parameter whose tail has no
                integral.   support: where the density ends, if it does.   cut: did the budget end the last method, or its
                checks?
    """

    def __init__(
        self,
        target: Target,
        seed: int,
        n_draws: int,
        shown: Untold | None = None,
        other: Callable[[], View | None] | None = None,
    ):
        self.target, self.seed, self.n_draws, self.shown = target, seed, n_draws, shown or Untold()
        self.other = other or (lambda: None)
        self.steps: list[Step] = []
        self.searches: dict[str, Searched] = {}  # for modes, by the labels of views
        self.unsearched: set[str] = set()  # views for whose search the budget left no room
        self.improper: str | None = None
        self.support: Support | None = None  # where the density ends, if it does
        self.cut = False  # did the budget end the last method, or its checks?
        self.said: dict[str, Any] = {"asked": "auto"}  # of the method that was asked for, in the fit's options

    def best(self) -> Step:
        ranked = [(RANK[s.diagnosis.verdict], -s.diagnosis.details["faults"], i) for i, s in enumerate(self.steps)]
        return self.steps[max(ranked)[2]]

    def _more(self) -> bool:
        """Is there need of another rung, and leave to try it?"""
        d = self.steps[-1].diagnosis
        return d.details["open"] and not (self.improper is not None or self.cut or self.target.budget.spent)

    def _run(self, view: View, name: str, solver: AbstractSolver, base: Step) -> Step | None:
        self._climbs()
        self._foretell(view.label + name, solver)
        began, used = self._now()
        start = base.own
        try:
            solution = self._solved(view.target, solver, start)
        except np.linalg.LinAlgError:  # a covariance beyond what double precision resolves: the rungs below stand
            return None
        if solution.draws is None or solution.draws is start.draws or "no_warp" in solution.findings:
            return None
        weighed = solution.findings.get("weighted") if solution.corrected == "importance" else None
        if weighed is not None:
            enough = self._weigh_enough(view, solution, weighed)
            if enough is not weighed:
                weighed, solution = enough, corrected(enough, solution, len(enough.u) // 2, self.seed)
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
            start = self._from_below(target, solver.starts_from())
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

    def _foretell(self, name: str, solver: AbstractSolver) -> None:
        """Says how long the next rung may take, and what for."""
        most, last = solver.may_take(self.target), self.steps[-1]
        if most is not None and last.evaluations and not self.target.budget.finite:
            self.shown.ahead(name, most, most * last.seconds / last.evaluations, last.climbed)

    def _climbs(self) -> None:
        """Notes why the last rung was not the last."""
        self.steps[-1].climbed = self.steps[-1].climbed or self.steps[-1].diagnosis.reasons[0]

    def _weigh(self, view: View, solution: Solution) -> Weighted:
        return weigh(view.target, proposal_of(solution.q), n_weighed(view.target), self.seed)

    def _weigh_enough(self, view: View, solution: Solution, weighed: Weighted) -> Weighted:
        """With as many more draws as the accuracy asks for, where weights do and there were few; as many as usual where a
        tail leaves a mean open even so, and quantiles stand for it."""
        usual, accuracy = n_proposals(view.target.dim), view.target.accuracy
        most = usual * (1 if view.target.asked is None else MOST_ASKED)
        wanted = ENOUGH / max(weighed.ess, WEIGHED_ESS) / accuracy**2
        for _ in range(LOOKS):
            more = int(min(wanted, most)) - len(weighed.u)
            if more <= 0 or weighed.khat > KHAT_USABLE or weighed.ess < WEIGHED_ESS:
                break
            weighed = weigh_more(view.target, proposal_of(solution.q), weighed, more, self.seed + len(weighed.u))
            m = self._reported(view, weighed)
            error = m.errors()[0][m.undetermined < MEAN_AND_SD].max(initial=0.0)
            wanted = len(weighed.u) * min((error / accuracy) ** 2, AT_ONCE)
            if (m.undetermined == MEAN_AND_SD).any():
                wanted = max(wanted, usual)
        return weighed

    def _improper(self, view: View, solution: Solution) -> str | None:
        """Looked for where the climb begins, in the model's own coordinates or such as end at its walls: what falls off there
        does so in all, though a map may stretch it to where it is not seen."""
        if view.back is not None and self.steps:
            return None
        try:
            return improper_direction(view.target, gaussian_of(solution.q), view.target.names)
        except OutOfBudget:
            self.cut = True
            return None

    def _witness(self, view: View, solution: Solution, weighed: Weighted):
        if self.target.budget.overdrawn:
            return None
        effort = view.target.pace.effort
        sure = weighed.khat < SURE_KHAT and weighed.ess > SURE_ESS and view.label in self.searches
        if effort < 1 and sure and not self.steps and not self.searches[view.label].new:
            return spared(view.target.dim)
        proposal = proposal_of(solution.q)
        largest = np.max(weighed.log_p - weighed.log_q, initial=-np.inf)
        chains = solution.corrected == "chains" and solution.draws is not None
        if chains:
            some = slice(None, None, max(1, len(solution.draws) // min(4096, n_proposals(view.target.dim))))
            largest = max(largest, np.max(np.asarray(solution.log_p)[some] - proposal.log_prob(solution.draws[some])))
        blocks: float = effort
        if effort == 1:
            failed = solution.draws is not None and self.steps and view.target.dim <= FEW  # a rung has: look harder
            blocks = MOST_BLOCKS if failed else 4 if solution.findings.get("n_components", 1) > 1 else 1
        plain = solution.draws is None or isinstance(solution.q, HeavyTails)
        scale = gaussian_of(solution.q) if plain else gaussian_like(solution.draws)
        usual = float(np.quantile(weighed.log_p - weighed.log_q, USUAL)) if np.isfinite(largest) else None
        floor = least(solution, weighed)
        heard = call_witness(view.target, scale, proposal, float(largest), floor, self.seed, blocks, usual)
        if heard is None:
            return None
        draws = (solution.draws, None) if chains else (weighed.u, weighed.weights)
        evidence = (solution.evidence or weighed.evidence)[0]
        return looked_into(heard, view.target, scale, evidence, Known(*draws, view.back))

    def _look(self, view: View, solution: Solution, weighed: Weighted) -> Searched | None:
        with view.target.budget.keeping(CHECKS):
            known = modes_of(solution.findings.get("components", [])) if view.target.pace.effort < 1 else []
            found = search_modes(view.target, solution.q, weighed, self.seed, known)
        if found is not None:
            self.searches[view.label] = found
        elif view.target.smooth and self.target.budget.finite:
            self.unsearched.add(view.label)
        return found

    def _modes(self, view: View, solution: Solution) -> tuple[Searched | None, float]:
        """What was searched in these coordinates, and the share of what was found that the solution misses."""
        found = self.searches.get(view.label)
        if found is None:
            return None, 0.0
        u = solution.draws
        return found, found.missed(solution.q.sample(np.random.default_rng([self.seed, 9]), 4096) if u is None else u)

    def _plain(self, q: Any, weighed: Weighted) -> bool:
        """Is q the answer as it is: do weights hardly move it, nor what is reported, and do its own draws settle that?"""
        limit = min(PLAIN, self.target.asked or PLAIN)
        if max(difference(q, weighed, self.target.names)[:2]) > limit:
            return False
        if self.target.reported.identity:
            return True
        move = self._moved(q, weighed)
        return max(move[:2]) <= limit and not self._own_marginals(q).marked(move.undetermined).undetermined.any()

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

    def _interval(self, at_home: Solution, m: Marginals) -> tuple[float, str]:
        """Of chains: the largest error of an interval that stands in for moments, and of what."""
        marked = np.flatnonzero(m.undetermined)
        if at_home.corrected != "chains" or not marked.size or "islands" in at_home.findings["chains"]:
            return 0.0, ""
        if at_home.findings["shape"][1] < FEW_CHAINS:
            return 0.0, ""
        x = reported_chains(self.target, np.asarray(at_home.draws).reshape(*at_home.findings["shape"], -1))
        error = interval_error(x[..., marked])
        return float(error.max()), m.names[marked[int(error.argmax())]]

    def _unsettled(self, at_home: Solution, home: Weighted, m: Marginals) -> str:
        """Of weighted draws: a latent whose mean the weights do not settle, though that of what is reported of it is settled:
        a tail of log s that ends too soon does not show in s. "" if there is none."""
        if at_home.corrected != "importance" or self.target.reported.identity or not np.isfinite(home.log_p).any():
            return ""
        latent = of_weighted(home.u, home.log_weights, self.target.names)
        said = {name for name, mark in zip(m.names, m.undetermined, strict=True) if mark == MEAN_AND_SD}
        open_ = [i for i in np.flatnonzero(latent.undetermined == MEAN_AND_SD) if latent.names[i] not in said]
        return latent.names[max(open_, key=lambda i: latent.errors()[0][i])] if open_ else ""

    def _reported(self, view: View, weighed: Weighted) -> Marginals:
        """Of weighted draws of this view, in the coordinates that are reported."""
        u = weighed.u if view.back is None else view.back(weighed.u)
        return of_weighted(self.target.reported(u), weighed.log_weights, self.target.reported.names)

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

    def _add(self, view: View, name, solution, weighed, began, used, testimony) -> Step:
        at_home, home_weighed = view.home(self.target, solution, weighed)
        marginals = self._marginals(at_home, home_weighed)
        move = None
        if at_home.corrected == "none" and np.isfinite(weighed.log_p).any():
            move = self._moved(at_home.q, weighed)
            marginals = marginals.marked(move.undetermined)
        searched, missed = self._modes(view, solution)
        case = Case(
            at_home, home_weighed, self.target.names, marginals, move, self.improper, testimony, solution.evidence,
            own=None if view.back is None else weighed, spent=self.cut or self.target.budget.spent,
            evaluations=self.target.budget.used - used, searched=searched, missed=missed,
            asked=self.target.asked, box=self.target.box, no_room=view.label in self.unsearched,
            interval=self._interval(at_home, marginals),
            unsettled=self._unsettled(at_home, home_weighed, marginals),
            walls={} if self.support is None else self.support.told(self.target.names),
        )  # fmt: skip
        diagnosis = judge_solution(case)
        reliable = diagnosis.verdict is Verdict.RELIABLE and not self.target.budget.spent
        if reliable and at_home.corrected != "none" and marginals.undetermined.any():
            case = self._settled(view, case, solution, weighed)
            diagnosis = judge_solution(case)
        if not diagnosis.details["open"]:
            tried = [(s.name, s.solution, s.home) for s in self.steps]
            notes = disagreement(at_home, home_weighed, tried, self.target)
            diagnosis = noted(diagnosis, "rungs_agree", notes)
            diagnosis.details["faults"] += len(notes)
            diagnosis.details["open"] |= bool(notes)
        spent, cost = time.perf_counter() - began, self.target.budget.used - used
        step = Step(
            name, at_home, diagnosis, weighed, spent, cost, solution, view, home_weighed, case.marginals, testimony
        )
        self.steps.append(step)
        self.shown.step(step)
        return step
