"""Quality of `jensen.fit` with nothing chosen but a budget, against reference moments.

`python -m benchmarks.posteriors.run [--root DIR] [--seeds 0 1] [--budgets none seconds:2] [--fresh] [NAME ...]` gives, for
each posterior, budget and seed, a row with the largest error of a mean (in reference sd) and of an sd (relative) over the
unconstrained coordinates, computed from `fit.draws`; what the verdict said, and the seconds of a first and of a second,
equal call. *Solved*: both errors within 0.1. *Silent*: RELIABLE, but not solved. Every row is kept.
"""

import argparse
import dataclasses
import itertools
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import surroundings
from benchmarks.posteriors.fresh import append, attempt, call
from benchmarks.posteriors.registry import GROUPS, load, names

HEADER = (
    f"{'posterior':40s} {'dim':>4s} {'seed':>4s} {'budget':14s} {'mean':>6s} {'sd':>6s} {'k-hat':>6s} {'ESS':>5s} "
    f"{'verdict':10s} {'rung':17s} {'first':>6s} {'again':>6s}"
)


def measure(
    name: str, root: str | None, seed: int, budget: str, twice: bool, x64: bool, options: dict[str, Any]
) -> dict[str, Any]:
    """The row of one posterior, seed and budget."""
    import jax

    import jensen as jn

    with jax.enable_x64(x64):
        problem = load(name, root)
        options = options | ({} if budget == "none" else {"budget": budget})

        def timed() -> tuple[jn.Fit, float]:
            began = time.perf_counter()
            fit = jn.fit(problem.jensen(), seed=seed, progress=False, **options)
            return fit, time.perf_counter() - began

        fit, first = timed()
        again = timed()[1] if twice else None
        draws = jax.device_get(fit.draws)
    return quality(fit, draws, problem) | {"seconds_first": first, "seconds_again": again}


def quality(fit: Any, draws: Any, problem: Any) -> dict[str, Any]:
    """What the reference says of a fit, and what the fit says of itself."""
    reference, diagnosis = problem.reference(), fit.diagnosis
    errors = reference.errors(draws)
    return {
        "dim": len(reference.names), "measure": reference.measure,
        "mean_error": errors.mean, "mean_at": errors.mean_at, "sd_error": errors.sd, "sd_at": errors.sd_at,
        "solved": errors.solved, "silent": str(fit.verdict) == "RELIABLE" and not errors.solved,
        "verdict": str(fit.verdict), "reasons": list(fit.reasons), "why": fit.why,
        "rung": fit.options.get("method"), "family": fit.options.get("family"),
        "khat": fit.khat, "ess": diagnosis.ess, "n_draws": diagnosis.n_draws, "elbo": fit.elbo,
        "log_evidence": fit.log_evidence, "steps": len(fit.history), "trail": [_plain(a) for a in fit.trail],
        "corrected": diagnosis.details.get("corrected"), "evaluations": diagnosis.details.get("evaluations"),
    }  # fmt: skip


def _plain(attempt: Any) -> dict[str, Any]:
    """The fields of an attempt that are a number, a word or a truth value."""
    pairs = {f.name: getattr(attempt, f.name) for f in dataclasses.fields(attempt)}
    return {k: str(v) if isinstance(v, str) else v for k, v in pairs.items() if isinstance(v, (int, float, str, bool))}


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    start = f"{row['posterior']:40s} {row.get('dim', 0):4d} {row['seed']:4d} {row['budget']:14s} "
    if "error" in row:
        return start + " ".join(row["error"].split())[:110]
    flag = "SILENT" if row["silent"] else "solved" if row["solved"] else f"off at {row['sd_at']}, {row['mean_at']}"
    again = f"{row['seconds_again']:6.2f}" if row["seconds_again"] is not None else f"{'':6s}"
    return start + (
        f"{row['mean_error']:6.2f} {row['sd_error']:6.2f} {row['khat']:6.2f} {row['ess']:5.2f} {row['verdict']:10s} "
        f"{str(row['rung'] or row['family'])[:17]:17s} {row['seconds_first']:6.2f} {again} {flag}"
    )


