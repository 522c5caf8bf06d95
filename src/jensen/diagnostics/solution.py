"""The verdict on what a solver or the ladder found: what k-hat sees, and what it cannot."""

import dataclasses
import math
from typing import Any

import numpy as np

from ..algorithms.importance import Weighted
from ..algorithms.mode_search import SEEN
from ..algorithms.searched import Searched
from ..algorithms.solver import Solution
from ..algorithms.target import OF_SD
from .checks import Judgement, graded
from .difference import difference, elbo_of
from .marginals import LONG_TAIL, MEAN_AND_SD, SD, Marginals, Move
from .verdict import ESS_GOOD, ESS_USABLE, KHAT_GOOD, KHAT_USABLE, Diagnosis, moves, undetermined
from .witness import Testimony

MEAN_ERROR = 0.035, 0.15  # standard error of a mean, in sd: good, usable
SD_ERROR = 0.035, 0.15  # of an sd, relative
AS_ASKED = 1.17, 10.0  # the same, in the accuracy that was asked for
HALVES_BY_CHANCE = 6  # standard errors of a mean: two halves differ by 2 of them in each of many coordinates
INTERVAL_ERROR = 0.04, 0.15  # of the width of an interval, relative
CHAIN_SD_ERROR = 0.025, 0.15  # chains tell their own error only where they have been
SHIFT = 0.05, 0.3  # by which reweighting may move an uncorrected q
CORRECTION = 0.2, 1.0  # by which importance weights may move q if the result is to be trusted
RHAT = 1.015, 1.1  # sampling goes on to 1.01, where it may
APART = 1.3  # an R-hat of chains that have settled, each in a place of its own
STEIN = 5.5, 12.0
DIVERGED, STUCK = 0.005, 0.25  # shares: of proposals; of the iterations one chain may rest in one place
UNDEFINED = 0.001, 0.2
WEIGHED_ESS = 0.5
HELD = 0.1  # of a second moment: a twentieth of an sd, as where rungs must agree
MISSED = 0.005, 0.05  # share of the mass


@dataclasses.dataclass
class Case:
    """What is known when a solution is judged.

    weighed:   importance weights of fresh draws from q with heavy tails.
    marginals: of what is reported, by the draws that are the result.
    move:      of an uncorrected q, how far weights would move what is reported.
    improper:  a parameter whose tail has no integral.
    testimony: the witness's, or None if it was not heard.
    evidence:  of a rung that may be trusted.   spent: the budget ran out.
    walls:     where the density ends: a "sentence", and what the report shows; empty where it does not.
    """

    solution: Solution
    weighed: Weighted
    names: list[str]
    marginals: Marginals
    move: Move | None = None
    improper: str | None = None
    testimony: Testimony | None = None
    evidence: tuple[float, float] | None = None
    own: Weighted | None = None  # the weights in q's coordinates, where these are not the model's
    spent: bool = False
    evaluations: int = 0
    searched: Searched | None = None  # for modes
    missed: float = 0.0  # share of the mass in modes that were found, and that the solution has no part in
    interval: tuple[float, str] = (
        0.0,
        "",
    )  # of chains: the largest error of an interval that stands in for moments, whose
    unsettled: str = ""  # of weighted draws: a latent whose mean they leave open
    walls: dict[str, Any] = dataclasses.field(default_factory=dict)
    asked: float | None = None  # the accuracy
    box: Any = None  # (2, D), of a density that may not end far out: about where it was looked at
    no_room: bool = False  # did the budget keep the search for modes from being made?


