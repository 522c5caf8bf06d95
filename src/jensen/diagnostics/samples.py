"""The verdict on a q without a density: draws can be made, log q cannot be evaluated, so draws alone are judged."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from .checks import Judgement, graded, nearest_its_limit
from .stein import Misfit, by_chance, identity_scores, kernel_stein, misfit, misfit_of_rows
from .verdict import SD_GOOD, SHIFT_GOOD, Diagnosis, judge_ending

USABLE = 0.3  # posterior sd of a mean, or log of an sd: beyond, intervals are wrong
SURE = 3.0  # standard errors by which a misfit must exceed that
KSD_LEVEL = 0.01
FEWEST = 20


def diagnose_samples(
    draws: Float[np.ndarray, "S D"] | Float[np.ndarray, "K R D"],
    grads: Float[np.ndarray, "S D"] | Float[np.ndarray, "K R D"] | None,
    names: list[str],
    *,
    log_p: np.ndarray,
    why: str,
    skipped: int,
    n_steps: int,
    value: float = math.nan,
    complete: bool = True,
    seed: int = 0,
) -> Diagnosis:
    """From draws of q and the gradients of log p there; of a q for each row, from K draws for each of R rows.

    Definition: Stein's identities E[g] = 0 and E[(u - m) g] = -1 hold for draws of p. What they miss by, in all
                directions, is read as a shift of means and as a ratio of sds; and the kernel Stein discrepancy is tested.
    Arguments:  grads: None where log p has no gradient.   names: of the D coordinates.   log_p: (S,) or (K, R).
                why, skipped, n_steps: how the optimisation ended.   value: the objective's own last estimate, nats.
                complete: whether log p is of all rows.
    Returns:    a Diagnosis whose khat, ess, elbo and log_evidence are NaN. Never RELIABLE: a mode that q does not visit
                leaves no trace in its draws, and there are no importance weights that would tell. `fit.against` compares
                with draws known to be right.
    Cost:       O(S D^2), and O(1000^2 D) for the discrepancy.
    """
    judge, details = Judgement(), {"complete": complete, "objective": value}
    judge(
        "no_density",
        1,
        "q has no density that can be evaluated: it was judged by its draws alone, which say nothing of a mode that "
        "q never visits. Compare with draws known to be right: fit.against(draws).",
    )
    if math.isfinite(value):
        judge(
            "elbo",
            0,
            f"The objective's own estimate ended at {value:,.2f} nats; without log q it is no bound that can be checked.",
            value=value,
        )
    x, g = np.asarray(draws, np.float64), None if grads is None else np.asarray(grads, np.float64)
    fine = np.isfinite(x).all(-1) & np.isfinite(log_p)
    fine &= True if g is None else np.isfinite(g).all(-1)
    if not fine.all():
        share = 1 - fine.mean()
        judge(
            "not_finite",
            2 if share > 0.01 else 1,
            f"{share:.1%} of q's draws, or log p or its gradient there, are not finite.",
        )
    if not complete:
        judge(
            "partial_rows",
            1,
            "log p was estimated from a part of the rows, so these checks are themselves approximate.",
        )
    if g is None:
        judge("stein", 1, "log p has no gradient that could be evaluated, so Stein's identities were not checked.")
    elif x.ndim == 3:
        whole = fine.all(0)
        _rows(judge, details, x[:, whole], g[:, whole], names)
    else:
        _one(judge, details, x[fine], g[fine], names, seed)
    judge_ending(judge, why, skipped, n_steps, matters=True)
    verdict, checks = judge.result()
    nan = math.nan
    return Diagnosis(verdict, checks, nan, nan, nan, nan, nan, nan, len(x), details | {"faults": judge.faults})


def _rows(judge: Judgement, details: dict[str, Any], x: np.ndarray, g: np.ndarray, names: list[str]) -> None:
    if x.shape[1] == 0 or len(x) < FEWEST:
        judge("stein", 2, "No row has enough finite draws to check Stein's identities.")
        return
    _fits(judge, details, misfit_of_rows(x, g), names, " (root mean square over rows)")


def _one(judge: Judgement, details: dict[str, Any], x: np.ndarray, g: np.ndarray, names: list[str], seed: int) -> None:
    if len(x) < FEWEST:
        judge("stein", 2, "Too few draws are finite to check Stein's identities.")
        return
    first, second = identity_scores(x[None], g[None])
    worst = int(np.argmax(np.maximum(first, second)))
    score, limit = float(max(first.max(), second.max())), by_chance(x.shape[1], len(x))
    ksd, p = kernel_stein(x, g, seed)
    details |= {"stein": score, "stein_worst": names[worst], "stein_by_chance": limit, "ksd": ksd, "ksd_p": p}
    _fits(judge, details, misfit(x, g), names, "")
    judge(
        "stein",
        0 if score <= limit else 1,
        f"Stein's identities hold up to {score:.1f} standard errors ({names[worst]}; chance "
        f"alone gives up to {limit:.1f}).",
        value=score,
        limits=(limit, math.inf),
        where=names[worst],
    )
    judge(
        "kernel_stein",
        0 if p > KSD_LEVEL else 1,
        f"The kernel Stein discrepancy {'does not tell' if p > KSD_LEVEL else 'tells'} q's "
        f"draws from the posterior (p = {p:.2g}).",
        value=p,
        limits=(KSD_LEVEL, 0.0),
    )


def _fits(judge: Judgement, details: dict[str, Any], m: Misfit, names: list[str], how: str) -> None:
    """Graded by what is surely there: noise makes a misfit doubtful, never unusable."""
    details |= {"shift": m.shift, "sd_change": m.log_sd, "worst": names[m.worst]}
    value, good = nearest_its_limit((m.shift, SHIFT_GOOD), (m.log_sd, SD_GOOD))
    surely = max(_lower(m.shift, m.shift_se), _lower(m.log_sd, m.log_sd_se))
    level = max(graded(m.shift, SHIFT_GOOD, math.inf), graded(m.log_sd, SD_GOOD, math.inf))
    level = 2 if surely > USABLE else min(level, 1)
    judge(
        "stein",
        level,
        f"By Stein's identities means are off by up to {m.shift:.2f} sd and sds by up to {m.log_sd:.0%}{how}"
        + (f", worst: {names[m.worst]}." if level else "."),
        value=value,
        limits=(good, USABLE),
        where=names[m.worst],
    )


def _lower(value: float, error: float) -> float:
    lower = value - SURE * error
    return value if math.isnan(lower) else lower
