"""Cost against dimension: each method by name on a hierarchical normal model, in a process of its own.

`python -m benchmarks.scaling [--methods laplace nuts ...] [--dims 10 100 ...] [--out FILE]` writes a row for each method
and dimension: seconds of a first and of a later call, evaluations of the log density, seconds for each, peak memory; or
the message with which the method was refused there. `--plot ROWS` draws the picture from such rows.

The model: y_j ~ N(theta_j, 1), theta_j ~ N(mu, tau), mu ~ N(0, 5), tau ~ HalfNormal(2); dim counts mu and tau too.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import surroundings
from benchmarks.posteriors.fresh import append, call

METHODS = (
    "laplace", "pathfinder", "dadvi", "natural-gradient", "batch-and-match", "score-matching", "mixture", "flow",
    "importance", "hmc", "nuts", "smc", "gradient", "auto",
)  # fmt: skip
DIMS = (10, 100, 1_000, 10_000)
PLOT = Path(__file__).resolve().parent.parent / "docs" / "images" / "scaling.png"


def model(y):
    """Two numbers for all groups, and an effect for each."""
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    with numpyro.plate("groups", y.shape[0]):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def data(dim: int) -> np.ndarray:
    """One observation for each of dim - 2 groups."""
    rng = np.random.default_rng(dim)
    return 1.0 + 1.5 * rng.standard_normal(dim - 2) + rng.standard_normal(dim - 2)


def measure(method: str, dim: int, budget: str | None) -> dict[str, Any]:
    """The row of one method at one dimension."""
    import jensen as jn

    y = data(dim)
    per_evaluation = seconds_of_gradient(jn.from_numpyro(model, y))
    before = peak_memory()
    passed = {} if budget is None else {"budget": budget}

    def timed(seed: int):
        began = time.perf_counter()
        fit = jn.fit(model, y, method=method, seed=seed, progress=False, **passed)
        return fit, time.perf_counter() - began

    _, first = timed(0)
    fit, later = timed(1)
    steps, evaluations = len(fit.history), fit.diagnosis.details.get("evaluations")
    return {
        "seconds_first": first, "seconds_later": later, "steps": steps, "evaluations": evaluations,
        "seconds_per_step": later / steps if steps else None,
        "seconds_per_evaluation": later / evaluations if evaluations else None,
        "seconds_of_one_gradient": per_evaluation, "peak_gb": peak_memory(), "peak_gb_before": before,
        "verdict": str(fit.verdict), "rung": fit.options.get("method"), "why": fit.why,
    }  # fmt: skip


def seconds_of_gradient(made: Any) -> float:
    """The log density and its gradient, once, compiled: the unit that a method's time can be counted in."""
    import jax

    z = made.init_z()
    once = jax.jit(jax.value_and_grad(lambda z: made.log_density(z, None)))
    jax.block_until_ready(once(z))
    repeats, began = 200, time.perf_counter()
    for _ in range(repeats):
        found = once(z)
    jax.block_until_ready(found)
    return (time.perf_counter() - began) / repeats


def peak_memory() -> float:
    """Peak resident memory of this process so far, in GiB; not getrusage, which remembers the parent's."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**20


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds of a later call, seconds an evaluation (or step), and memory, against dimension; one line a method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    done = [r for r in rows if "seconds_first" in r]
    unit = lambda r: r["seconds_per_evaluation"] or r["seconds_per_step"]
    panels = {
        "wall time of a later fit, s": lambda r: r["seconds_later"],
        "time per evaluation or step, s": unit,
        "peak memory, GiB": lambda r: r["peak_gb"],
    }
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), constrained_layout=True)
    methods = [m for m in METHODS if any(r["method"] == m for r in done)]
    for axis, (title, value) in zip(axes, panels.items(), strict=True):
        for i, method in enumerate(methods):
            points = sorted((r["dim"], value(r)) for r in done if r["method"] == method and value(r))
            style = dict(marker="osv^D*"[i % 6], linestyle=["-", "--", ":"][i // 6], color=f"C{i % 10}", markersize=4)
            axis.plot(*zip(*points, strict=True) if points else ([], []), label=method, **style)
        axis.set(xscale="log", yscale="log", xlabel="dimension", title=title)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    start = f"{row['method']:18s} {row['dim']:6d} "
    if "error" in row:
        return start + ("refused: " if row.get("refused") else "") + " ".join(row["error"].split())[:120]
    count = row["evaluations"] or row["steps"]
    return start + (
        f"{row['seconds_first']:8.2f} {row['seconds_later']:8.3f} {count:9d} {row['seconds_later'] / max(count, 1):9.1e} "
        f"{row['seconds_of_one_gradient']:9.1e} {row['peak_gb']:6.2f} {row['verdict']}"
    )


def latest(path: Path) -> list[dict[str, Any]]:
    """The last row of each method and dimension in a file of rows."""
    found = [json.loads(text) for text in path.read_text().splitlines()]
    return list({(r["method"], r["dim"]): r for r in found if r.get("benchmark") == "scaling"}.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--dims", type=int, nargs="+", default=DIMS)
    parser.add_argument("--budget", help="passed to jensen.fit, for example seconds:30")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds after which a process is ended")
    parser.add_argument("--out", type=Path, help="file to which the rows are appended, as JSON lines")
    parser.add_argument("--plot", type=Path, metavar="ROWS", help="only draw the picture, from this file of rows")
    parser.add_argument("--picture", type=Path, default=PLOT, help="where the picture goes")
    options = parser.parse_args()
    if options.plot:
        return plot(latest(options.plot), options.picture)
    print(
        f"{'method':18s} {'dim':>6s} {'first':>8s} {'later':>8s} {'evals':>9s} {'s each':>9s} {'gradient':>9s} {'GiB':>6s}"
    )
    for method, dim in itertools.product(options.methods, options.dims):
        arguments = dict(method=method, dim=dim, budget=options.budget)
        row = {"benchmark": "scaling", "method": method, "dim": dim, "budget": options.budget}
        row |= call("benchmarks.scaling:measure", arguments, options.timeout) | surroundings()
        print(line(row), flush=True)
        if options.out:
            append([row], options.out)


if __name__ == "__main__":
    main()