def judge_solution(case: Case) -> Diagnosis:
    """RELIABLE only if every check that applies is passed; the reasons name the parameter at fault."""
    judge, s, w = Judgement(), case.solution, case.weighed
    details: dict[str, Any] = {"corrected": s.corrected, "evaluations": case.evaluations}
    if case.improper is not None:
        judge(
            "improper",
            2,
            f"The density does not fall off along {case.improper}: the posterior has no finite integral, or "
            "does not identify it. Give it a proper prior, or remove it.",
            where=case.improper,
        )
    if case.walls:
        details["walls"] = case.walls
        judge("walls", 0, case.walls["sentence"])
    {"none": _uncorrected, "importance": _importance, "chains": _chains}[s.corrected](judge, case, details)
    undetermined(judge, case.marginals)
    if w.undefined > 0:
        level = graded(w.undefined, *UNDEFINED)
        judge(
            "not_finite",
            level,
            f"The log density is NaN at {w.undefined:.1%} of the draws from q"
            + ("; it is taken as zero density there, which may not be meant." if level else "."),
            value=w.undefined,
            limits=UNDEFINED,
        )
    if case.box is not None:
        judge(
            "solver_inside",
            0,
            "The density has a loop that ends when it has converged (a solver) and may not end far out: nothing was "
            "looked at far from where it is comparable to its highest, for tails and modes neither.",
        )
    _witness(judge, case, details)
    details["open"] = judge.level > 0 or case.missed > 0 or case.spent  # what another rung might settle
    _search(judge, case, details)
    if case.spent:
        judge(
            "budget",
            1 if judge.level else 0,
            "The budget was used up" + (" before the checks were passed: allow more." if judge.level else "."),
        )
    details["faults"] = judge.faults
    elbo, elbo_se = elbo_of(s.q, case.own or w)
    if math.isnan(elbo):
        judge("elbo", 0, "The ELBO of q is not determined: a few draws far out decide it.")
    verdict, checks = judge.result()
    evidence = case.evidence or w.evidence
    return Diagnosis(
        verdict, checks, w.khat, w.ess, elbo, elbo_se, float(evidence[0]), float(evidence[1]), len(w.u), details
    )


def _weights(judge: Judgement, w: Weighted, ess_good: float) -> None:
    level = graded(w.khat, KHAT_GOOD, KHAT_USABLE)
    judge(
        "khat",
        level,
        [
            f"The tails of the importance weights are light enough (k-hat {w.khat:.2f}): q covers what it was compared with.",
            f"The importance weights have heavy tails (k-hat {w.khat:.2f}, want below {KHAT_GOOD}).",
            f"k-hat is {w.khat:.2f}, above {KHAT_USABLE}: q misses part of the posterior. Reparameterize, or allow a "
            "higher rung (method='hmc').",
        ][level],
        value=w.khat,
        limits=(KHAT_GOOD, KHAT_USABLE),
    )
    level = graded(-w.ess, -ess_good, -ESS_USABLE)
    judge(
        "ess",
        level,
        f"Importance weights keep {w.ess:.0%} of the draws' worth (effective sample size)"
        + (f"; want at least {ess_good:.0%}." if level else "."),
        value=w.ess,
        limits=(ess_good, ESS_USABLE),
    )


def _errors(judge: Judgement, case: Case, few: str, others: dict[str, Any], limits: tuple) -> None:
    """Monte Carlo errors of the means and sds that are reported, and of the latent's by ranks. What a tail leaves
    undetermined is not among them: `few` says why draws may be worth too little otherwise."""
    m = case.marginals
    for i, (what, error) in enumerate(zip(("a mean, in sd,", "an sd, relative,"), m.errors(), strict=True)):
        key, code = (("se_mean", "mean_error"), ("se_sd", "sd_error"))[i]
        judged = np.where(m.undetermined >= (MEAN_AND_SD, SD)[i], 0.0, error)
        value, name = float(judged.max(initial=0.0)), m.names[int(np.argmax(judged))] if m.names else ""
        if others.get(key, 0.0) > value:
            value, name = others[key], others[f"{key}_worst"]
        good, usable = limits[i]
        if case.asked is not None:
            good, usable = AS_ASKED[0] * case.asked * OF_SD**i, max(usable, AS_ASKED[1] * case.asked)
        level = graded(value, good, usable)
        wanted = "" if case.asked is None else f", where accuracy={case.asked:g} was asked for"
        judge(
            code,
            level,
            f"The Monte Carlo error of {what} is at most {value:.3f}{wanted}"
            + (f" (worst: {name}, want {good:.3g}): {few}." if level else "."),
            value=value,
            limits=(good, usable),
            where=name,
        )


