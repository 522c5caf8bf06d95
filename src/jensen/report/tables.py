"""The report's numbers in words: key numbers, what was tried, options, summary."""

import math
from collections.abc import Callable
from typing import Any

from ..diagnostics.solution import RHAT
from . import methods, words
from .rungs import has_rungs, origin, reasons_to_climb, taken
from .style import number

SUMMARY_ROWS = 50
UNDETERMINED = "–"
GOOD_KHAT = "tail of the importance weights; below 0.5 is good, above 0.7 is not usable"


def plus_minus(value: float, error: float) -> str:
    """value ± error, with as many digits as the error warrants."""
    if not math.isfinite(value):
        return number(value)
    if not math.isfinite(error):
        return f"{number(value)} ± {number(error)}"
    digits = 2 if error <= 0 else min(4, max(0, 1 - math.floor(math.log10(error))))
    return f"{number(value, digits)} ± {number(error, digits)}"


def _nats(value: float, error: float) -> str:
    return plus_minus(value, error) + ("" if math.isnan(value) else " nats")


def key_numbers(fit: Any) -> list[dict[str, Any]]:
    """What a reader wants to know first: name, value, what it means, and whether it needs much room."""
    rows = _by_rungs(fit) if has_rungs(fit) else _by_steps(fit)
    return [{"name": name, "value": value, "note": note, "wide": name == "Method"} for name, value, note in rows]


def _by_steps(fit: Any) -> list[tuple[str, str, str]]:
    """Of a fit by stochastic gradients."""
    d = fit.diagnosis
    ess = "not available" if not math.isfinite(d.ess) else f"{d.ess:.0%}"
    per_row = d.details.get("elbo_per_datum")
    elbo_note = "" if per_row is None else f"; {number(per_row)} a row"
    density = fit.options.get("model") == "LogDensity"
    meant = "log p(data), or the log of the density's integral" if density else "log p(data)"
    a_row, over_rows = (" a row", "; 95th percentile over rows") if fit.plated else ("", "")
    good = GOOD_KHAT + over_rows
    worth = f"how much the draws are worth after reweighting, of {d.n_draws:,}{a_row}"
    elbo, evidence = _nats(d.elbo, d.elbo_se), _nats(d.log_evidence, d.log_evidence_se)
    return [
        ("ELBO", elbo, "lower bound on the log evidence; higher is better" + elbo_note),
        ("Log evidence", evidence, f"importance-sampled estimate of {meant}"),
        ("k-hat", number(d.khat), good),
        ("Effective share", ess, worth),
        ("Steps", f"{len(fit.history):,}", words.ENDINGS.get(fit.why) or f"ended: {fit.why}"),
        ("Time", _duration(fit.seconds), f"step size {fit.step_size:g}" if fit.step_size else "wall clock"),
    ]


def _by_rungs(fit: Any) -> list[tuple[str, str, str]]:
    """Of a fit by the ladder, or by one of its methods."""
    d, method, of_draws = fit.diagnosis, fit.options["method"], origin(fit)
    moved = of_draws in ("chains", "particles")
    ess = "not available" if not math.isfinite(d.ess) else f"{d.ess:.0%}"
    elbo, evidence = plus_minus(d.elbo, d.elbo_se), plus_minus(d.log_evidence, d.log_evidence_se)
    meant = "log p(data)"
    if fit.options.get("model") == "LogDensity":
        meant += ", or the log of the density's integral"
    by = f", by a bridge between q and the {of_draws}" if moved else ", by importance sampling"
    khat = f"tail of the importance weights of the q the {of_draws} started from; the result does not rest on it"
    worth = f"how much draws of q are worth after reweighting, of {d.n_draws:,}"
    agreement = f"how well the {of_draws} agree, at worst; 1 is perfect, want below {RHAT[0]}"
    ending = words.RUNG_ENDINGS.get(fit.why) or f"ended: {fit.why}"
    return [
        ("ELBO", elbo + " nats", "lower bound on the log evidence, of q"),
        ("Log evidence", evidence + " nats", meant + by),
        ("k-hat", number(d.khat), khat if moved else GOOD_KHAT),
        ("R-hat", number(_rhat(fit), 3), agreement) if moved else ("Effective share", ess, worth),
        ("Evaluations", f"{fit.options.get('evaluations', 0):,}", f"of the log density and its gradient; {ending}"),
        ("Time", _duration(fit.seconds), "wall clock, with compilation"),
        ("Method", str(method), methods.sentence(method)),
    ]


def _rhat(fit: Any) -> float:
    return float(fit.diagnosis.details.get("chains", {}).get("rhat", math.nan))


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "not available"
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def trail(fit: Any) -> dict[str, Any]:
    """What was tried, in order: columns as (name, is it words), rows of a name, a verdict and the cells after it."""
    rungs = has_rungs(fit)
    why = reasons_to_climb(fit) if rungs else [words.ENDINGS.get(a.why) or str(a.why) for a in fit.trail]
    chosen = taken(fit) if rungs else None
    rows = []
    for i, a in enumerate(fit.trail):
        more = [number(a.log_evidence), f"{a.evaluations:,}"] if rungs else []
        cells = [number(a.khat), number(a.elbo), *more, _duration(a.seconds)]
        rows.append({"name": a.family, "verdict": str(a.verdict), "cells": cells, "why": why[i], "taken": i == chosen})
    if not rungs:
        columns = ["k-hat", "ELBO (nats)", "time"]
        return {"lead": "", "first": "family", "columns": columns, "last": "how it ended", "rows": rows}
    columns = ["k-hat", "ELBO", "log evidence", "evaluations", "time"]
    last = "why another was tried"
    return {"lead": words.TRAIL, "first": "method", "columns": columns, "last": last, "rows": rows}


def options(fit: Any) -> list[tuple[str, str]]:
    """What was fitted, with names and values in words."""
    show = lambda v: "yes" if v is True else "no" if v is False else f"{v:,}" if isinstance(v, int) else str(v)
    every = {k: words.VALUES.get((k, v)) or show(v) for k, v in fit.options.items()}
    if fit.options.get("batch_size", 0) is None:
        every["batch_size"] = "all rows"
    return [(words.OPTIONS.get(k) or k.replace("_", " "), v) for k, v in every.items()]


def summary(fit: Any) -> dict[str, Any]:
    """The first rows of the summary table, as strings, and how many are left out."""
    try:
        table = fit.summary()
    except Exception as error:
        return {"absent": f"{type(error).__name__}: {error}", "columns": [], "rows": [], "left": 0}
    table = shown_columns(table)
    shown = table.head(SUMMARY_ROWS)
    rows = [
        (str(n), [cell(v, _significant) for v in row]) for n, row in zip(shown.index, shown.to_numpy(), strict=True)
    ]
    return {"absent": "", "columns": list(table.columns), "rows": rows, "left": len(table) - len(shown)}


def shown_columns(table: Any) -> Any:
    """What is for people: mcse is mcse_mean by its older name, and what is undetermined has a column where anything is."""
    without = ["mcse"] + ([] if table["undetermined"].any() else ["undetermined"])
    return table.drop(columns=without)


def cell(value: Any, show: Callable[[float], str]) -> str:
    """A number, a word, or a dash for what is not determined."""
    return value if isinstance(value, str) else UNDETERMINED if math.isnan(value) else show(value)


def _significant(value: float) -> str:
    if not math.isfinite(value) or value == 0:
        return number(value)
    size = math.floor(math.log10(abs(value)))
    return number(value, min(6, max(0, 2 - size))) if -5 < size < 7 else f"{value:.2e}"
