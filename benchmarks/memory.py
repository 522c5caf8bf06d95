"""Peak resident memory of two fits that could fill a machine, each in a process of its own.

`python -m benchmarks.memory [--gigabytes 10] [--folder DIR] [--out FILE]`: IWAE with K = 50 on batches of 100 (VAE
784-200-200-10), and a fit to a memory-mapped `.npy` of the given size (written to FOLDER, and removed). The bound is 2 GB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import surroundings

DIM, LATENT, HIDDEN, BATCH = 784, 10, 200, 100


def write_rows(path: Path, gigabytes: float) -> int:
    """Random bits as uint8, in one `.npy`; the number of rows."""
    n = int(gigabytes * 2**30) // DIM
    rng = np.random.default_rng(0)
    block = (rng.random((20_000, DIM)) < 0.13).astype(np.uint8)
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (n, DIM))
    for at in range(0, n, len(block)):
        out[at : at + len(block)] = np.roll(block, at, axis=1)[: n - at]
    out.flush()
    return n


def fit(data, objective, n_samples, n_steps):
    """One fit; seconds of the loop."""
    import jax

    import jensen as jn

    model = jn.models.LatentVariable.mlp(jax.random.key(0), LATENT, (DIM,), hidden=(HIDDEN, HIDDEN))
    family = jn.families.Amortised(hidden=(HIDDEN, HIDDEN))
    options = dict(family=family, objective=objective, n_samples=n_samples, n_steps=n_steps, batch_size=BATCH)
    return jn.fit(model, data, optimizer=1e-3, progress=False, **options).trail[0].seconds


def child(case: str, path: str) -> None:
    """Runs one case and prints its row."""
    import jensen as jn

    if case == "IWAE, K = 50":
        data = (np.random.default_rng(0).random((10_000, DIM)) < 0.13).astype(np.uint8)
        steps, seconds = 300, fit(data, jn.objectives.IWAE(), 50, 300)
    else:
        steps, seconds = 2000, fit(path, jn.objectives.ELBO(), 1, 2000)
    status = Path("/proc/self/status").read_text()  # not getrusage: it remembers the parent's peak
    peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20
    print(json.dumps({"peak_gb": peak, "steps_per_second": steps / seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    path = options.folder / "jensen-memory-benchmark.npy"
    if options.case:
        return child(options.case, str(path))
    rows = []
    try:
        began = time.perf_counter()
        n = write_rows(path, options.gigabytes)
        print(f"wrote {n:,} rows, {path.stat().st_size / 2**30:.1f} GB, in {time.perf_counter() - began:.0f} s")
        for case in ("IWAE, K = 50", "memory-mapped"):
            command = [sys.executable, "-m", "benchmarks.memory", "--case", case, "--folder", str(options.folder)]
            seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            size = {"gigabytes": options.gigabytes} if case == "memory-mapped" else {}
            rows.append({"benchmark": "memory", "case": case, **size, **seen, "bound_gb": 2, **surroundings()})
            print(f"{case:16s} peak {seen['peak_gb']:.2f} GB (bound 2), {seen['steps_per_second']:.0f} steps/s")
    finally:
        path.unlink(missing_ok=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a") as file:
            file.writelines(json.dumps(r) + "\n" for r in rows)
    return None


if __name__ == "__main__":
    main()
