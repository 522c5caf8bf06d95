"""Unbiased implicit variational inference on binarised digits: batches of 100, z and eps of 10, nets 200-200, Adam, rate 0.001.

A step: eps ~ N(0, I), z = mu(x, eps) + sigma u; then 10 HMC steps of 5 leapfrog steps at a fixed size on q(eps' | z, x),
from the eps that made z, all rows at once; the score of q at z is the mean over the last 5; the surrogate is
log p(x, z) - <score, z>. Layers of mu: 784 -> 200 plus eps -> 200, 200 -> 200, 200 -> 10; one trained sigma for all rows.

jensen's step does more: the step size is adapted, and the family's bound is reported at every step (two evaluations of
q(z | eps)). A side's `run()` returns its number of steps.
"""

from benchmarks.harness import Workload
from benchmarks.vae import BATCH, DIM, HIDDEN, LATENT, RATE, in_torch, load, measure, of_bits
from benchmarks.vcd import jensen_by

BURN_IN, KEEP, LEAPFROG, SIZE, CHUNK = 5, 5, 5, 0.3, 20

WORKLOAD = Workload("uivi", measure, base="JAX by hand", warm=True)


@WORKLOAD.side("JAX by hand", needs=("jax", "optax"))
def by_hand(context):
    """A jitted scan of the update; what x alone decides is computed once before the chain."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax

    relu, log_likelihood, stop = jax.nn.relu, of_bits(), jax.lax.stop_gradient
    dense = lambda h, layer: h @ layer[0] + layer[1]

    def mean(q, h, eps):
        return dense(relu(dense(relu(h + eps @ q["eps"]), q["second"])), q["last"])

    def kept(q, h, z, eps, momenta, uniforms):
        """The eps' of the last steps, (KEEP, B, 10)."""

        def log_joint(eps):
            off = (z - mean(q, h, eps)) * jnp.exp(-q["log_scale"])
            return -0.5 * (off**2).sum(1) - 0.5 * (eps**2).sum(1)

        def both(eps):
            value, pull = jax.vjp(log_joint, eps)
            return value, pull(jnp.ones(BATCH))[0]

        def one(here, noise):
            eps, value, gradient = here
            p0, u = noise

            def leap(carry, _):
                e, p = carry
                e = e + SIZE * p
                return (e, p + SIZE * both(e)[1]), None

            (e1, p), _ = jax.lax.scan(leap, (eps, p0 + 0.5 * SIZE * gradient), length=LEAPFROG - 1)
            e1 = e1 + SIZE * p
            value1, gradient1 = both(e1)
            p = p + 0.5 * SIZE * gradient1
            moves = jnp.log(u) < value1 - value + 0.5 * ((p0 * p0).sum(1) - (p * p).sum(1))
            row = moves[:, None]
            here = jnp.where(row, e1, eps), jnp.where(moves, value1, value), jnp.where(row, gradient1, gradient)
            return here, here[0]

        return jax.lax.scan(one, (eps, *both(eps)), (momenta, uniforms))[1][BURN_IN:]

    def loss(params, x, eps, u, momenta, uniforms):
        q, decoder = params
        h = dense(x, q["first"])
        z = mean(q, h, eps) + jnp.exp(q["log_scale"]) * u
        q0, h0, z0 = stop((q, h, z))
        others = kept(q0, h0, z0, eps, momenta, uniforms)
        score = -(z0 - jax.vmap(lambda e: mean(q0, h0, e))(others).mean(0)) * jnp.exp(-2 * q0["log_scale"])
        logits = dense(relu(dense(relu(dense(z, decoder[0])), decoder[1])), decoder[2])
        value = log_likelihood(logits, x).sum(1) - 0.5 * (z * z).sum(1) - (stop(score) * z).sum(1)
        return -value.sum() / BATCH

    optimiser = optax.adam(RATE)

    @jax.jit
    def steps(carry, key, data):
        order_key, key = jr.split(key)
        order = jr.permutation(order_key, len(data))[: CHUNK * BATCH].reshape(CHUNK, BATCH)

        def step(carry, inputs):
            params, state = carry
            rows, key = inputs
            k1, k2, k3, k4 = jr.split(key, 4)
            n = BURN_IN + KEEP
            noise = jr.normal(k1, (BATCH, LATENT)), jr.normal(k2, (BATCH, LATENT)), jr.normal(k3, (n, BATCH, LATENT))
            x = data[rows].astype(jnp.float32)
            gradient = jax.grad(loss)(params, x, *noise, jr.uniform(k4, (n, BATCH)))
            updates, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, carry, (order, jr.split(key, CHUNK)))[0]

    glorot, keys = jax.nn.initializers.glorot_uniform(), iter(jr.split(jr.key(0), 7))
    layer = lambda *size: (glorot(next(keys), size), jnp.zeros(size[1]))
    q = {"first": layer(DIM, HIDDEN), "eps": glorot(next(keys), (LATENT, HIDDEN)), "second": layer(HIDDEN, HIDDEN),
         "last": layer(HIDDEN, LATENT), "log_scale": jnp.full(LATENT, -0.7, jnp.float32)}  # fmt: skip
    params = q, [layer(LATENT, HIDDEN), layer(HIDDEN, HIDDEN), layer(HIDDEN, DIM)]
    carry, data = (params, optimiser.init(params)), jnp.asarray(load(context))
    seeds = iter(range(10**6))

    def run():
        nonlocal carry
        carry = jax.block_until_ready(steps(carry, jr.key(next(seeds)), data))
        return CHUNK

    return run


