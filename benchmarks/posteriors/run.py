"""Quality on posteriordb: `jensen.fit(model)` with nothing chosen, against the reference draws.

`python -m benchmarks.posteriors.run --root DIR [NAME ...]` prints, and writes as JSON lines, for each posterior: the
largest error of a mean (in reference standard deviations) and of a standard deviation (relative), both over the
unconstrained coordinates; k-hat, verdict, seconds. `silent`: RELIABLE where a mean is off by more than 0.1 sd or an sd by
more than 10 %. Seeds are runs, not tuning: every row is kept.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jensen as jn
from benchmarks.harness import surroundings
from benchmarks.posteriors.models import load, names

MEAN_ERROR, SD_ERROR = 0.1, 0.1


def errors(fit, reference: dict) -> tuple[float, float]:
    """(largest mean error in sd, largest relative sd error) over the unconstrained coordinates."""
    wanted = {site: jnp.asarray(reference[site]) for site in fit.draws}
    true = jax.vmap(lambda z: fit.model.unconstrain(z)[0])(wanted)
    flat = lambda tree: np.concatenate([np.asarray(tree[s], float).reshape(len(tree[s]), -1) for s in fit.draws], 1)
    a, b = flat(fit.unconstrained(20_000, seed=1)), flat(true)
    return float(np.abs((a.mean(0) - b.mean(0)) / b.std(0)).max()), float(np.abs(a.std(0) / b.std(0) - 1).max())


def row(name: str, root: Path, seed: int) -> dict:
    """One posterior, one seed."""
    posterior = load(name, root)
    began = time.perf_counter()
    fit = jn.fit(jn.from_numpyro(posterior.model, *posterior.args, **posterior.kwargs), seed=seed)
    seconds = time.perf_counter() - began
    mean_error, sd_error = errors(fit, posterior.reference())
    wrong = mean_error > MEAN_ERROR or sd_error > SD_ERROR
    return {
        "benchmark": "posteriors", "posterior": name, "seed": seed, "method": "jensen.fit", "family": fit.options["family"],
        "mean_error": mean_error, "sd_error": sd_error, "solved": not wrong, "khat": fit.khat, "ess": fit.diagnosis.ess,
        "verdict": str(fit.verdict), "silent": wrong and fit.verdict == jn.Verdict.RELIABLE, "why": fit.why,
        "steps": len(fit.history), "seconds": seconds, "x64": bool(jax.config.read("jax_enable_x64")),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posteriors.run", description=__doc__)
    parser.add_argument("name", nargs="*", help="posteriors; default: all")
    parser.add_argument("--root", type=Path, default=os.environ.get("POSTERIORDB"), help="the posteriordb folder")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--x64", action="store_true", help="in float64")
    parser.add_argument("--out", type=Path, help="file to which the rows are appended, as JSON lines")
    options = parser.parse_args()
    if options.root is None or not options.root.is_dir():
        parser.error(f"--root: `{options.root}` is not a folder; it must hold posteriordb's data/, stan/ and draws/")
    jax.config.update("jax_enable_x64", options.x64)
    rows = []
    print(
        f"{'posterior':42s} {'mean':>7s} {'sd':>6s} {'k-hat':>6s} {'ESS':>5s} {'verdict':10s} {'family':9s} {'seconds':>7s}"
    )
    for name in options.name or names():
        for seed in range(options.seeds):
            r = row(name, options.root, seed)
            rows.append({**r, **surroundings()})
            flag = "SILENT" if r["silent"] else "solved" if r["solved"] else ""
            print(f"{name:42s} {r['mean_error']:7.2f} {r['sd_error']:6.2f} {r['khat']:6.2f} {r['ess']:5.2f} "
                  f"{r['verdict']:10s} {r['family']:9s} {r['seconds']:7.1f} {flag}", flush=True)  # fmt: skip
    solved, silent = sum(r["solved"] for r in rows), sum(r["silent"] for r in rows)
    reliable = sum(r["verdict"] == "RELIABLE" for r in rows)
    print(f"{solved} of {len(rows)} solved, {reliable} called RELIABLE, {silent} silent failures")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a") as file:
            file.writelines(json.dumps(r) + "\n" for r in rows)
    sys.exit(1 if silent else 0)


if __name__ == "__main__":
    main()
