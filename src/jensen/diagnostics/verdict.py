"""The verdict: is the posterior to be trusted? Every fit ends in one, with reasons in words."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from .activity import Activity, judged
from .checks import LEVELS, Check, Judged, Judgement, Verdict, from_sentences, graded, nearest_its_limit
from .marginals import MEAN_AND_SD, SD, Marginals, Move
from .psis import importance_ess, psis

KHAT_GOOD, KHAT_USABLE = 0.5, 0.7
ESS_GOOD, ESS_USABLE = 0.5, 0.1
KHAT_SLACK, ESS_NEARLY_ALL = 0.2, 0.95
SHIFT_GOOD = 0.06  # posterior standard deviations that reweighting may move a mean
SD_GOOD = 0.05  # relative change of a standard deviation under reweighting
ELBO_SE_GOOD = 0.1  # nats
FEW_DRAWS = 200  # from which an sd is known to 5 %
NAMED = 3  # quantities in a sentence


@dataclasses.dataclass
class Diagnosis(Judged):
    """What was measured on fresh draws from q, and what follows.

    khat: PSIS tail shape (over rows: the 95th percentile).   ess: importance effective sample size, share of the draws.
    elbo, elbo_se: nats, whole data.   log_evidence: importance-sampled log p(x) estimate (a lower bound on average).
    """

    khat: float
    ess: float
    elbo: float
    elbo_se: float
    log_evidence: float
    log_evidence_se: float
    n_draws: int
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "verdict": str(self.verdict)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Diagnosis":
        data = {**data, "verdict": Verdict(data["verdict"])}
        if "reasons" in data:  # of the first format
            data["checks"] = from_sentences(data["verdict"], data.pop("reasons"))
        else:
            data["checks"] = [Check(**c) for c in data["checks"]]
        return cls(**data)


def noted(d: Diagnosis, code: str, notes: Sequence[tuple[int, str]]) -> Diagnosis:
    """With what the method found out about itself: (0, 1 or 2: how bad it is, a sentence)."""
    judge = Judgement()
    judge.notes(code, notes)
    worst = LEVELS[max(LEVELS.index(d.verdict), judge.level)]
    bad, good = [c for c in judge.checks if c.level], [c for c in judge.checks if not c.level]
    return dataclasses.replace(d, verdict=worst, checks=[*bad, *d.checks, *good])


def too_few(n: int, enough: int = FEW_DRAWS) -> list[tuple[int, str]]:
    """For `noted`: what so few draws say of the fit they were drawn from."""
    return [(1, f"{n} draws are too few for a verdict that can be relied on: want {enough}.")] if n < enough else []


def undetermined(judge: Judgement, m: Marginals) -> None:
    """Names what the draws leave open. It is no fault of the rest, whose verdict stands."""
    kinds = (MEAN_AND_SD, "mean and sd", "a mean exists below 1"), (SD, "sd", "an sd exists below 0.5")
    for mark, what, needs in kinds:
        at = np.flatnonzero(m.undetermined == mark)
        if not at.size:
            continue
        at = at[np.argsort(-np.nan_to_num(m.tail[at]))]
        more = f" and {at.size - NAMED} more" if at.size > NAMED else ""
        names = ", ".join(m.names[i] for i in at[:NAMED]) + more
        index = f"; the tail index of {m.names[at[0]]} is {m.tail[at[0]]:.2f}, {needs}" if m.tail[at[0]] > 0.25 else ""
        judge(
            "undetermined",
            0,
            f"{what} of {names}: not determined, since a tail holds more of it than {m.n:,} draws settle{index}. "
            "Use the quantiles.",
            where=names,
        )


def judge_ending(judge: Judgement, why: str, skipped: int, n_steps: int, *, matters: bool) -> None:
    """What the way the optimisation ended says. Where importance weights already vouch for q it `matters` less."""
    if why == "diverged":
        judge(
            "ending",
            2,
            "The optimisation diverged: it was rolled back to its last good state. Scale the data or use a smaller step size.",
        )
    elif why == "interrupted":
        judge("ending", 1, f"The fit was interrupted after {n_steps:,} steps.")
    elif why == "budget":
        judge(
            "ending",
            1 if matters else 0,
            f"The budget was used up, after {n_steps:,} steps, before the objective settled"
            + ("; allow more." if matters else "."),
        )
    elif why == "stalled":
        judge("ending", 0, "The objective stopped rising at a fixed step size.")
    else:
        judge("ending", 0, f"The objective settled after {n_steps:,} steps.")
    if skipped:
        judge(
            "skipped_steps",
            1 if skipped > 0.01 * max(n_steps, 1) else 0,
            f"{skipped:,} steps were skipped because the log density or its gradient was not finite.",
            value=skipped / max(n_steps, 1),
            limits=(0.01, math.inf),
        )


def diagnose_global(
    log_p: Float[np.ndarray, " S"],
    log_q: Float[np.ndarray, " S"],
    coordinates: Float[np.ndarray, "S D"],
    names: list[str],
    *,
    why: str,
    skipped: int,
    n_steps: int,
    complete: bool = True,
    move: Move | None = None,
    marginals: Marginals | None = None,
) -> Diagnosis:
    """From draws of q over global latents: k-hat, ESS, and how far reweighting to the posterior moves the moments.

    move: how far the weights move what is reported.   marginals: of what is reported, by draws of q.
    """
    judge = Judgement()
    log_w = np.asarray(log_p, np.float64) - np.asarray(log_q, np.float64)
    bad = ~np.isfinite(log_w)
    s = log_w.size
    smoothed = psis(log_w)
    ess = importance_ess(smoothed.log_weights) / s
    finite = log_w[~bad] if (~bad).any() else np.array([-np.inf])
    elbo, elbo_se = float(finite.mean()), float(finite.std() / math.sqrt(finite.size))
    top = finite.max()
    ratio = np.exp(finite - top)
    evidence = float(top + math.log(ratio.sum() / s)) if math.isfinite(top) else -math.inf
    evidence_se = float(ratio.std() / ratio.mean() / math.sqrt(s)) if math.isfinite(top) else math.inf

    if bad.any():
        judge(
            "not_finite",
            2 if bad.mean() > 0.01 else 1,
            f"{bad.mean():.1%} of draws from q have no finite log density: q reaches where the model is undefined.",
            value=float(bad.mean()),
            limits=(0.0, 0.01),
        )
    if not complete:
        judge(
            "partial_rows",
            1,
            "log p was estimated from a part of the rows, so these checks are themselves approximate.",
        )
    # where nearly all draws keep their worth, the tail that k-hat sees carries next to no mass
    slack = KHAT_SLACK if ess >= ESS_NEARLY_ALL else 0.0
    level = graded(smoothed.khat, KHAT_GOOD + slack, KHAT_USABLE + 2 * slack)
    khat = f"k-hat {smoothed.khat:.2f}"
    judge(
        "khat",
        level,
        [
            f"The tails of the importance weights are light enough ({khat}): q covers the posterior it was compared with.",
            f"The importance weights have heavy tails ({khat}, want below {KHAT_GOOD}): intervals may be too narrow.",
            f"{khat} is above {KHAT_USABLE}: q misses part of the posterior. Try a richer family, or reparameterize.",
        ][level],
        value=smoothed.khat,
        limits=(KHAT_GOOD + slack, KHAT_USABLE + 2 * slack),
    )
    level = graded(-ess, -ESS_GOOD, -ESS_USABLE)
    judge(
        "ess",
        level,
        f"Reweighting keeps {ess:.0%} of the draws' worth (importance ESS)"
        + ("." if not level else f"; want at least {ESS_GOOD:.0%}."),
        value=ess,
        limits=(ESS_GOOD, ESS_USABLE),
    )
    shift, sd_ratio, worst = moved(coordinates, smoothed.log_weights, names)
    if move is not None and max(move[:2]) > max(shift, sd_ratio):
        shift, sd_ratio, worst, _ = move
    level = 0 if shift <= SHIFT_GOOD and sd_ratio <= SD_GOOD else 1 if shift <= 0.3 and sd_ratio <= 0.3 else 2
    value, good = nearest_its_limit((shift, SHIFT_GOOD), (sd_ratio, SD_GOOD))
    judge(
        "shift",
        level,
        moves(level, shift, sd_ratio, worst),
        value=value,
        limits=(good, 0.3),
        where=worst,
    )
    if marginals is not None:
        undetermined(judge, marginals)
    judge(
        "elbo",
        graded(elbo_se, ELBO_SE_GOOD, 1.0),
        f"The ELBO is {elbo:.2f} nats, with Monte Carlo error {elbo_se:.2g}.",
        value=elbo_se,
        limits=(ELBO_SE_GOOD, 1.0),
    )
    judge_ending(judge, why, skipped, n_steps, matters=judge.level > 0)
    verdict, checks = judge.result()
    details = {
        "shift": shift,
        "sd_change": sd_ratio,
        "worst": worst,
        "not_finite": float(bad.mean()),
        "complete": complete,
    }
    return Diagnosis(verdict, checks, float(smoothed.khat), ess, elbo, elbo_se, evidence, evidence_se, s, details)


def moves(level: int, shift: float, change: float, worst: str) -> str:
    """How far weights move q's estimates, in words."""
    does = "moves the estimates" if level else "would move the estimates only"
    by = f"by at most {shift:.2f} sd in the mean and {change:.0%} in the sd (worst: {worst})."
    return f"Correcting q by importance weights {does} {by}"


