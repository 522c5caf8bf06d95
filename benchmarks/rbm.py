"""Restricted Boltzmann machine 784-500 on binarised digits, persistent contrastive divergence, batches of 100, one sweep.

Gradient steps of a fixed size on the mean over the batch. A side's `run()` does a number of steps, goes on from where the
last call stopped (scikit-learn's starts anew), and returns that number. "matrix products alone" does the products that one
step cannot do without, at its shapes, and nothing else: its rate is the ceiling.
"ais" sides anneal 1,000 chains; their steps are temperatures.
"""

import numpy as np

from benchmarks.harness import WIDE, Workload
from benchmarks.vae import DIM, load, measure

UNITS, BATCH, RATE, CHUNK, CHAINS = 500, 100, 0.01, 250, 1000

WORKLOAD = Workload("rbm", measure, base="scikit-learn fit", warm=True)


@WORKLOAD.side("jensen", needs=("jensen", "jax"))
@WORKLOAD.side("jensen, 512-bit vectors", needs=("jensen", "jax"), env=WIDE)
def jensen_side(context):
    """`jensen.fit` of `models.RBM`: the time of its loop."""
    import jensen as jn

    data, state = load(context), {"machine": jn.models.RBM(DIM, UNITS), "seed": 0}

    def run():
        steps = 6 * CHUNK
        fit = jn.fit(
            state["machine"], data, method="pcd", optimizer=RATE, n_steps=steps, batch_size=BATCH, seed=state["seed"],
            progress=False,
        )  # fmt: skip
        state["machine"], state["seed"] = fit.machine, state["seed"] + 1
        run.seconds += fit.seconds
        return steps

    return run


@WORKLOAD.side("scikit-learn fit", needs=("sklearn",))
def sklearn_side(context):
    """`BernoulliRBM.fit`, one pass over 25,000 rows, in float32."""
    from sklearn.neural_network import BernoulliRBM

    rows = np.ascontiguousarray(load(context)[: CHUNK * BATCH], np.float32)
    model = BernoulliRBM(UNITS, learning_rate=RATE, batch_size=BATCH, n_iter=1, random_state=0)

    def run():
        model.fit(rows)
        return CHUNK

    return run


@WORKLOAD.side("PyTorch", needs=("torch",))
def torch_side(context):
    """By hand, without autograd, updates in place."""
    import torch

    torch.set_num_threads(context.threads)
    torch.manual_seed(0)
    w, b, c = 0.01 * torch.randn(DIM, UNITS), torch.zeros(DIM), torch.zeros(UNITS)
    chains, data = torch.bernoulli(torch.full((BATCH, UNITS), 0.5)), torch.from_numpy(load(context)).float()

    @torch.no_grad()
    def run():
        nonlocal chains
        for rows in torch.randperm(len(data))[: CHUNK * BATCH].split(BATCH):
            x = data[rows]
            h = torch.sigmoid(torch.addmm(c, x, w))
            v = torch.bernoulli(torch.sigmoid(torch.addmm(b, chains, w.T)))
            p = torch.sigmoid(torch.addmm(c, v, w))
            chains = torch.bernoulli(p)
            w.addmm_(x.T, h, alpha=RATE / BATCH).addmm_(v.T, p, alpha=-RATE / BATCH)
            b.add_(x.mean(0) - v.mean(0), alpha=RATE)
            c.add_(h.mean(0) - p.mean(0), alpha=RATE)
        return CHUNK

    return run


@WORKLOAD.side("matrix products alone", needs=("jax",))
def products(context):
    """(100, 500) (500, 784), then (200, 784) (784, 500), then (784, 200) (200, 500), in a jitted loop."""
    import jax
    import jax.random as jr

    keys = jr.split(jr.key(0), 4)
    w, h = 0.01 * jr.normal(keys[0], (DIM, UNITS)), jr.normal(keys[1], (BATCH, UNITS))
    x, p = jr.normal(keys[2], (2 * BATCH, DIM)), jr.normal(keys[3], (2 * BATCH, UNITS))

    @jax.jit
    def steps(w, h, x, p):
        def step(_, c):
            w, h, x, p = c
            v = h @ w.T
            # each product reads something of the one before, so that none is done once for all steps
            f = x.at[0, 0].set(v[0, 0]) @ w
            g = x.T @ p.at[0, 0].set(f[0, 0])
            return w.at[0, 0].set(1e-3 * g[0, 0]), h, x, p

        return jax.lax.fori_loop(0, CHUNK, step, (w, h, x, p))

    def run():
        jax.block_until_ready(steps(w, h, x, p))
        return CHUNK

    return run


@WORKLOAD.side("jensen, ais of 1,000 chains", needs=("jensen", "jax"))
def annealing(context):
    """`log_partition` of an RBM with weights of sd 0.05, 100 temperatures a call; rates are of temperatures."""
    import equinox as eqx
    import jax.random as jr

    import jensen as jn
    from jensen.diagnostics.partition import log_partition

    machine = jn.models.RBM(DIM, UNITS, mean=load(context).mean(0))
    machine = eqx.tree_at(lambda m: m.weights, machine, (0.05 * jr.normal(jr.key(0), (DIM, UNITS)),))

    def run():
        log_partition(machine, "ais", n_chains=CHAINS, temperatures=101)
        return 100

    return run
