"""Variational autoencoder with a flow as its posterior, 784-200-200-10 with ReLU, batches of 100, Adam with rate 0.001.

Encoder 784-200-200-n, decoder 10-200-200-784, Bernoulli likelihood, standard normal prior, one draw a digit, log q along
the draw's path, loss averaged over the batch. Two posteriors, each a diagonal Gaussian seen through a flow:
  IAF: two inverse autoregressive layers, each one masked network with 40 hidden units that also reads a context of 16
       numbers (n = 10 + 10 + 16); the order of the coordinates is reversed between them;
  planar: eight planar layers, all of whose parameters the encoder computes (n = 10 + 10 + 8 x 21).

A side's `run(flow)` does a number of steps, goes on from where the last call stopped, and returns that number.
"""

import itertools
import time

from benchmarks.harness import Workload
from benchmarks.vae import BATCH, CHUNK, DIM, HIDDEN, LATENT, RATE, load, of_bits

FLOWS = ("IAF", "planar")
WIDTH, CONTEXT, IAF_LAYERS, PLANAR_LAYERS, SECONDS = 40, 16, 2, 8, 1.5
OUTPUTS = {"IAF": 2 * LATENT + CONTEXT, "planar": 2 * LATENT + PLANAR_LAYERS * (2 * LATENT + 1)}


def measure(run):
    """Steps per second with each posterior; of the loop alone where a side says how long that took (`run.seconds`)."""
    out = {}
    for flow in FLOWS:
        n, start, run.seconds = 0, time.perf_counter(), 0.0
        while time.perf_counter() - start < SECONDS:
            n += run(flow)
        out[f"{flow} steps"] = (n / (run.seconds or time.perf_counter() - start), "steps/s")
    return out


WORKLOAD = Workload("flows", measure, base="JAX by hand", warm=True)


