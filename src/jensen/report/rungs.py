"""The rungs of a fit that climbed the ladder, or that took one method by name: which was taken, and why others were not."""

import math
from typing import Any

NON_CENTRED = "non-centred "


def has_rungs(fit: Any) -> bool:
    """Was it made by a method that ends by itself, and not by stochastic gradients?"""
    return "method" in fit.options


def origin(fit: Any) -> str:
    """What the fit's draws are: "none": draws of q; "importance": these, resampled; "chains"; or "particles"."""
    moved = fit.corrected == "chains" and str(fit.options.get("method")).endswith("smc")
    return "particles" if moved else fit.corrected


def taken(fit: Any) -> int | None:
    """The place in `fit.trail` of the rung that became the fit; None if it is not there.

    A name may be tried twice (again, with more modes), so the numbers are compared too.
    """
    named = [i for i, a in enumerate(fit.trail) if a.family == fit.options.get("method")]
    d = fit.diagnosis
    same = lambda a: _equal(a.elbo, d.elbo) and _equal(a.khat, d.khat) and _equal(a.log_evidence, d.log_evidence)
    exact = [i for i in named if same(fit.trail[i])]
    return (exact or named or [None])[-1]


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def reasons_to_climb(fit: Any) -> list[str]:
    """For each rung why another was tried after it; of the last, why none was."""
    found = []
    for i, a in enumerate(fit.trail):
        after = fit.trail[i + 1] if i + 1 < len(fit.trail) else None
        said = _last(fit, a) if after is None else a.climbed or _went_on(a, after)
        found.append(said[:1].upper() + said[1:].removesuffix(".") + ".")
    return found


def _last(fit: Any, attempt: Any) -> str:
    if fit.options.get("asked", "auto") != "auto":
        return "it was asked for by name"
    if attempt.verdict == "RELIABLE":
        return "it passed every check"
    spent = any(c.code == "budget" for c in fit.diagnosis.checks)
    return "the budget was used up" if spent else "it was the last to be tried"


def _went_on(attempt: Any, after: Any) -> str:
    moved = after.family.startswith(NON_CENTRED) and not attempt.family.startswith(NON_CENTRED)
    return f"It is {attempt.verdict}" + (": the same was tried in non-centred coordinates" if moved else "")
