"""Bayesian regressions beside long NUTS: waveform (logistic, 22 weights) and MNIST (multinomial logistic, 7,850 weights).

`python -m benchmarks.regressions --data FOLDER [--target waveform mnist] [--fits NAME ...] [--steps 20000] [--out rows.jsonl]
[--reference draws.npz]`

For every fit: standard deviations against those of NUTS (ratio: median and extremes), the largest shift of a mean in NUTS sds,
the root mean square error of the correlations (of 22 weights; MNIST: 2,000 random pairs), and the share of NUTS draws in the
fit's central 95 % intervals (mean and smallest over weights; 95 % if exact).
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import jensen as jn
from jensen.data.images import load_idx

ROWS_A_STEP = 500


class Regression:
    """`log_prior(beta)`, `log_likelihood(beta, row)`, and rows: a model for jensen, and its whole density for NUTS."""

    def __init__(self, shape, prior_sd, log_likelihood, rows, batch_size):
        self.shape, self.rows, self.batch_size = shape, rows, batch_size
        self.log_prior = lambda b: -0.5 * jnp.sum((b / prior_sd) ** 2)
        self.log_likelihood = log_likelihood

    def model(self):
        return jn.models.LogDensity(self.log_prior, self.shape, log_likelihood=self.log_likelihood)

    def log_density(self, beta):
        rows = jax.tree.map(jnp.asarray, self.rows)
        return self.log_prior(beta) + jax.vmap(lambda row: self.log_likelihood(beta, row))(rows).sum()


def waveform(root, n_digits):
    """400 rows, 22 weights, prior N(0, 100)."""
    d = np.load(f"{root}/sivi/waveform.npz")
    sign = 2.0 * d["y_train"] - 1
    rows = (d["X_train"] * sign[:, None]).astype(np.float32)
    return Regression((22,), 10.0, lambda b, row: jax.nn.log_sigmoid(row @ b), rows, None)


def mnist(root, n_digits):
    """The first digits, 785 x 10 weights, prior N(0, 1)."""
    x = load_idx(f"{root}/mnist/train-images-idx3-ubyte.gz")[:n_digits].reshape(n_digits, -1) / 255.0
    y = load_idx(f"{root}/mnist/train-labels-idx1-ubyte.gz")[:n_digits].astype(np.int32)
    rows = {"x": np.concatenate([x, np.ones((n_digits, 1))], 1).astype(np.float32), "y": y}
    like = lambda b, row: jax.nn.log_softmax(row["x"] @ b)[row["y"]]
    return Regression((785, 10), 1.0, like, rows, ROWS_A_STEP)


TARGETS = {"waveform": waveform, "mnist": mnist}


def fits(target):
    """Name -> options of `jn.fit`."""
    f, g = jn.families, jn.gradients
    noise, hidden = (10, (100, 100)) if target == "waveform" else (100, (200, 200))
    # chains on the posterior need all rows at every step: of MNIST fewer steps with one draw
    all_rows = {} if target == "waveform" else {"batch_size": None, "n_samples": 1, "n_steps": 1500}
    implicit = lambda n=100: f.SemiImplicit(n_noise=noise, hidden=hidden, n_mixing=n)
    out = {
        "mean field": {"family": f.MeanField()},
        "low rank (20)": {"family": f.LowRank(rank=20)},
        "SIVI": {"family": implicit()},
        "UIVI": {"family": implicit(), "gradient": g.UIVI()},
        "VCD": {"family": f.MeanField(), "method": "vcd"} | all_rows,
        "Hoffman": {"family": f.MeanField(), "method": "hoffman"} | all_rows,
    }
    small = {"full rank": f.FullRank(), "real NVP": f.RealNVP(), "spline": f.Spline(), "IAF": f.InverseAutoregressive()}
    return out | ({n: {"family": q} for n, q in small.items()} if target == "waveform" else {})


def nuts(target, warmup, n, chains, path):
    """Draws of NUTS, (n, D); kept in a file if a path is given."""
    from numpyro.diagnostics import split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    if path and Path(path).exists():
        return np.load(path)["draws"]
    began = time.perf_counter()
    sampler = NUTS(potential_fn=lambda b: -target.log_density(b))
    mcmc = MCMC(
        sampler, num_warmup=warmup, num_samples=n, num_chains=chains, chain_method="vectorized", progress_bar=False
    )
    start = jnp.zeros((chains, *target.shape) if chains > 1 else target.shape)
    mcmc.run(jr.key(0), init_params=start)
    grouped = np.asarray(mcmc.get_samples(group_by_chain=True)).reshape(chains, n, -1)
    print(
        f"NUTS: {time.perf_counter() - began:.0f} s, R-hat at most {np.max(split_gelman_rubin(grouped)):.3f}",
        flush=True,
    )
    draws = grouped.reshape(chains * n, -1)
    if path:
        np.savez_compressed(path, draws=draws)
    return draws


def compared(draws, reference, pairs):
    """Numbers of one fit; draws and reference (n, D)."""
    mean, sd = reference.mean(0), reference.std(0)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    inside = ((reference >= low) & (reference <= high)).mean(0)
    ratio = draws.std(0) / sd
    r = lambda x: (
        np.mean((x[:, pairs[0]] - x[:, pairs[0]].mean(0)) * (x[:, pairs[1]] - x[:, pairs[1]].mean(0)), 0)
        / (x[:, pairs[0]].std(0) * x[:, pairs[1]].std(0))
    )
    return {
        "sd_ratio": [float(np.median(ratio)), float(ratio.min()), float(ratio.max())],
        "mean_shift": float(np.max(np.abs(draws.mean(0) - mean) / sd)),
        "mean_shift_median": float(np.median(np.abs(draws.mean(0) - mean) / sd)),
        "correlation_rmse": float(np.sqrt(np.mean((r(draws) - r(reference)) ** 2))),
        "coverage": [float(inside.mean()), float(inside.min())],
    }


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regressions", description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--fits", nargs="*")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--samples", type=int, default=8, help="draws a step")
    parser.add_argument("--draws", type=int, default=10_000, help="of each fit, for the comparison")
    parser.add_argument("--nuts", nargs=3, type=int, default=(1000, 2500, 4), metavar=("WARMUP", "N", "CHAINS"))
    parser.add_argument("--reference", help="folder in which the draws of NUTS are kept")
    parser.add_argument("--digits", type=int, default=5_000, help="rows of MNIST")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    o = parser.parse_args()
    for name in o.target:
        target = TARGETS[name](o.data, o.digits)
        reference = nuts(target, *o.nuts, o.reference and f"{o.reference}/{name}.npz")
        size = reference.shape[1]
        pairs = np.triu_indices(size, 1)
        if size > 100:
            pairs = tuple(np.random.default_rng(0).permutation(size)[:4000].reshape(2, -1))
        half = len(reference) // 2
        rows = [
            {"target": name, "fit": "NUTS, half of the draws", **compared(reference[:half], reference[half:], pairs)}
        ]
        print(rows[0], flush=True)
        for kind, options in fits(name).items():
            if o.fits and kind not in o.fits:
                continue
            chosen = {"n_steps": o.steps, "n_samples": o.samples, "batch_size": target.batch_size} | options
            schedule = optax.adam(optax.cosine_decay_schedule(o.rate, chosen["n_steps"]))
            try:
                fit = jn.fit(target.model(), target.rows, optimizer=schedule, seed=o.seed, progress=False, **chosen)
            except jn.JensenError as error:
                print(kind, error, flush=True)
                continue
            draws = np.asarray(fit.sample(o.draws, seed=1)).reshape(o.draws, -1)
            row = {"target": name, "fit": kind, "steps": chosen["n_steps"], "seed": o.seed}
            row |= {"draws_a_step": chosen["n_samples"]}
            row |= {"seconds": fit.seconds, "verdict": str(fit.verdict), **compared(draws, reference, pairs)}
            print(row, flush=True)
            rows.append(row)
        if o.out:
            with open(o.out, "a") as f:
                f.writelines(json.dumps(r) + "\n" for r in rows)


if __name__ == "__main__":
    main()
