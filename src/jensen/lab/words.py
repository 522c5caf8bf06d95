"""The lab's results in words: the ranked table of `print(lab)`, and the recommendation."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .result import GradientLab, Reading

COLUMNS = ("estimator", "plan", "K", "score", "variance", "SNR", "time a step", "evals", "bias")
WIDTH = 100  # of a reason


def seconds(value: float) -> str:
    """0.00042 -> "420 us"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.3g} us"


def cells(lab: "GradientLab", r: "Reading") -> list[str]:
    """A line of the table."""
    snr = "inf" if math.isinf(r.snr) else f"{r.snr:.2g}"
    return [
        r.estimator, r.plan, str(r.n_samples), f"{lab.scores[r.estimator, r.plan]:.2g}", f"{r.variance:.3g}", snr,
        seconds(r.seconds), f"{r.evaluations:,}", r.said(),
    ]  # fmt: skip


def render(lab: "GradientLab") -> str:
    """Recommendation; at each point a line for each estimator, with its best plan; who was refused."""
    s, lines = lab.settings, [lab.recommendation, ""]
    rows = "" if s["batch_size"] is None else f", {s['batch_size']} of {s['n_data']} rows"
    lines.append(f"{s['model']}, {s['family']}, {s['objective']}; K = {s['n_samples']} draws a step{rows}.")
    lines.append(
        "Score: progress a second, the best being 1. Variance: of one step's gradient, summed over "
        f"{s['n_parameters']:,} parameters."
    )
    if s["batch_size"] is not None:
        lines.append("It is given the rows; the choice of rows adds the minibatch's own, which the score counts too.")
    ranked = lab.ranked()
    first = {}
    for name, plan in ranked:
        first.setdefault(name, plan)
    by_key = {(r.point, r.estimator, r.plan): r for r in lab.readings}
    for point in lab.points:
        here = [by_key[point, *k] for k in first.items() if (point, *k) in by_key]
        more = f"; minibatch adds {here[0].minibatch:.3g}" if here and s["batch_size"] is not None else ""
        of = f", ||gradient|| {here[0].gradient_norm:.3g}" if here else ""
        lines += ["", f"at {point}{of}{more}", *_aligned([list(COLUMNS), *(cells(lab, r) for r in here)])]
    left = len(ranked) - len(first)
    if left:
        lines += ["", f"Each with its best plan; {left} more rows in .table()."]
    if lab.refused:
        lines += ["", "not measured:"]
        for name, reason, times in _grouped(lab):
            short = reason if len(reason) <= WIDTH else reason[: WIDTH - 1] + "…"
            lines.append(f"  {name}: {short}" + (f" (and {times - 1} more)" if times > 1 else ""))
    return "\n".join(lines)


def _grouped(lab: "GradientLab") -> list[tuple[str, str, int]]:
    """(who, with which plans, first reason, how many reasons) of each estimator."""
    out = []
    for name in dict.fromkeys(r.estimator for r in lab.refused):
        mine = [r for r in lab.refused if r.estimator == name]
        plans = list(dict.fromkeys(r.plan for r in mine if r.plan != "any"))
        who = f"{name} with {', '.join(plans)}" if plans else name
        out.append((who, mine[0].reason, sum(r.plan == mine[0].plan for r in mine)))
    return out


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    right = range(2, len(rows[0]) - 1)
    pad = lambda i, c: c.rjust(widths[i]) if i in right else c.ljust(widths[i])
    return ["  " + "  ".join(pad(i, c) for i, c in enumerate(row)).rstrip() for row in rows]


def recommend(lab: "GradientLab") -> str:
    """One sentence."""
    measured = {r.estimator for r in lab.readings}
    biased, out = {r.estimator for r in lab.readings if not r.unbiased}, {r.estimator for r in lab.refused} - measured
    fates = ([f"{len(biased)} biased"] if biased else []) + ([f"{len(out)} more do not fit"] if out else [])
    tried = f"of {len(measured)} estimators measured" + (f" ({', '.join(fates)})" if fates else "")
    if lab.best_name is None:
        return f"No estimator can be recommended: {tried}, none is unbiased."
    name, plan = lab.best_name
    mine = [r for r in lab.readings if (r.estimator, r.plan) == lab.best_name][-1]
    cost = f"variance {mine.variance:.3g} at {seconds(mine.seconds)} a step ({mine.point})"
    others = [k for k in lab.ranked() if k[0] != name and _clean(lab, k)]
    if not others:
        return f"{name} with {plan} draws is the only unbiased one {tried}: {cost}."
    second, ratio = others[0], 1 / max(lab.scores[others[0]], 1e-300)
    more = (
        "hardly more than"
        if ratio < 1.1
        else f"{ratio:.2g} times that of"
        if ratio < 10
        else f"{ratio:,.0f} times that of"
    )
    tried = f"{tried}, {more} {second[0]} with {second[1]} draws"
    return f"{name} with {plan} draws makes the most progress a second {tried}: {cost}."


def _clean(lab: "GradientLab", key: tuple[str, str]) -> bool:
    return all(r.unbiased for r in lab.readings if (r.estimator, r.plan) == key)