def totals(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each budget, and within it for each group, tuning and held-out apart."""
    out = [
        f"{'':28s} {'runs':>5s} {'solved':>7s} {'RELIABLE':>9s} {'silent':>7s} {'RELIABLE of solved':>19s} {'first, s':>9s}"
    ]
    for budget in dict.fromkeys(r["budget"] for r in rows):
        of_budget = [r for r in rows if r["budget"] == budget]
        kinds = {r["kind"]: None for r in of_budget}
        for kind in [*kinds, "all"] if len(kinds) > 1 else ["all"]:
            out.append(_total(f"{budget}, {kind}", [r for r in of_budget if kind in ("all", r["kind"])]))
    return out


def _total(label: str, rows: list[dict[str, Any]]) -> str:
    solved = [r for r in rows if r.get("solved")]
    reliable, silent = (sum(map(test, rows)) for test in (_is_reliable, lambda r: bool(r.get("silent"))))
    share = sum(map(_is_reliable, solved)) / max(len(solved), 1)
    seconds = [r["seconds_first"] for r in rows if "error" not in r]
    middle = statistics.median(seconds) if seconds else float("nan")
    return f"{label:28s} {len(rows):5d} {len(solved):7d} {reliable:9d} {silent:7d} {share:19.0%} {middle:9.2f}"


def _is_reliable(row: dict[str, Any]) -> bool:
    return row.get("verdict") == "RELIABLE"


def kind_of(problem: Any) -> str:
    """ "posteriordb", "classic", "tuning" or "held out"."""
    return {True: "held out", False: "tuning", None: problem.group}[problem.held_out]


def chosen(options: argparse.Namespace) -> list[str]:
    """The posteriors asked for: by name, or by group, or all that can be loaded."""
    if options.name:
        return options.name
    found = names(held_out=options.held_out, root=options.root or "nowhere")
    groups = options.group or GROUPS
    return [n for n in found if any(n in names(g) for g in groups)]


def add_choices(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which posteriors are meant."""
    parser.add_argument("name", nargs="*", help="posteriors; default: all")
    parser.add_argument("--root", default=os.environ.get("JENSEN_DATA"), help="the folder of data sets")
    parser.add_argument("--group", nargs="+", choices=GROUPS, help="only these groups")
    parser.add_argument("--held-out", action=argparse.BooleanOptionalAction, help="only, or no, held-out posteriors")
    parser.add_argument("--out", type=Path, help="file to which the rows are appended, as JSON lines")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds after which a process is ended")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posteriors.run", description=__doc__)
    add_choices(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budgets", nargs="+", default=["none"], help="none, seconds:2, evaluations:20000, ...")
    parser.add_argument("--fresh", action="store_true", help="a new process for each row; no compilation cache")
    parser.add_argument("--once", action="store_true", help="no second call")
    parser.add_argument("--x64", action="store_true", help="in float64")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="passed to jensen.fit")
    options = parser.parse_args()
    passed = dict(item.split("=", 1) for item in options.option)
    rows = []
    print(HEADER)
    for name, budget, seed in itertools.product(chosen(options), options.budgets, options.seeds):
        arguments = dict(
            name=name, root=options.root, seed=seed, budget=budget, twice=not options.once, x64=options.x64
        )
        arguments |= {"options": passed}
        if options.fresh:
            found = call("benchmarks.posteriors.run:measure", arguments, options.timeout)
        else:
            found = attempt(measure, **arguments)
        label = {"benchmark": "posteriors", "posterior": name, "kind": kind_of(load(name, options.root)), "seed": seed}
        label |= {"budget": budget, "options": passed, "fresh": options.fresh, "x64": options.x64}
        row = label | found | surroundings()
        print(line(row), flush=True)
        rows.append(row)
        if options.out:
            append([row], options.out)
    print("\n" + "\n".join(totals(rows)))
    sys.exit(1 if any(r.get("silent") for r in rows) else 0)


if __name__ == "__main__":
    main()
