"""Belief networks with 200 Bernoulli units a layer on statically binarised MNIST, every estimator under one protocol.

`python -m benchmarks.arm_table [--net linear nonlinear two-layer three-layer] [--gradient NAME ...] [--epochs 40] [--seeds 0]
[--out rows.jsonl]`: for each cell a row with the ELBO and the importance-weighted bound of the test digits.

Protocol: batches of 50, Adam with one rate that falls along a cosine to zero, and draws so many that a step costs each
estimator four evaluations of the log-weight a digit (REINFORCE and leave-one-out four draws; DisARM and ARM two pairs
in one layer; REBAR one draw). Test: `--importance` draws a digit from q.
Published under 1,200 epochs (Yin and Zhou, 2019): ARM 107.2 / 98.4 / 96.7, REBAR 107.7 / 101.4 / 95.4.
"""

import argparse
import itertools
import json
import time

import jax
import numpy as np
import optax

import jensen as jn
from benchmarks.vae import DIM
from jensen.data import binarized_mnist
from jensen.zoo import rowwise

UNITS, ROWS_A_STEP = 200, 50
NETS = {
    "linear": ((UNITS,), ()),
    "nonlinear": ((UNITS,), (UNITS, UNITS)),
    "two-layer": ((UNITS, UNITS), ()),
    "three-layer": ((UNITS,) * 3, ()),
}
# draws a digit, in one layer and in two
DRAWS = {
    "ScoreFunction": (4, 4), "LeaveOneOut": (4, 4), "RaoBlackwell": (4, 4), "NVIL": (4, 4), "MuProp": (3, 3),
    "ARM": (2, 1), "DisARM": (2, 1), "REBAR": (1, 1), "RELAX": (1, 1), "GumbelSoftmax": (4, 4), "StraightThrough": (4, 4),
}  # fmt: skip


def digits(root, validation=False):
    """(train, with the validation digits on request; test), zeros and ones."""
    part = binarized_mnist(f"{root}/binarized_mnist/binarized_mnist.npz")
    return np.concatenate([part["train"], part["valid"]]) if validation else part["train"], part["test"]


def family_of(widths, hidden):
    q = jn.families
    one = len(widths) == 1
    chain = q.Bernoulli() if one else q.Layers(tuple(f"h{i + 1}" for i in range(len(widths))), hidden=hidden)
    return q.Amortised(chain, hidden=hidden, activation="tanh")


def cell(net, gradient, seed, data, options):
    widths, hidden = NETS[net]
    train, test = data
    n_steps = options.epochs * len(train) // ROWS_A_STEP
    model = jn.models.LatentVariable.belief_net(jax.random.key(seed), widths, (DIM,), hidden=hidden, mean=train.mean(0))
    how = {}
    if gradient in ("wake-sleep", "reweighted-wake-sleep", "wake-wake"):
        how, draws = {"method": gradient}, 1 if gradient == "wake-sleep" else 4
    else:
        how, draws = {"gradient": getattr(jn.gradients, gradient)()}, DRAWS[gradient][min(len(widths), 2) - 1]
        if options.objective == "IWAE":
            how["objective"] = jn.objectives.IWAE()
    draws = options.draws or draws
    fit = jn.fit(
        model, train, family=family_of(widths, hidden), n_samples=draws, n_steps=n_steps, batch_size=ROWS_A_STEP,
        optimizer=optax.adam(optax.cosine_decay_schedule(options.rate, n_steps)), seed=seed, progress=False, **how,
    )  # fmt: skip
    began = time.perf_counter()
    weighed, elbo = rowwise.bounds(fit.model, fit.family, test.astype(np.float32), options.importance, 0)
    train_elbo = float(fit.history[-len(train) // ROWS_A_STEP :].mean() / len(train))
    return {
        "net": net, "gradient": gradient, "objective": options.objective, "draws": draws, "seed": seed,
        "epochs": options.epochs, "rate": options.rate, "importance": options.importance,
        "test_nll": -float(weighed.mean()), "test_elbo": float(elbo.mean()), "train_bound": train_elbo,
        "steps_a_second": n_steps / fit.trail[0].seconds, "seconds": fit.trail[0].seconds,
        "evaluation_seconds": time.perf_counter() - began, "verdict": str(fit.verdict),
        "reasons": [r for r in fit.reasons if "unit" in r],
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm_table", description=__doc__)
    parser.add_argument("--net", nargs="*", default=list(NETS)[:3], choices=list(NETS))
    parser.add_argument("--gradient", nargs="*", default=list(DRAWS))
    parser.add_argument("--objective", default="ELBO", choices=("ELBO", "IWAE"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--draws", type=int, help="draws a digit; left out, as many as make four evaluations")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--importance", type=int, default=100)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--data", default="data")
    parser.add_argument("--out")
    options = parser.parse_args()
    data = digits(options.data)
    for net, gradient, seed in itertools.product(options.net, options.gradient, options.seeds):
        try:
            row = cell(net, gradient, seed, data, options)
        except jn.JensenError as error:
            row = {"net": net, "gradient": gradient, "seed": seed, "error": str(error)}
        shown = (
            f"NLL {row['test_nll']:.2f}  ELBO {row['test_elbo']:.2f}  {row['seconds']:.0f} s"
            if "error" not in row
            else row
        )
        print(net, gradient, seed, shown, flush=True)
        if options.out:
            with open(options.out, "a") as f:
                f.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
