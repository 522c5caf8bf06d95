"""What a reference says of a fit, and what the fit says of itself.

*Solved*: in every unconstrained coordinate, by the fit's draws, the mean is within 0.1 sd and the sd within 10 %; where the
fit's summary marks a coordinate as undetermined, median and width are compared in place of these.
*Silent*: RELIABLE, and not solved; or RELIABLE, and a number is printed, and not marked, that is as far off, or that is of
a moment which does not exist: in the reported coordinates, where these are known exactly.
"""

import dataclasses
from typing import Any

import numpy as np

from benchmarks.posteriors.moments import MEAN_ERROR, SD_ERROR, Errors, flat
from benchmarks.posteriors.registry import Problem

NORMAL_90 = 3.29  # width of the central 90 % of a standard normal


def quality(fit: Any, draws: Any, problem: Problem) -> dict[str, Any]:
    """The part of a row that is about one fit."""
    table, diagnosis, reliable = fit.summary(), fit.diagnosis, str(fit.verdict) == "RELIABLE"
    printed = None if problem.reported is None else printed_errors(table, *problem.reported)
    if problem.reference is None:
        errors, measure, dim = printed[0], "printed", len(flat(draws)[0])
    else:
        reference = problem.reference()
        errors = reference.errors(draws, undetermined(table, draws, reference.names))
        measure, dim = reference.measure, len(reference.names)
    wrong, marked = printed[1] if printed else [], table["undetermined"][table["undetermined"] != ""]
    return {
        "dim": dim, "measure": measure,
        "mean_error": errors.mean, "mean_at": errors.mean_at, "sd_error": errors.sd, "sd_at": errors.sd_at,
        "solved": errors.solved, "silent": reliable and (not errors.solved or bool(wrong)), "wrong": wrong,
        "marked": {str(k): str(v) for k, v in marked.items()},
        "verdict": str(fit.verdict), "reasons": list(fit.reasons), "why": fit.why,
        "rung": fit.options.get("method"), "family": fit.options.get("family"),
        "khat": fit.khat, "ess": diagnosis.ess, "n_draws": diagnosis.n_draws, "elbo": fit.elbo,
        "log_evidence": fit.log_evidence, "steps": len(fit.history), "trail": [_plain(a) for a in fit.trail],
        "corrected": diagnosis.details.get("corrected"), "evaluations": diagnosis.details.get("evaluations"),
    }  # fmt: skip


def undetermined(table: Any, draws: Any, names: list[str]) -> np.ndarray:
    """Which of the unconstrained coordinates `names` a summary reports as they are, and marks.

    A coordinate is reported as it is where it is printed by the same name with the same median.
    """
    marked = dict(zip(table.index, table["undetermined"] != "", strict=True))
    medians, own = dict(zip(table.index, table["50%"], strict=True)), np.median(flat(draws), axis=0)
    same = [np.isclose(medians.get(name, np.nan), m, rtol=1e-4, atol=1e-6) for name, m in zip(names, own, strict=True)]
    return np.array([s and marked[name] for s, name in zip(same, names, strict=True)], bool)


def printed_errors(table: Any, mean: np.ndarray, sd: np.ndarray) -> tuple[Errors, list[str]]:
    """The largest errors of the numbers that a summary prints and does not mark, and where it is wrong.

    mean, sd: exact; NaN or infinite where the moment does not exist, so that no number is right.
    """
    ends, names = table.filter(regex="%").to_numpy(), list(map(str, table.index))
    found_mean, found_sd = table[["mean", "sd"]].to_numpy().T
    scale = np.where(np.isfinite(sd) & (sd > 0), sd, np.maximum((ends[:, 2] - ends[:, 0]) / NORMAL_90, 1e-9))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_off = np.where(np.isfinite(mean), np.abs(found_mean - mean) / scale, np.inf)
        sd_off = np.where(np.isfinite(sd), np.where(sd > 0, np.abs(found_sd / sd - 1), found_sd), np.inf)
    mean_off, sd_off = (np.where(np.isnan(n), 0.0, off) for n, off in ((found_mean, mean_off), (found_sd, sd_off)))
    i, j = int(mean_off.argmax()), int(sd_off.argmax())
    wrong = np.flatnonzero((mean_off > MEAN_ERROR) | (sd_off > SD_ERROR))
    return Errors(float(mean_off[i]), names[i], float(sd_off[j]), names[j]), [names[k] for k in wrong]


def _plain(attempt: Any) -> dict[str, Any]:
    """The fields of an attempt that are a number, a word or a truth value."""
    pairs = {f.name: getattr(attempt, f.name) for f in dataclasses.fields(attempt)}
    return {k: str(v) if isinstance(v, str) else v for k, v in pairs.items() if isinstance(v, (int, float, str, bool))}