@WORKLOAD.side("JAX by hand", needs=("jax", "optax"))
def by_hand(context):
    """A jitted scan of the update: everything two-dimensional, masks as constants, one exponential a likelihood."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np
    import optax

    log_likelihood = of_bits()

    units = np.arange(WIDTH) % LATENT - 1  # a hidden unit reads the coordinates up to this one, and the context
    reads = np.concatenate([np.arange(LATENT)[:, None] <= units, np.ones((CONTEXT, WIDTH), bool)])
    writes = np.tile(units[:, None] < np.arange(LATENT), 2)
    dense = lambda p, h: h @ p[0] + p[1]

    def perceptron(p, h):
        for layer in p[:-1]:
            h = jax.nn.relu(dense(layer, h))
        return dense(p[-1], h)

    def iaf(p, eps, given):
        log_det = 0.0
        for first, second in p:
            h = jax.nn.silu(jnp.concatenate([eps, given], 1) @ (first[0] * reads) + first[1])
            shift, s = jnp.split(h @ (second[0] * writes) + second[1], 2, axis=1)
            s = 3 * jnp.tanh(s / 3)
            eps, log_det = (eps * jnp.exp(s) + shift)[:, ::-1], log_det + s.sum()
        return eps, log_det

    def planar(p, eps, given):
        u, w = given[:, : 2 * LATENT * PLANAR_LAYERS].reshape(-1, 2, PLANAR_LAYERS, LATENT).swapaxes(0, 1)
        u, w, b = u, w + p, given[:, 2 * LATENT * PLANAR_LAYERS :]
        now = (u * w).sum(-1)
        slope = jax.nn.softplus(now + np.log(np.expm1(1.0))) - 1
        v = u + ((slope - now) / (w * w).sum(-1))[..., None] * w
        log_det = 0.0
        for i in range(PLANAR_LAYERS):
            h = jnp.tanh((eps * w[:, i]).sum(1) + b[:, i])
            eps, log_det = eps + v[:, i] * h[:, None], log_det + jnp.log1p((1 - h * h) * slope[:, i]).sum()
        return eps, log_det

    flows = {"IAF": iaf, "planar": planar}
    optimiser = optax.adam(RATE)

    def loss(p, flow, x, eps):
        out = perceptron(p["encoder"], x)
        loc, log_scale = out[:, :LATENT], out[:, LATENT : 2 * LATENT]
        y, log_det = flows[flow](p["flow"], eps, out[:, 2 * LATENT :])
        z = loc + jnp.exp(log_scale) * y
        log_ratio = -0.5 * (eps * eps).sum() - log_scale.sum() - log_det + 0.5 * (z * z).sum()
        return (log_ratio - log_likelihood(perceptron(p["decoder"], z), x).sum()) / BATCH

    @jax.jit(static_argnums=3)
    def steps(carry, key, data, flow):
        order_key, key = jr.split(key)
        order = jr.permutation(order_key, len(data))[: CHUNK * BATCH].reshape(CHUNK, BATCH)

        def step(carry, inputs):
            p, state = carry
            rows, key = inputs
            gradient = jax.grad(loss)(p, flow, data[rows].astype(jnp.float32), jr.normal(key, (BATCH, LATENT)))
            updates, state = optimiser.update(gradient, state, p)
            return (optax.apply_updates(p, updates), state), None

        return jax.lax.scan(step, carry, (order, jr.split(key, CHUNK)))[0]

    def layers(key, *sizes):
        pairs = list(itertools.pairwise(sizes))
        keys = jr.split(key, len(pairs))
        return [(jr.normal(k, s) * s[0] ** -0.5, jnp.zeros(s[1])) for k, s in zip(keys, pairs, strict=True)]

    def start(flow):
        k1, k2, *keys = jr.split(jr.key(0), 2 + IAF_LAYERS)
        masked = [layers(k, LATENT + CONTEXT, WIDTH, 2 * LATENT) for k in keys]
        own = masked if flow == "IAF" else jr.normal(keys[0], (PLANAR_LAYERS, LATENT)) * LATENT**-0.5
        encoder = layers(k1, DIM, HIDDEN, HIDDEN, OUTPUTS[flow])
        p = {"encoder": encoder, "decoder": layers(k2, LATENT, HIDDEN, HIDDEN, DIM), "flow": own}
        return p, optimiser.init(p)

    carries, data = {flow: start(flow) for flow in FLOWS}, jnp.asarray(load(context))
    seeds = iter(range(10**6))

    def run(flow):
        carries[flow] = jax.block_until_ready(steps(carries[flow], jr.key(next(seeds)), data, flow))
        return CHUNK

    return run


@WORKLOAD.side("Pyro", needs=("pyro", "torch"))
def pyro_svi(context):
    """`SVI.step` with `Trace_ELBO`, and Pyro's own conditional transforms, of which draws are scored from their cache."""
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.distributions import transforms as T
    from pyro.distributions.transforms.planar import ConditionedPlanar
    from torch import nn

    torch.set_num_threads(context.threads)
    torch.manual_seed(0)
    pyro.set_rng_seed(0)
    pyro.enable_validation(False)
    data = torch.from_numpy(load(context)).float()
    hidden = lambda n: (nn.Linear(n, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())

    def iaf():
        made = pyro.nn.ConditionalAutoRegressiveNN
        turn = torch.arange(LATENT).flip(0)
        nets = nn.ModuleList([made(LATENT, CONTEXT, [WIDTH], permutation=p) for p in (torch.arange(LATENT), turn)])
        layers = [T.ConditionalAffineAutoregressive(net) for net in nets]
        return nets, lambda out: [layer.condition(out[:, 2 * LATENT :]) for layer in layers]

    def planar():
        def layers(out):
            given = out[:, 2 * LATENT :].reshape(-1, PLANAR_LAYERS, 2 * LATENT + 1)
            parts = [given[:, i].split([1, LATENT, LATENT], 1) for i in range(PLANAR_LAYERS)]
            return [ConditionedPlanar((b, u, w)) for b, u, w in parts]

        return nn.ModuleList(), layers

    def svi(flow):
        encoder = nn.Sequential(*hidden(DIM), nn.Linear(HIDDEN, OUTPUTS[flow]))
        decoder = nn.Sequential(*hidden(LATENT), nn.Linear(HIDDEN, DIM))
        nets, layers = {"IAF": iaf, "planar": planar}[flow]()

        def model(x):
            pyro.module(f"{flow} decoder", decoder)
            with pyro.plate("batch", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).expand([len(x), LATENT]).to_event(1))
                pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

        def guide(x):
            pyro.module(f"{flow} encoder", encoder)
            pyro.module(f"{flow} flow", nets)
            out = encoder(x)
            loc, log_scale = out[:, :LATENT], out[:, LATENT : 2 * LATENT]
            base = dist.Normal(loc, log_scale.exp()).to_event(1)
            with pyro.plate("batch", len(x)):
                pyro.sample("z", dist.TransformedDistribution(base, layers(out)))

        return pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": RATE}), pyro.infer.Trace_ELBO())

    made = {flow: svi(flow) for flow in FLOWS}

    def run(flow):
        n = CHUNK // 5
        for rows in torch.randperm(len(data))[: n * BATCH].split(BATCH):
            made[flow].step(data[rows])
        return n

    return run


@WORKLOAD.side("jensen", needs=("jensen", "jax"))
def jensen_fit(context):
    """`jensen.fit` of a decoder and an amortised flow; the loop's time."""
    import jax

    import jensen as jn

    data, seeds, fam = load(context), iter(range(10**6)), jn.families
    posteriors = {
        "IAF": lambda: fam.InverseAutoregressive(n_layers=IAF_LAYERS, width=WIDTH, context=CONTEXT, scale=1.0),
        "planar": lambda: fam.Planar(n_layers=PLANAR_LAYERS, diagonal=True, scale=1.0),
    }

    def run(flow):
        seed = next(seeds)
        model = jn.models.LatentVariable.mlp(jax.random.key(seed), LATENT, (DIM,), "bernoulli", hidden=(HIDDEN, HIDDEN))
        fit = jn.fit(
            model, data, family=fam.Amortised(posteriors[flow](), hidden=(HIDDEN, HIDDEN)), objective=jn.objectives.ELBO(),
            gradient=jn.gradients.Pathwise(), optimizer=RATE, n_samples=1, n_steps=900, batch_size=BATCH, seed=seed,
            progress=False,
        )  # fmt: skip
        run.seconds += fit.trail[0].seconds
        return 900

    return run
