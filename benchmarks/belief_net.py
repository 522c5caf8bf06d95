"""Sigmoid belief network on binarised digits: 200 Bernoulli latents, linear, batches of 50, four draws a digit, Adam.

q(h | x) and p(x | h) are linear in x and in 2 h - 1, the prior's log-odds are trained, the gradient is the leave-one-out
score function, the loss the mean over the batch. Rows are visited in the order of a fresh permutation.

A side's `run()` does a number of steps, goes on from where the last call stopped, and returns that number.
"""

from benchmarks.harness import Workload
from benchmarks.vae import DIM, load, measure

UNITS, BATCH, DRAWS, RATE, CHUNK = 200, 50, 4, 1e-3, 300

WORKLOAD = Workload("belief_net", measure, base="JAX by hand", warm=True)


@WORKLOAD.side("JAX by hand", needs=("jax", "optax"))
def by_hand(context):
    """A jitted scan of the update: two-dimensional products, draws of the batch stacked, one exponential a likelihood."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax

    @jax.custom_jvp
    def bernoulli(logits, x):
        return x * logits - jnp.maximum(logits, 0) - jnp.log(1 + jnp.exp(-jnp.abs(logits)))

    @bernoulli.defjvp
    def _(primals, tangents):
        logits, x = primals
        e = jnp.exp(-jnp.abs(logits))
        r = 1 / (1 + e)
        value = x * logits - jnp.maximum(logits, 0) - jnp.log(1 + e)
        return value, (x - jnp.where(logits > 0, r, e * r)) * tangents[0] + logits * tangents[1]

    def loss(p, x, u):
        a = x @ p["we"] + p["be"]
        h = jax.lax.stop_gradient((u > jax.nn.sigmoid(-a)).astype(jnp.float32))
        x_logits = ((2 * h - 1).reshape(-1, UNITS) @ p["wd"] + p["bd"]).reshape(DRAWS, BATCH, DIM)
        log_q = bernoulli(a, h).sum(-1)
        f = bernoulli(x_logits, x).sum(-1) + bernoulli(p["prior"], h).sum(-1) - log_q
        signal = jax.lax.stop_gradient((f - f.mean(0)) / (DRAWS - 1))
        return -(f.mean(0) + (signal * log_q).sum(0)).sum() / BATCH

    optimiser = optax.adam(RATE)

    @jax.jit
    def steps(carry, key, data):
        order_key, key = jr.split(key)
        order = jr.permutation(order_key, len(data))[: CHUNK * BATCH].reshape(CHUNK, BATCH)

        def step(carry, inputs):
            p, state = carry
            rows, key = inputs
            gradient = jax.grad(loss)(p, data[rows].astype(jnp.float32), jr.uniform(key, (DRAWS, BATCH, UNITS)))
            updates, state = optimiser.update(gradient, state, p)
            return (optax.apply_updates(p, updates), state), None

        return jax.lax.scan(step, carry, (order, jr.split(key, CHUNK)))[0]

    k1, k2 = jr.split(jr.key(0))
    p = {
        "we": jr.normal(k1, (DIM, UNITS)) * 0.05, "be": jnp.zeros(UNITS), "wd": jr.normal(k2, (UNITS, DIM)) * 0.05,
        "bd": jnp.zeros(DIM), "prior": jnp.zeros(UNITS),
    }  # fmt: skip
    carry, data = (p, optimiser.init(p)), jnp.asarray(load(context))
    seeds = iter(range(10**6))

    def run():
        nonlocal carry
        carry = jax.block_until_ready(steps(carry, jr.key(next(seeds)), data))
        return CHUNK

    return run


def torch_loop(context, fused):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(context.threads)
    torch.manual_seed(0)
    encoder, decoder = torch.nn.Linear(DIM, UNITS), torch.nn.Linear(UNITS, DIM)
    prior = torch.nn.Parameter(torch.zeros(UNITS))
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), prior], lr=RATE, fused=fused or None)
    data = torch.from_numpy(load(context)).float()
    log_prob = lambda logits, x: -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)

    def run():
        for rows in torch.randperm(len(data))[: CHUNK * BATCH].split(BATCH):
            x = data[rows]
            logits = encoder(x).expand(DRAWS, BATCH, UNITS)
            h = torch.bernoulli(logits.detach().sigmoid())
            log_q = log_prob(logits, h)
            f = log_prob(decoder(2 * h - 1), x.expand(DRAWS, BATCH, DIM)) + log_prob(prior.expand_as(h), h) - log_q
            signal = ((f - f.mean(0)) / (DRAWS - 1)).detach()
            loss = -(f.mean(0) + (signal * log_q).sum(0)).sum() / BATCH
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return CHUNK

    return run


@WORKLOAD.side("PyTorch eager", needs=("torch",))
def torch_eager(context):
    """PyTorch with its plain Adam."""
    return torch_loop(context, fused=False)


@WORKLOAD.side("PyTorch eager, fused Adam", needs=("torch",))
def torch_fused(context):
    """PyTorch with its fused Adam."""
    return torch_loop(context, fused=True)


def jensen_with(gradient, n_samples=DRAWS):
    """A side that fits by this estimator."""

    def setup(context):
        import jax

        import jensen as jn

        data, seeds, made = load(context), iter(range(10**6)), getattr(jn.gradients, gradient)

        def run():
            seed = next(seeds)
            model = jn.models.LatentVariable.belief_net(jax.random.key(seed), (UNITS,), (DIM,))
            fit = jn.fit(
                model, data, family=jn.families.Amortised(jn.families.Bernoulli(), hidden=()), gradient=made(),
                optimizer=RATE, n_samples=n_samples, n_steps=1500, batch_size=BATCH, seed=seed, progress=False,
            )  # fmt: skip
            run.seconds += fit.trail[0].seconds
            return 1500

        return run

    return setup


for _name in ("LeaveOneOut", "DisARM", "ARM", "MuProp", "NVIL", "REBAR", "RELAX", "GumbelSoftmax", "StraightThrough"):
    WORKLOAD.side(f"jensen, {_name}", needs=("jensen", "jax"))(jensen_with(_name))
