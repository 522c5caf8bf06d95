"""Decoders on binarised digits and clothes, every way of fitting q under one protocol.

`python -m benchmarks.vae_table [--data-set mnist fashion] [--model vae lmf] [--method NAME ...] [--epochs 100] [--seeds 0]
[--rows 10000] [--data FOLDER] [--out rows.jsonl]`: a row of numbers for each cell.

Data: statically binarised MNIST, 50,000 rows to train and 10,000 to test; Fashion-MNIST at threshold 0.5, 60,000 and 10,000.
Models: vae: z 10, decoder 200-200 with ReLU; lmf: logistic matrix factorisation, z 50, a linear decoder. Encoders 200-200.
Batches of 100, Adam with one rate that falls along a cosine to zero. Test log-likelihoods, all lower bounds on average:
importance sampling from q (semi-implicit q: with the mixing draw that made z among the fresh ones), and for the rows
`--refined` the Gaussian around HMC chains. `published` is the estimator that leaves the generating draw out: no bound.
Published (nats; Titsias and Ruiz 2019; Ruiz and Titsias 2019): explicit -98.3 / -126.7, semi-implicit -97.8 / -121.5, UIVI
-94.1 / -110.7, Hoffman -96.2 / -117.7, VCD -95.9 / -117.7; lmf: explicit -111.2 / -127.4, Hoffman -103.6 / -121.9, VCD
-101.3 / -121.1.
"""

import argparse
import itertools
import json
import math
import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import jensen as jn
from benchmarks.arm_table import digits
from benchmarks.vae import BATCH, DIM, HIDDEN
from jensen.data.images import load_idx
from jensen.facts import Fact

Q, G = jn.families, jn.gradients
MODELS = {"vae": (10, (HIDDEN, HIDDEN), 0.05), "lmf": (50, (), 0.01)}  # latents, hidden layers, first HMC step
NETS = {"hidden": (HIDDEN, HIDDEN)}


def _semi_implicit(n_mixing):
    return Q.Amortised(Q.SemiImplicit(n_mixing=n_mixing, hidden=(HIDDEN, HIDDEN), n_verdict=1), hidden=())


# options of `jensen.fit`, from the first step size of the chains
METHODS = {
    "explicit": lambda step: {"family": Q.Amortised(**NETS), "objective": jn.objectives.ELBO("kl")},
    "Hoffman": lambda step: {"family": Q.Amortised(**NETS), "method": jn.methods.Hoffman(step_size=step)},
    "VCD": lambda step: {"family": Q.Amortised(**NETS), "method": jn.methods.VCD(step_size=step)},
    "IWAE": lambda step: {"family": Q.Amortised(**NETS), "objective": jn.objectives.IWAE(), "n_samples": 50},
    "SIVI": lambda step: {"family": _semi_implicit(100), "gradient": G.Pathwise()},
    "UIVI": lambda step: {"family": _semi_implicit(10), "gradient": G.UIVI()},
    "flow": lambda step: {"family": Q.Amortised(Q.InverseAutoregressive(), **NETS)},
    "full rank": lambda step: {"family": Q.Amortised(Q.FullRank(scale=1.0), **NETS)},
}


def images(name, root):
    """(train, test), zeros and ones in uint8, a row of 784 each."""
    if name == "mnist":
        return digits(root)
    part = lambda which: load_idx(f"{root}/fashion_mnist/{which}-images-idx3-ubyte.gz")
    return tuple((part(which).reshape(-1, DIM) > 127).astype(np.uint8) for which in ("train", "t10k"))


def model_of(name, seed):
    n_latents, hidden, _ = MODELS[name]
    return jn.models.LatentVariable.mlp(jr.key(seed), n_latents, (DIM,), "bernoulli", hidden=hidden)


def mixing_of(family):
    """Has q a mixing distribution?"""
    return Fact.SEMI_IMPLICIT in family.facts