@WORKLOAD.side("PyTorch eager", needs=("torch",))
def torch_eager(context):
    """PyTorch in eager mode with its fused Adam; gradients in eps by autograd."""
    import torch
    from torch.nn import functional as F

    _, decoder, _, data = in_torch(context)
    nn = torch.nn
    first, of_eps = nn.Linear(DIM, HIDDEN), nn.Linear(LATENT, HIDDEN, bias=False)
    rest = nn.Sequential(nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, LATENT))
    log_scale = nn.Parameter(torch.full((LATENT,), -0.7))
    nets = [p for net in (first, of_eps, rest) for p in net.parameters()]
    optimiser = torch.optim.Adam([*nets, log_scale, *decoder.parameters()], lr=RATE, fused=True)
    mean = lambda h, eps: rest(h + of_eps(eps))

    def kept(h, z, eps, scale):
        def both(eps):
            eps = eps.detach().requires_grad_()
            value = -0.5 * (((z - mean(h, eps)) / scale) ** 2).sum(1) - 0.5 * (eps * eps).sum(1)
            return value.detach(), torch.autograd.grad(value.sum(), eps)[0]

        (value, gradient), out = both(eps), []
        for _ in range(BURN_IN + KEEP):
            p0 = torch.randn_like(eps)
            p, e1 = p0 + 0.5 * SIZE * gradient, eps
            for i in range(LEAPFROG):
                e1 = e1 + SIZE * p
                value1, gradient1 = both(e1)
                p = p + (1.0 if i < LEAPFROG - 1 else 0.5) * SIZE * gradient1
            ratio = value1 - value + 0.5 * ((p0 * p0).sum(1) - (p * p).sum(1))
            moves = torch.rand_like(ratio).log() < ratio
            row = moves[:, None]
            eps, value, gradient = e1.where(row, eps), value1.where(moves, value), gradient1.where(row, gradient)
            out.append(eps)
        return torch.stack(out[BURN_IN:])

    def run():
        for rows in torch.randperm(len(data))[: CHUNK * BATCH].split(BATCH):
            x = data[rows]
            h, eps = first(x), torch.randn(BATCH, LATENT)
            z = mean(h, eps) + log_scale.exp() * torch.randn(BATCH, LATENT)
            for parameter in nets:
                parameter.requires_grad_(False)
            fixed, scale = h.detach(), log_scale.detach().exp()
            others = kept(fixed, z.detach(), eps, scale)
            score = -(z.detach() - mean(fixed, others).mean(0)) / scale**2
            for parameter in nets:
                parameter.requires_grad_(True)
            fit = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="none").sum(1)
            optimiser.zero_grad()
            ((fit + 0.5 * (z * z).sum(1) + (score * z).sum(1)).sum() / BATCH).backward()
            optimiser.step()
        return CHUNK

    return run


WORKLOAD.side("jensen", needs=("jensen", "jax"))(
    jensen_by(
        100,
        family=lambda jn: jn.families.Amortised(
            jn.families.SemiImplicit(n_mixing=1, hidden=(HIDDEN, HIDDEN), n_verdict=1), hidden=()
        ),
        gradient=lambda jn: jn.gradients.UIVI(n_burn_in=BURN_IN, n_keep=KEEP, n_leapfrog=LEAPFROG, step_size=SIZE),
    )
)