def moved(x: np.ndarray, log_w: np.ndarray, names: list[str]) -> tuple[float, float, str]:
    """Largest move of a mean (in sd) and of an sd (relative) when q's draws are reweighted, and the coordinate."""
    x = np.asarray(x, np.float64)
    w = np.exp(log_w)[:, None]
    mean, sd = x.mean(0), x.std(0)
    sd = np.where(sd > 0, sd, 1.0)
    new_mean = (w * x).sum(0)
    new_sd = np.sqrt(np.maximum((w * (x - new_mean) ** 2).sum(0), 0))
    shift = np.abs(new_mean - mean) / np.maximum(np.minimum(sd, np.where(new_sd > 0, new_sd, sd)), 1e-300)
    change = np.abs(np.log(np.maximum(new_sd, 1e-300) / sd))
    constant = x.std(0) == 0
    shift, change = np.where(constant, 0, shift), np.where(constant, 0, change)
    if not (np.isfinite(shift).all() and np.isfinite(change).all()):
        return math.inf, math.inf, "not finite"
    worst = int(np.argmax(np.maximum(shift, change)))
    return float(shift.max()), float(change.max()), names[worst] if worst < len(names) else str(worst)


def diagnose_rows(
    log_w: Float[np.ndarray, "K R"],
    n_data: int,
    *,
    why: str,
    skipped: int,
    n_steps: int,
    layers: Sequence[Activity] = (),
    learned: bool = False,
) -> Diagnosis:
    """From K draws for each of R rows with a latent each: how well q(z | x) covers each row's posterior.

    layers: what of the latents depends on x (`activity`).   learned: whether the model's own parameters were trained.
    """
    judge = Judgement()
    log_w = np.asarray(log_w, np.float64)
    k, rows = log_w.shape
    smoothed = [psis(log_w[:, i]) for i in range(rows)]
    khats = np.array([s.khat for s in smoothed])
    ess = float(np.mean([importance_ess(s.log_weights) / k for s in smoothed]))
    top = log_w.max(0)
    evidence = top + np.log(np.exp(log_w - top).mean(0))
    elbo, gap = log_w.mean(0), evidence - log_w.mean(0)
    if not np.isfinite(log_w).all():
        judge("not_finite", 2, "Some log-weights are not finite.")
    heavy = float((khats > KHAT_USABLE).mean())
    level = graded(heavy, 0.05, 0.25)
    remedy = " (want at most 5%): more importance samples in score_samples, IWAE(), or a richer family" if level else ""
    judge(
        "khat",
        level,
        f"For {heavy:.0%} of {rows} rows k-hat is above {KHAT_USABLE}, where q(z | x) misses posterior{remedy}.",
        value=heavy,
        limits=(0.05, 0.25),
    )
    judge(
        "ess",
        0 if ess > ESS_USABLE else 1,
        f"Reweighting keeps {ess:.0%} of a row's draws (mean importance ESS).",
        value=ess,
        limits=(ESS_USABLE, 0.0),
    )
    sampled = f"with {k} importance samples the log-likelihood is {evidence.mean():.2f}"
    judge(
        "elbo",
        0,
        f"The ELBO is {elbo.mean():.2f} nats a row; {sampled}, a gap of {gap.mean():.2f}.",
        value=float(gap.mean()),
    )
    judged(layers, learned, judge)
    judge_ending(judge, why, skipped, n_steps, matters=True)
    verdict, checks = judge.result()
    se = lambda a: float(n_data * a.std() / math.sqrt(rows))
    details = {
        "rows": rows,
        "heavy": heavy,
        "elbo_per_datum": float(elbo.mean()),
        "log_likelihood_per_datum": float(evidence.mean()),
        "active_units": {layer.name: [layer.active, layer.units] for layer in layers},
        "khat_quantiles": np.quantile(khats, [0.05, 0.5, 0.95], method="higher").tolist(),
    }
    khat = float(np.quantile(khats, 0.95, method="higher"))  # of infinite ones too: no interpolation
    return Diagnosis(
        verdict,
        checks,
        khat,
        ess,
        n_data * float(elbo.mean()),
        se(elbo),
        n_data * float(evidence.mean()),
        se(evidence),
        k,
        details,
    )