def semi_implicit(fit, rows, n_samples, n_mixing, seed):
    """(valid, published) log-likelihood of each row, from draws of q and fresh mixing draws that a row's draws share.

    q(z) is estimated by the mean of q(z | eps) over the fresh eps with, or without, the one that made z.
    """
    model, family = fit.model, fit.family

    def one(inputs):
        key, x = inputs
        k1, k2, k3 = jr.split(key, 3)
        q = family(x)
        mixing = q._mixing()
        given = jax.vmap(lambda k: q.given(mixing.sample(k)))(jr.split(k1, n_mixing))
        own = jax.vmap(lambda k: q.given(mixing.sample(k)))(jr.split(k2, n_samples))
        z = jax.vmap(lambda q, k: q.sample(k))(own, jr.split(k3, n_samples))
        log_own = jax.vmap(lambda q, z: q.log_prob(z))(own, z)
        of_fresh = jax.vmap(lambda z: jax.nn.logsumexp(jax.vmap(lambda q: q.log_prob(z))(given)))(z)
        log_p = jax.vmap(lambda z: model.log_density(z, x))(z)
        mean_weight = lambda log_q: jax.nn.logsumexp(log_p - log_q) - math.log(n_samples)
        return mean_weight(jnp.logaddexp(of_fresh, log_own) - math.log(n_mixing + 1)), mean_weight(
            of_fresh - math.log(n_mixing)
        )

    keys = jr.split(jr.key(seed), len(rows))
    return jax.device_get(jax.jit(lambda i: jax.lax.map(one, i, batch_size=10))((keys, jnp.asarray(rows))))


def evaluated(fit, test, options, seed):
    """The numbers of the test rows."""
    out = {}
    if mixing_of(fit.family):
        valid, published = semi_implicit(fit, test, options.importance, options.mixing, seed)
        out |= {"test_ll": float(valid.mean()), "published_ll": float(published.mean())}
    else:
        found = fit.log_likelihood(test, n_samples=options.importance, seed=seed)
        out |= {"test_ll": found.mean, "se": found.se, "ess_median": float(np.median(found.ess))}
    if options.refined:
        some = fit.log_likelihood(test[: options.refined], method="hmc", n_samples=options.importance, seed=seed)
        out |= {
            "refined_ll": some.mean,
            "refined_rows": options.refined,
            "refined_ess_median": float(np.median(some.ess)),
        }
    return out


def cell(data_set, model, method, seed, data, options):
    train, test = data
    test = test[np.random.default_rng(0).permutation(len(test))[: options.rows]]  # the file is sorted by digit
    n_steps = int(options.epochs * len(train)) // BATCH
    fit = jn.fit(
        model_of(model, seed), train, n_steps=n_steps, batch_size=BATCH, seed=seed, progress=False,
        optimizer=optax.adam(optax.cosine_decay_schedule(options.rate, n_steps)), **METHODS[method](MODELS[model][2]),
    )  # fmt: skip
    began = time.perf_counter()
    return {
        "data_set": data_set, "model": model, "method": method, "seed": seed, "epochs": options.epochs,
        "rate": options.rate, "importance": options.importance, "rows": len(test),
        "train_bound": float(fit.history[-(len(train) // BATCH) :].mean() / len(train)),
        **evaluated(fit, test, options, seed), "steps_a_second": n_steps / fit.trail[0].seconds,
        "seconds": fit.trail[0].seconds, "evaluation_seconds": time.perf_counter() - began,
        "verdict": str(fit.verdict), "reasons": fit.reasons,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vae_table", description=__doc__)
    parser.add_argument("--data-set", nargs="*", default=["mnist", "fashion"], choices=("mnist", "fashion"))
    parser.add_argument("--model", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--method", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--epochs", type=float, default=100)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--importance", type=int, default=1000)
    parser.add_argument("--mixing", type=int, default=1000, help="fresh mixing draws of a semi-implicit q")
    parser.add_argument("--refined", type=int, default=1000, help="test rows evaluated around HMC chains; 0: none")
    parser.add_argument("--rows", type=int, default=10_000, help="test rows")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--data", default="data")
    parser.add_argument("--out")
    options = parser.parse_args()
    for data_set in options.data_set:
        data = images(data_set, options.data)
        for model, method, seed in itertools.product(options.model, options.method, options.seeds):
            try:
                row = cell(data_set, model, method, seed, data, options)
                shown = f"log p {row['test_ll']:.2f}  bound {row['train_bound']:.2f}  {row['seconds']:.0f} s"
            except jn.JensenError as error:
                row = shown = {
                    "data_set": data_set,
                    "model": model,
                    "method": method,
                    "seed": seed,
                    "error": str(error),
                }
            print(data_set, model, method, seed, shown, flush=True)
            if options.out:
                with open(options.out, "a") as f:
                    f.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
