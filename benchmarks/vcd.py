"""Variational contrastive divergence on binarised digits: 784-200-200-10 and back with ReLU, batches of 100, Adam, rate 0.001.

A step: z_0 from the encoder; 8 HMC steps of 5 leapfrog steps at a fixed size on log p(x, z), all rows at once; q0 ascends
the contrastive divergence (the path of the ELBO from the chain's first gradient, the score terms with a shared running
mean as control variate), the decoder log p(x, z_t). Loss averaged over the batch. Rows in a fresh permutation.

jensen's step does more: the step size is adapted, and the control variate has a part for each row, one evaluation of the
decoder. Gradients of a step: 41 in z and one in the weights. A side's `run()` returns its number of steps.
"""

from benchmarks.harness import Workload
from benchmarks.vae import BATCH, DIM, HIDDEN, LATENT, RATE, in_torch, load, measure

STEPS, LEAPFROG, SIZE, MEMORY, CHUNK = 8, 5, 0.05, 0.99, 20

WORKLOAD = Workload("vcd", measure, base="JAX by hand", warm=True)


@WORKLOAD.side("JAX by hand", needs=("jax", "optax"))
def by_hand(context):
    """A jitted scan of the update; gradients in z written out, so that nothing is computed that is not used."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax

    sizes = ((DIM, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, DIM))
    relu = jax.nn.relu
    dense = lambda h, layer: h @ layer[0] + layer[1]

    @jax.custom_jvp
    def log_bernoulli(logits, x):
        return x * logits - jnp.maximum(logits, 0) - jnp.log(1 + jnp.exp(-jnp.abs(logits)))

    @log_bernoulli.defjvp
    def _(primals, tangents):
        logits, x = primals
        e = jnp.exp(-jnp.abs(logits))
        r = 1 / (1 + e)
        value = x * logits - jnp.maximum(logits, 0) - jnp.log(1 + e)
        return value, (x - jnp.where(logits > 0, r, e * r)) * tangents[0]

    def log_p(decoder, x, z):
        logits = dense(relu(dense(relu(dense(z, decoder[0])), decoder[1])), decoder[2])
        return log_bernoulli(logits, x).sum(1) - 0.5 * (z * z).sum(1)

    def log_q(loc, log_scale, z):
        return (-0.5 * ((z - loc) * jnp.exp(-log_scale)) ** 2 - log_scale).sum(1)

    def chain(decoder, x, z, momenta, uniforms):
        def both(z):
            value, pull = jax.vjp(lambda z: log_p(decoder, x, z), z)
            return value, pull(jnp.ones(BATCH))[0]

        def one(here, noise):
            z, value, gradient = here
            p0, u = noise
            p = p0 + 0.5 * SIZE * gradient

            def leap(carry, _):
                z, p = carry
                z = z + SIZE * p
                return (z, p + SIZE * both(z)[1]), None

            (z1, p), _ = jax.lax.scan(leap, (z, p), length=LEAPFROG - 1)
            z1 = z1 + SIZE * p
            value1, gradient1 = both(z1)
            p = p + 0.5 * SIZE * gradient1
            moves = jnp.log(u) < value1 - value + 0.5 * ((p0 * p0).sum(1) - (p * p).sum(1))
            row = moves[:, None]
            return (jnp.where(row, z1, z), jnp.where(moves, value1, value), jnp.where(row, gradient1, gradient)), None

        first = both(z)
        return first, jax.lax.scan(one, (z, *first), (momenta, uniforms))[0]

    def loss(layers, x, noise, momenta, uniforms, baseline):
        h = relu(dense(relu(dense(x, layers[0])), layers[1]))
        loc, log_scale = jnp.split(dense(h, layers[2]), 2, axis=1)
        z = loc + jnp.exp(log_scale) * noise
        stop = jax.lax.stop_gradient
        begin = stop(z)
        (_, gradient), (end, value, _) = chain(stop(layers[3:]), x, begin, momenta, uniforms)
        end, value, gradient = stop((end, value, gradient))
        path = (z * stop(gradient + noise * jnp.exp(-log_scale))).sum(1)
        of_start, of_end = log_q(loc, log_scale, begin), log_q(loc, log_scale, end)
        f = stop(value - of_end)
        ascended = path - (f - baseline) * of_start + of_end + log_p(layers[3:], x, end)
        return -ascended.sum() / BATCH, MEMORY * baseline + (1 - MEMORY) * f.mean()

    optimiser = optax.adam(RATE)

    @jax.jit
    def steps(carry, key, data):
        order_key, key = jr.split(key)
        order = jr.permutation(order_key, len(data))[: CHUNK * BATCH].reshape(CHUNK, BATCH)

        def step(carry, inputs):
            layers, state, baseline = carry
            rows, key = inputs
            k1, k2, k3 = jr.split(key, 3)
            noise = (
                jr.normal(k1, (BATCH, LATENT)),
                jr.normal(k2, (STEPS, BATCH, LATENT)),
                jr.uniform(k3, (STEPS, BATCH)),
            )
            x = data[rows].astype(jnp.float32)
            gradient, baseline = jax.grad(loss, has_aux=True)(layers, x, *noise, baseline)
            updates, state = optimiser.update(gradient, state, layers)
            return (optax.apply_updates(layers, updates), state, baseline), None

        return jax.lax.scan(step, carry, (order, jr.split(key, CHUNK)))[0]

    keys = jr.split(jr.key(0), len(sizes))
    glorot = jax.nn.initializers.glorot_uniform()
    layers = [(glorot(k, s), jnp.zeros(s[1])) for k, s in zip(keys, sizes, strict=True)]
    carry, data = (layers, optimiser.init(layers), jnp.zeros(())), jnp.asarray(load(context))
    seeds = iter(range(10**6))

    def run():
        nonlocal carry
        carry = jax.block_until_ready(steps(carry, jr.key(next(seeds)), data))
        return CHUNK

    return run


@WORKLOAD.side("PyTorch eager", needs=("torch",))
def torch_eager(context):
    """PyTorch in eager mode with its fused Adam; gradients in z by autograd."""
    import torch
    from torch.nn import functional as F

    encoder, decoder, adam, data = in_torch(context)
    optimiser = adam(True)
    log_q = lambda loc, log_scale, z: (-0.5 * ((z - loc) * (-log_scale).exp()) ** 2 - log_scale).sum(1)
    baseline = torch.zeros(())

    def log_p(x, z):
        logits = decoder(z)
        return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1) - 0.5 * (z * z).sum(1)

    def both(x, z):
        z = z.detach().requires_grad_()
        value = log_p(x, z)
        return value.detach(), torch.autograd.grad(value.sum(), z)[0]

    def chain(x, z):
        value, gradient = first = both(x, z)
        for _ in range(STEPS):
            p0 = torch.randn_like(z)
            p, z1 = p0 + 0.5 * SIZE * gradient, z
            for i in range(LEAPFROG):
                z1 = z1 + SIZE * p
                value1, gradient1 = both(x, z1)
                p = p + (1.0 if i < LEAPFROG - 1 else 0.5) * SIZE * gradient1
            ratio = value1 - value + 0.5 * ((p0 * p0).sum(1) - (p * p).sum(1))
            moves = torch.rand_like(ratio).log() < ratio
            row = moves[:, None]
            z, value, gradient = z1.where(row, z), value1.where(moves, value), gradient1.where(row, gradient)
        return first, z, value

    def run():
        nonlocal baseline
        for rows in torch.randperm(len(data))[: CHUNK * BATCH].split(BATCH):
            x = data[rows]
            loc, log_scale = encoder(x).chunk(2, dim=1)
            noise = torch.randn_like(loc)
            z = loc + log_scale.exp() * noise
            for parameter in decoder.parameters():
                parameter.requires_grad_(False)
            (_, gradient), end, value = chain(x, z.detach())
            for parameter in decoder.parameters():
                parameter.requires_grad_(True)
            path = (z * (gradient + noise * (-log_scale).exp()).detach()).sum(1)
            of_end = log_q(loc, log_scale, end)
            f = value - of_end.detach()
            ascended = path - (f - baseline) * log_q(loc, log_scale, z.detach()) + of_end + log_p(x, end)
            baseline = MEMORY * baseline + (1 - MEMORY) * f.mean()
            optimiser.zero_grad()
            (-ascended.sum() / BATCH).backward()
            optimiser.step()
        return CHUNK

    return run


def jensen_by(n_steps, **how):
    """A side that fits the same nets with these options of `jensen.fit`."""

    def setup(context):
        import jax

        import jensen as jn

        data, seeds = load(context), iter(range(10**6))
        made = {k: v(jn) for k, v in how.items()}

        def run():
            seed = next(seeds)
            model = jn.models.LatentVariable.mlp(jax.random.key(seed), LATENT, (DIM,), hidden=(HIDDEN, HIDDEN))
            options = {"family": jn.families.Amortised(hidden=(HIDDEN, HIDDEN))} | made
            fit = jn.fit(
                model, data, optimizer=RATE, n_samples=1, n_steps=n_steps, batch_size=BATCH, seed=seed,
                progress=False, **options,
            )  # fmt: skip
            run.seconds += fit.trail[0].seconds
            return n_steps

        return run

    return setup


WORKLOAD.side("jensen", needs=("jensen", "jax"))(
    jensen_by(100, method=lambda jn: jn.methods.VCD(STEPS, LEAPFROG, SIZE))
)
WORKLOAD.side("jensen, Hoffman", needs=("jensen", "jax"))(
    jensen_by(100, method=lambda jn: jn.methods.Hoffman(STEPS, LEAPFROG, SIZE))
)
