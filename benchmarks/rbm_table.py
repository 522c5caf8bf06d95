"""Boltzmann machines on statically binarised MNIST: test log-likelihood by annealed importance sampling, with intervals.

`python -m benchmarks.rbm_table [--cell cd-1 cd-25 pcd dbm-centred] [--dynamic] [--epochs 20] [--chains 100]
[--temperatures 14500] [--out rows.jsonl] [--image docs/images/rbm.png]`: for each cell one row with log Z, its interval, the
reverse estimate from the persistent particles, and the mean over the test digits: log p(x) of an RBM, the variational
bound of a DBM.

`--dynamic` learns from the grey MNIST digits, binarised anew at every step, as the published machines did; all are scored
on the statically binarised test digits, which are one draw of the same law.

Protocol: RBM 784-500 and DBM 784-500-1000; batches of 100; the step size falls linearly to zero from `--rate`; the mean
of all test digits is scored. Published, RBM 500 (Salakhutdinov and Murray, 2008): CD-1 -125.53, CD-3 -105.50, CD-25 -86.34
nats; DBM 500-1000 (Salakhutdinov and Hinton, 2009): -84.62.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import optax

from benchmarks.arm_table import digits
from benchmarks.harness import surroundings
from benchmarks.vae import DIM
from jensen.algorithms import ContrastiveDivergence
from jensen.data import DynamicallyBinarized, load_idx
from jensen.diagnostics.partition import N_TEMPERATURES
from jensen.fit.energy import fit_energy, pretrained
from jensen.models import DBM, RBM

UNITS, DEEP, BATCH = 500, (DIM, 500, 1000), 100
CELLS = {
    "cd-1": lambda decay: ContrastiveDivergence(1, persistent=False, weight_decay=decay),
    "cd-25": lambda decay: ContrastiveDivergence(25, persistent=False, weight_decay=decay),
    "pcd": lambda decay: ContrastiveDivergence(1, weight_decay=decay),
    "pcd-5": lambda decay: ContrastiveDivergence(5, weight_decay=decay),
    "pcd-centred": lambda decay: ContrastiveDivergence(1, weight_decay=decay, centred=True),
    "dbm": lambda decay: ContrastiveDivergence(5, weight_decay=decay),
    "dbm-centred": lambda decay: ContrastiveDivergence(1, weight_decay=decay, centred=True, n_sweeps=3),
}
DBMS = "dbm", "dbm-centred"


def trained(cell, train, test, options):
    """The fit, in steps of `--epochs` passes."""
    n_steps = options.epochs * len(train) // BATCH
    rate = lambda n: optax.sgd(optax.linear_schedule(options.rate, 0.0, n))
    method, mean = CELLS[cell](options.weight_decay), train.mean(0)
    common = {"batch_size": BATCH, "seed": options.seed, "progress": False}
    if cell not in DBMS:
        machine = RBM(DIM, UNITS, mean=mean, seed=options.seed)
    else:
        machine = DBM(DEEP, mean=mean, recognition=options.recognition, seed=options.seed)
        steps = options.pretrain * len(train) // BATCH
        if steps:
            below = ContrastiveDivergence(1, persistent=cell == "dbm-centred", weight_decay=options.weight_decay)
            machine = pretrained(machine, train, method=below, n_steps=steps, optimizer=rate(steps), **common)
    return fit_energy(machine, train, method=method, n_steps=n_steps, optimizer=rate(n_steps), held_out=test, **common)


def row_of(cell, fit, data, options):
    train, test = data
    began = time.perf_counter()
    annealing = {"n_chains": options.chains, "temperatures": options.temperatures}
    found = fit.log_partition("ais", **annealing)
    annealed = time.perf_counter() - began
    score = lambda x: float(fit.score_samples(x, found).mean(dtype=np.float64))
    row = {
        "cell": cell, "epochs": options.epochs, "pretrain": options.pretrain if cell in DBMS else 0,
        "rate": options.rate, "weight_decay": options.weight_decay, "seed": options.seed, "rows": len(train),
        "what": "bound" if cell in DBMS else "log-likelihood", "test": score(test),
        "dynamic": options.dynamic, "train": score(np.asarray(train)[: len(test)]),
        "log_z": found.estimate, "lower": found.lower, "upper": found.upper,
        "ess": found.ess, "khat": found.khat, "chains": options.chains, "temperatures": options.temperatures,
        "steps_a_second": len(fit.history) / fit.seconds, "seconds": fit.seconds, "annealing_seconds": annealed,
    }  # fmt: skip
    if fit.chains is not None:
        # from the particles, so from above only as far as they have mixed: far above log Z, the first score is too good
        row["log_z_reverse"] = fit.log_partition("reverse", temperatures=options.temperatures).estimate
        row["test_by_reverse"] = row["test"] + found.estimate - row["log_z_reverse"]
    return row | {"verdict": str(fit.verdict), "reasons": fit.reasons} | surroundings()


def draw(fit, path, label):
    """Filters of the 40 units whose weights are largest, and fantasy particles."""
    import matplotlib.pyplot as plt

    weights = np.asarray(fit.machine.weights[0]).T
    largest = np.argsort(-np.linalg.norm(weights, axis=1))[:40]
    odd = tuple(a[:40] for a in fit.particles(1000)[1])
    # p(v | h) shows more than bits do; 1,000 sweeps on from the persistent chains
    fantasies = fit.decode(np.concatenate(odd, 1))
    figure, axes = plt.subplots(2, 1, figsize=(8, 7), layout="constrained")
    for axis, images, title in zip(axes, (weights[largest], fantasies), ("filters", "fantasy particles"), strict=True):
        span = np.abs(images).max() if title == "filters" else 1.0
        tiles = np.concatenate([np.concatenate(list(r), 1) for r in images.reshape(4, 10, 28, 28)])
        low = -span if title == "filters" else 0.0
        axis.imshow(tiles, cmap="RdBu_r" if title == "filters" else "gray_r", vmin=low, vmax=span)
        axis.set_title(f"{label}: {title}", fontsize=10)
        axis.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rbm_table", description=__doc__)
    parser.add_argument("--cell", nargs="*", default=["cd-1", "cd-25", "pcd", "dbm-centred"], choices=list(CELLS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pretrain", type=int, default=10, help="passes of pre-training of each layer of a DBM")
    parser.add_argument("--recognition", action="store_true", help="a network that starts mean field (DBM)")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--chains", type=int, default=100)
    parser.add_argument("--temperatures", type=int, default=N_TEMPERATURES)
    parser.add_argument("--validation", action="store_true", help="learn from the validation digits too: 60,000")
    parser.add_argument("--dynamic", action="store_true", help="learn from grey digits, binarised anew at every step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="data")
    parser.add_argument("--image", help="where filters and fantasies of the last cell are drawn")
    parser.add_argument("--out")
    options = parser.parse_args()
    data = digits(options.data, options.validation)
    if options.dynamic:
        grey = load_idx(Path(options.data) / "mnist" / "train-images-idx3-ubyte.gz").reshape(-1, DIM) / 255
        data = DynamicallyBinarized(grey), data[1]
    for cell in options.cell:
        fit = trained(cell, *data, options)
        row = row_of(cell, fit, data, options)
        print(
            f"{cell}: test {row['test']:.2f}, log Z {row['log_z']:.2f} ({row['lower']:.2f}, {row['upper']:.2f})",
            flush=True,
        )
        print(json.dumps(row), flush=True)
        if options.out:
            with open(options.out, "a") as f:
                f.write(json.dumps(row) + "\n")
        if options.image:
            draw(fit, options.image, cell)


if __name__ == "__main__":
    main()