def _uncorrected(judge: Judgement, case: Case, details: dict) -> None:
    w = case.weighed
    _weights(judge, w, ESS_GOOD)
    shift, change, worst = difference(case.solution.q, case.own or w, case.names)
    details |= {"shift": shift, "sd_change": change, "worst": worst}
    if case.move is not None and max(case.move[:2]) > max(shift, change):
        shift, change, worst, _ = case.move
        details |= {"shift": shift, "sd_change": change, "worst": worst}
    good = min(SHIFT[0], case.asked or SHIFT[0])
    level = 0 if max(shift, change) <= good else 1 if max(shift, change) <= SHIFT[1] else 2
    judge(
        "shift",
        level,
        moves(level, shift, change, worst),
        value=max(shift, change),
        limits=(good, SHIFT[1]),
        where=worst,
    )


def _importance(judge: Judgement, case: Case, details: dict) -> None:
    w = case.weighed
    _weights(judge, w, WEIGHED_ESS)
    if not np.isfinite(w.log_p).any():
        return
    _errors(judge, case, "too few of the draws carry the weights", {}, (MEAN_ERROR, SD_ERROR))
    if case.unsettled:
        judge(
            "unsettled_mean",
            1,
            f"The weights do not settle the mean of {case.unsettled} in its unconstrained form: a tail of it holds more "
            "than the draws reach.",
            where=case.unsettled,
        )
    shift, change, worst = difference(case.solution.q, case.own or w, case.names)
    details |= {"shift": shift, "sd_change": change, "worst": worst}
    level = graded(max(shift, change), *CORRECTION)
    judge(
        "correction",
        level,
        f"The weights moved q's estimates by at most {shift:.2f} sd in the mean and {change:.0%} in the sd"
        + (f" (worst: {worst}): more than a correction should." if level else "."),
        value=max(shift, change),
        limits=CORRECTION,
        where=worst,
    )


def _chains(judge: Judgement, case: Case, details: dict) -> None:
    c = case.solution.findings["chains"]
    details |= {"chains": dict(c.items())}
    level = graded(c["rhat"], *RHAT)
    few = HALVES_BY_CHANCE * c["se_mean"]  # among many coordinates some halves differ by as much
    no_tail = float(case.marginals.kurtosis.max(initial=0.0)) < LONG_TAIL
    apart = no_tail and c["rhat"] > APART and c["halves"] <= max(0.1, few)
    why = (
        "each chain stays where it is, and not all in one place: modes that they do not move between. What each "
        "mode holds is not known from them."
        if apart
        else "they do not agree on it. Reparameterize it (a non-centred hierarchy), or allow more time."
    )
    judge(
        "rhat",
        level,
        f"The largest R-hat of the chains is {c['rhat']:.3f}" + (f" ({c['rhat_worst']}): {why}" if level else "."),
        value=c["rhat"],
        limits=RHAT,
        where=c.get("rhat_worst", ""),
    )
    slow = "the chains do not mix" if c["rhat"] > RHAT[0] else "the chains move too slowly for as few iterations"
    _errors(judge, case, slow, c, (MEAN_ERROR, CHAIN_SD_ERROR))
    if case.interval[0] > INTERVAL_ERROR[0]:
        error, which = case.interval
        judge(
            "accuracy_of_an_interval",
            graded(error, *INTERVAL_ERROR),
            f"The width of the central interval of {which}, whose sd is not determined, is known to {error:.0%} only.",
            value=error,
            limits=INTERVAL_ERROR,
            where=which,
        )
    judge(
        "chain_halves",
        graded(c["halves"], max(0.1, few), max(0.3, few)),
        f"First and second half of the chains differ by {c['halves']:.2f} sd.",
        value=c["halves"],
        limits=(max(0.1, few), max(0.3, few)),
    )
    if "stein" not in c:
        return judge("stein", 0, "Stein's identities do not hold at walls: the chains are judged by how they agree.")
    limits = tuple(max(s, c.get("stein_by_chance", 0.0)) for s in STEIN)
    level = graded(c["stein"], *limits)
    judge(
        "stein",
        level,
        f"Stein's identities hold up to {c['stein']:.1f} standard errors"
        + (
            f" ({c['stein_worst']}): the chains do not enter a region they come close to (a narrow neck, an edge). "
            "Reparameterize."
            if level
            else "."
        ),
        value=c["stein"],
        limits=limits,
        where=c.get("stein_worst", ""),
    )
    share = c["stuck"] / max(c["iterations"], 1)
    level = 1 if (share > STUCK and c["stuck"] > 30) or c["diverged"] > DIVERGED else 0
    remedy = ": the posterior has places narrower than the chains' steps (a funnel). Reparameterize." if level else "."
    judge(
        "divergences",
        level,
        f"A chain rested for at most {c['stuck']} iterations, and {c['diverged']:.1%} of the proposals "
        f"diverged{remedy}",
        value=c["diverged"],
        limits=(DIVERGED, math.inf),
    )
    judge.notes("estimator", case.solution.findings.get("notes", []))


