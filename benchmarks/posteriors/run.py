"""Quality of `jensen.fit` with nothing chosen but a budget, against reference moments.

`python -m benchmarks.posteriors.run [--root DIR] [--seeds 0 1] [--budgets none seconds:2] [--fresh] [NAME ...]` gives, for
each posterior, budget and seed, a row with the largest error of a mean (in reference sd) and of an sd (relative) over the
unconstrained coordinates, computed from `fit.draws`; what the verdict said, and the seconds of a first and of a second,
equal call. *Solved* and *silent*: see `quality.py`. Every row is kept.

`--beside nuts` runs NumPyro's NUTS (4 chains, 1,000 draws each) on the same posterior and seed, and counts who solved what.
`--dear` makes all numbers of evaluations those of a density that takes milliseconds.
`--starved` gives budgets that are too small for most, at which no failure may be silent. `--shard 2/5` is the second fifth.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterable
from typing import Any

from benchmarks.harness import surroundings
from benchmarks.posteriors.choices import add_choices, chosen
from benchmarks.posteriors.fresh import append, attempt, call
from benchmarks.posteriors.peers import beside
from benchmarks.posteriors.quality import quality
from benchmarks.posteriors.registry import load
from jensen.algorithms.pace import LEAST_EFFORT, Pace

STARVED = ["seconds:1", "seconds:3", "evaluations:2000", "evaluations:10000"]
BESIDE = {"nuts": "numpyro-nuts"}
PLACES = {"measure": "benchmarks.posteriors.run:measure", "beside": "benchmarks.posteriors.peers:beside"}

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


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    start = f"{row['posterior']:40s} {row.get('dim', 0):4d} {row['seed']:4d} {row['budget']:14s} "
    if "error" in row:
        return start + " ".join(row["error"].split())[:110]
    flag = "SILENT" if row["silent"] else "solved" if row["solved"] else f"off at {row['sd_at']}, {row['mean_at']}"
    if "beside" in row:
        flag += f" / {row['beside']['peer']} {'solved' if row['beside'].get('solved') else 'not solved'}"
    again = f"{row['seconds_again']:6.2f}" if row["seconds_again"] is not None else f"{'':6s}"
    return start + (
        f"{row['mean_error']:6.2f} {row['sd_error']:6.2f} {row['khat']:6.2f} {row['ess']:5.2f} {row['verdict']:10s} "
        f"{str(row['rung'] or row['family'])[:17]:17s} {row['seconds_first']:6.2f} {again} {flag}"
    )


def totals(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each budget, and within it for each kind, tuning and held-out ones, and what stood beside."""
    out = [
        f"{'':36s} {'runs':>5s} {'solved':>7s} {'RELIABLE':>9s} {'silent':>7s} {'RELIABLE of solved':>19s} "
        f"{'evaluations':>12s} {'first, s':>9s}"
    ]
    for budget in dict.fromkeys(r["budget"] for r in rows):
        of_budget = [r for r in rows if r["budget"] == budget]
        kinds = dict.fromkeys(r["kind"] for r in of_budget)
        parts = {kind: [r for r in of_budget if r["kind"] == kind] for kind in kinds}
        parts |= {w: [r for r in of_budget if r["held_out"] is v] for w, v in (("tuning", False), ("held out", True))}
        parts["all"] = of_budget
        out += [_total(f"{budget}, {part}", found) for part, found in parts.items() if found]
    for which in dict.fromkeys(r["beside"]["peer"] for r in rows if "beside" in r):
        pairs = [r for r in rows if r.get("beside", {}).get("peer") == which]
        ours, theirs = ([bool(x.get("solved")) for x in side] for side in (pairs, [r["beside"] for r in pairs]))
        lost = [f"{r['posterior']} ({r['seed']})" for r, a, b in zip(pairs, ours, theirs, strict=True) if b and not a]
        gained = sum(a and not b for a, b in zip(ours, theirs, strict=True))
        out.append(
            f"beside {which}: {len(pairs)} runs, solved {sum(ours)} here, {sum(theirs)} there; here alone {gained},"
        )
        out.append(f"    there alone {len(lost)}: {', '.join(lost)}")
    return out + [_silence(r) for r in rows if r.get("silent")]


def _silence(row: dict[str, Any]) -> str:
    """One silent failure, and where it is."""
    where = f"off at {row['mean_at']} {row['mean_error']:.2f}, {row['sd_at']} {row['sd_error']:.2f}"
    printed = f"; printed: {', '.join(row['wrong'][:5])}" if row["wrong"] else ""
    return f"SILENT {row['posterior']} seed {row['seed']} {row['budget']} {row['rung']}: {where}{printed}"


def _total(label: str, rows: list[dict[str, Any]]) -> str:
    solved = [r for r in rows if r.get("solved")]
    reliable, silent = (sum(map(test, rows)) for test in (_is_reliable, lambda r: bool(r.get("silent"))))
    share = sum(map(_is_reliable, solved)) / max(len(solved), 1)
    evaluations = _median(r.get("evaluations") for r in rows)
    seconds = _median(r.get("seconds_first") for r in rows)
    counts = f"{label:36s} {len(rows):5d} {len(solved):7d} {reliable:9d} {silent:7d}"
    return f"{counts} {share:19.0%} {evaluations:12.0f} {seconds:9.2f}"


def _median(values: Iterable[float | None]) -> float:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else float("nan")


def _is_reliable(row: dict[str, Any]) -> bool:
    return row.get("verdict") == "RELIABLE"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posteriors.run", description=__doc__)
    add_choices(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--budgets", nargs="+", default=["none"], help="none, seconds:2, evaluations:20000, ...")
    parser.add_argument("--fresh", action="store_true", help="a new process for each row; no compilation cache")
    parser.add_argument("--once", action="store_true", help="no second call")
    parser.add_argument("--x64", action="store_true", help="in float64")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="passed to jensen.fit")
    parser.add_argument("--starved", action="store_true", help=f"the budgets {', '.join(STARVED)}")
    parser.add_argument("--dear", action="store_true", help="as if an evaluation took milliseconds: with least effort")
    parser.add_argument("--beside", nargs="+", default=[], choices=list(BESIDE), help="others, on the same posteriors")
    options = parser.parse_args()
    passed = dict(item.split("=", 1) for item in options.option)
    run = lambda f, a: call(PLACES[f.__name__], a, options.timeout) if options.fresh else attempt(f, **a)
    rows = []
    if options.dear and options.fresh:
        parser.error("--dear changes this process alone: not with --fresh")
    if options.dear:
        Pace.effort = property(lambda pace: LEAST_EFFORT)
    print(HEADER)
    budgets = STARVED if options.starved else options.budgets
    for name, budget, seed in itertools.product(chosen(options), budgets, options.seeds):
        problem = load(name, options.root)
        row = {"benchmark": "posteriors", "posterior": name, "kind": problem.kind, "held_out": problem.held_out}
        row |= {"seed": seed, "budget": budget, "options": passed, "fresh": options.fresh, "x64": options.x64}
        row |= {"dear": True} if options.dear else {}
        about = dict(name=name, root=options.root, seed=seed)
        row |= run(measure, about | dict(budget=budget, twice=not options.once, x64=options.x64, options=passed))
        for which in options.beside:
            row["beside"] = {"peer": BESIDE[which]} | run(beside, about | {"which": BESIDE[which]})
        row |= surroundings()
        print(line(row), flush=True)
        rows.append(row)
        if options.out:
            append([row], options.out)
    print("\n" + "\n".join(totals(rows)))
    sys.exit(1 if any(r.get("silent") for r in rows) else 0)


if __name__ == "__main__":
    main()