def _witness(judge: Judgement, case: Case, details: dict) -> None:
    t = case.testimony
    if t is None:
        judge(
            "witness",
            1 if not case.improper else 0,
            "No witness looked for mass elsewhere (missed modes would not be seen).",
        )
        return
    details |= {"witness_surprise": t.surprise, "witness_found": t.n, "witnesses": len(t.u)}
    if not len(t.u):
        return judge(
            "witness",
            0,
            "No annealed particles were sent out: an evaluation takes long, and weights and search leave no doubt "
            "that they could settle.",
        )
    if t.n and t.holds is not None and t.moment is not None:
        details |= {"witness_holds": t.holds, "witness_moment": t.moment}
        if t.moment < HELD:
            return judge(
                "witness",
                0,
                f"{t.n} of {len(t.u)} annealed particles from far out ended where q has too little density; about "
                f"{t.holds:.1g} of the mass lies there and beyond and is missed.",
                value=t.moment,
                limits=(HELD, math.inf),
            )
    level = 0 if t.n == 0 else 1 if t.n <= max(1.0, 0.02 * len(t.u)) else 2
    judge(
        "witness",
        level,
        f"{t.n} of {len(t.u)} annealed particles from far out ended where q has too little mass: a mode, or a "
        "region, may be missed."
        if level
        else f"{len(t.u)} annealed particles from far out found no mass that q misses.",
        value=t.n / len(t.u),
        limits=(0.0, 0.02),
    )


def _search(judge: Judgement, case: Case, details: dict) -> None:
    """What was searched for modes; what it missed nobody can say, but what it would have seen."""
    s = case.searched
    if s is None:
        why = ": the budget left no room for it" if case.no_room else " beside the annealed particles"
        judge("modes_search", int(case.no_room), f"No search for modes was made{why}.")
        return
    details["search"] = {
        "starts": s.starts, "ascents": s.ascents, "rounds": s.rounds, "evaluations": s.evaluations, "modes": len(s.modes),
        "new": len(s.new), "missed": case.missed, "quiet": s.quiet,
        "forecast": sorted(s.forecast.items()),
    }  # fmt: skip
    seen = f"{s.starts:,} starts, {s.ascents:,} followed uphill, led to " + (
        "one mode" if len(s.modes) == 1 else f"{len(s.modes)} modes"
    )
    wide, half = s.forecast.get(1.0, 0.0), s.forecast.get(0.5, 0.0)
    judge(
        "modes_search",
        0,
        f"The search for modes: {seen}. Another that holds 10% of the mass would have been seen with chance {wide:.0%} "
        f"if it is as wide as those found, with {half:.0%} if half as wide.",
        value=wide,
    )
    if case.missed > 0:
        judge(
            "missed_modes",
            graded(case.missed, *MISSED),
            f"Modes that hold about {case.missed:.1%} of the mass are not in the result.",
            value=case.missed,
            limits=MISSED,
        )
    blind = s.forecast.get(s.next, 1.0)
    if s.next < 1 and blind < SEEN:
        judge(
            "modes_forecast",
            1,
            f"The modes found differ in width by a factor of {s.spread:.2g}: a further one, {s.next:.2g} times as wide as "
            f"the narrowest, would have been seen with chance {blind:.0%} only. There may be more.",
            value=blind,
            limits=(SEEN, -math.inf),
        )
    if not s.quiet:
        judge("modes_settled", 1, "The search for modes ended while it still found new ones: there may be more.")
