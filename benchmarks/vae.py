"""Variational autoencoder on binarised digits, 784-200-200-10 with ReLU, batches of 100, Adam with rate 0.001.

Encoder 784-200-200-(10, 10), standard normal prior, decoder 10-200-200-784, Bernoulli likelihood, KL in closed form
(sampled in NumPyro), loss averaged over the batch. Rows are visited in the order of a fresh permutation.

A side's `run()` does a number of steps, goes on from where the last call stopped, and returns that number. The data are
the training part of DATA/binarized_mnist/binarized_mnist.npz (bits packed along the rows); without it, random bits of
the same shape. `steps` is measured over at least 1.5 s, after one discarded measurement that compiles.
"""

import os
import time

import numpy as np

from benchmarks.harness import WIDE, Workload

N_DATA, DIM, HIDDEN, LATENT, BATCH, RATE, CHUNK = 50_000, 784, 200, 10, 100, 1e-3, 300


def load(context):
    """The training images (50,000, 784) as zeros and ones in uint8."""
    if context.data is None:
        return (np.random.default_rng(0).random((N_DATA, DIM)) < 0.13).astype(np.uint8)
    return np.unpackbits(np.load(context.data / "binarized_mnist" / "binarized_mnist.npz")["train"], axis=1)


def measure(run):
    """Steps per second; of the loop alone where a side says how long that took (`run.seconds`)."""
    n, start = 0, time.perf_counter()
    run.seconds = 0.0
    while time.perf_counter() - start < 1.5:
        n += run()
    return {"steps": (n / (run.seconds or time.perf_counter() - start), "steps/s")}


def of_bits():
    """log p(x | l) = -log(1 + exp(-s l)), s = 1 for x = 1 and -1 for x = 0: one exponential; for the sides by hand in JAX."""
    import jax
    import jax.numpy as jnp

    @jax.custom_jvp
    def log_likelihood(logits, x):
        return -jnp.log(1 + jnp.exp(jnp.minimum(jnp.where(x > 0, -logits, logits), 80)))

    @log_likelihood.defjvp
    def _(primals, tangents):
        logits, x = primals
        sign = 1 - 2 * x
        e = jnp.exp(jnp.minimum(sign * logits, 80))
        return -jnp.log(1 + e), -sign * e / (1 + e) * tangents[0]

    return log_likelihood


def in_torch(context, n_latent=LATENT):
    """(encoder to loc and log scale, decoder, Adam, data), in PyTorch."""
    import torch

    torch.set_num_threads(context.threads)
    torch.manual_seed(0)
    nn = torch.nn
    hidden = lambda n: (nn.Linear(n, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
    encoder = nn.Sequential(*hidden(DIM), nn.Linear(HIDDEN, 2 * n_latent))
    decoder = nn.Sequential(*hidden(n_latent), nn.Linear(HIDDEN, DIM))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    adam = lambda fused: torch.optim.Adam(parameters, lr=RATE, fused=fused or None)
    return encoder, decoder, adam, torch.from_numpy(load(context)).float()


WORKLOAD = Workload("vae", measure, base="JAX by hand", warm=True)


def scan_by_hand(context, optimiser):
    """A jitted scan of the update.

    The fastest form found: images kept in uint8 and gathered by the permutation in the scan, everything in two
    dimensions, one head for the 20 numbers of the posterior, and a kernel for binary data with one exponential.
    """
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import optax

    log_likelihood = of_bits()

    def loss(layers, x, noise):
        dense = lambda h, i: h @ layers[i][0] + layers[i][1]
        relu = jax.nn.relu
        loc, log_scale = jnp.split(dense(relu(dense(relu(dense(x, 0)), 1)), 2), 2, axis=1)
        scale = jnp.exp(log_scale)
        logits = dense(relu(dense(relu(dense(loc + scale * noise, 3)), 4)), 5)
        kl = (0.5 * (scale * scale + loc * loc - 1) - log_scale).sum()
        return (kl - log_likelihood(logits, x).sum()) / BATCH

    @jax.jit
    def steps(carry, key, data):
        order_key, key = jr.split(key)
        order = jr.permutation(order_key, len(data))[: CHUNK * BATCH].reshape(CHUNK, BATCH)

        def step(carry, inputs):
            layers, state = carry
            rows, key = inputs
            x, noise = data[rows].astype(jnp.float32), jr.normal(key, (BATCH, LATENT))
            value, gradient = jax.value_and_grad(loss)(layers, x, noise)
            updates, state = optimiser.update(gradient, state, layers)
            return (optax.apply_updates(layers, updates), state), value

        return jax.lax.scan(step, carry, (order, jr.split(key, CHUNK)))

    shapes = layer_shapes()
    keys = jr.split(jr.key(0), len(shapes))
    layers = [(jr.normal(k, s) * (1 / s[0]) ** 0.5, jnp.zeros(s[1])) for k, s in zip(keys, shapes, strict=True)]
    carry, data = (layers, optimiser.init(layers)), jnp.asarray(load(context))
    seeds = iter(range(10**6))

    def run():
        nonlocal carry
        carry, _ = jax.block_until_ready(steps(carry, jr.key(next(seeds)), data))
        return CHUNK

    return run


def layer_shapes():
    """Shapes of the six weight matrices."""
    return [(DIM, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, DIM)]


@WORKLOAD.side("JAX by hand, 512-bit vectors", needs=("jax", "optax"), env=WIDE)
@WORKLOAD.side("JAX by hand", needs=("jax", "optax"))
def by_hand(context):
    """By hand, with `optax.adam`."""
    import optax

    return scan_by_hand(context, optax.adam(RATE))


@WORKLOAD.side("JAX by hand, own Adam", needs=("jax", "optax"))
def by_hand_own_adam(context):
    """By hand, with Adam whose bias corrections are folded into one scalar rate."""
    import jax
    import jax.numpy as jnp
    import optax

    def init(parameters):
        return jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters), jax.tree.map(jnp.zeros_like, parameters)

    def update(gradient, state, parameters):
        n = state[0] + 1
        mean = jax.tree.map(lambda m, g: m + 0.1 * (g - m), state[1], gradient)
        square = jax.tree.map(lambda v, g: v + 0.001 * (g * g - v), state[2], gradient)
        root = jnp.sqrt(1 - 0.999**n)
        rate = RATE * root / (1 - 0.9**n)
        step = jax.tree.map(lambda m, v: -rate * m / (jnp.sqrt(v) + 1e-8 * root), mean, square)
        return step, (n, mean, square)

    return scan_by_hand(context, optax.GradientTransformation(init, update))


@WORKLOAD.side("matrix products alone, 512-bit vectors", needs=("jax",), env=WIDE)
@WORKLOAD.side("matrix products alone", needs=("jax",))
def products(context):
    """The ceiling: only the products of a step, forward and backward.

    The results of a step are the operands of the next, so that the compiler can neither move nor drop a product; they
    start as zeros, which stay bounded.
    """
    import jax
    import jax.numpy as jnp

    weights = [jnp.zeros(shape) for shape in layer_shapes()]
    inputs = [jnp.zeros((BATCH, n)) for n, _ in layer_shapes()]
    cotangents = [jnp.zeros((BATCH, n)) for _, n in layer_shapes()]

    @jax.jit
    def steps(carry):
        def step(carry, _):
            triples = list(zip(*carry, strict=True))
            outputs = [h @ w for w, h, _ in triples]
            of_weights = [h.T @ g for _, h, g in triples]
            of_inputs = [g @ w.T for w, _, g in triples[1:]]
            return (of_weights, carry[1][:1] + of_inputs, outputs), None

        return jax.lax.scan(step, carry, None, length=CHUNK)[0]

    def run():
        jax.block_until_ready(steps((weights, inputs, cotangents)))
        return CHUNK

    return run


@WORKLOAD.side("NumPyro svi.update in a scan, 512-bit vectors", needs=("numpyro", "jax"), env=WIDE)
@WORKLOAD.side("NumPyro svi.update in a scan", needs=("numpyro", "jax"))
def numpyro_scan(context):
    """NumPyro with stax networks, `SVI.update` in a jitted scan of one's own."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import numpyro
    import numpyro.distributions as dist
    from jax.example_libraries import stax
    from numpyro.infer import SVI, Trace_ELBO

    hidden = (stax.Dense(HIDDEN), stax.Relu, stax.Dense(HIDDEN), stax.Relu)
    heads = stax.parallel(stax.Dense(LATENT), stax.serial(stax.Dense(LATENT), stax.Exp))
    encoder = stax.serial(*hidden, stax.FanOut(2), heads)
    decoder = stax.serial(*hidden, stax.Dense(DIM))

    def model(x):
        decode = numpyro.module("decoder", decoder, (BATCH, LATENT))
        with numpyro.plate("batch", BATCH):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([LATENT]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def guide(x):
        loc, scale = numpyro.module("encoder", encoder, (BATCH, DIM))(x)
        with numpyro.plate("batch", BATCH):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    svi = SVI(model, guide, numpyro.optim.Adam(RATE), Trace_ELBO())

    @jax.jit
    def steps(state, key, data):
        order = jr.permutation(key, len(data))[: CHUNK * BATCH].reshape(CHUNK, BATCH)
        return jax.lax.scan(lambda state, rows: svi.update(state, data[rows].astype(jnp.float32)), state, order)

    data = jnp.asarray(load(context))
    state = svi.init(jr.key(0), data[:BATCH].astype(jnp.float32))
    seeds = iter(range(10**6))

    def run():
        nonlocal state
        state, _ = jax.block_until_ready(steps(state, jr.key(next(seeds)), data))
        return CHUNK

    return run


def torch_loop(context, fused):
    """PyTorch in eager mode; batches are taken by index, without a DataLoader."""
    import torch
    from torch.nn import functional as F

    encoder, decoder, adam, data = in_torch(context)
    optimiser = adam(fused)

    def run():
        for rows in torch.randperm(len(data))[: CHUNK * BATCH].split(BATCH):
            x = data[rows]
            loc, log_scale = encoder(x).chunk(2, dim=1)
            scale = log_scale.exp()
            logits = decoder(loc + scale * torch.randn_like(scale))
            kl = (0.5 * (scale * scale + loc * loc - 1) - log_scale).sum()
            loss = (kl + F.binary_cross_entropy_with_logits(logits, x, reduction="sum")) / BATCH
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


@WORKLOAD.side("Pythae", needs=("pythae", "torch"))
def pythae_trainer(context):
    """Pythae's trainer with the same networks: an epoch over 20,000 images, with its DataLoader and progress bar."""
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    torch.set_num_threads(context.threads)
    nn = torch.nn
    hidden = lambda n: (nn.Linear(n, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(*hidden(DIM))
            self.loc = nn.Linear(HIDDEN, LATENT)
            self.log_variance = nn.Linear(HIDDEN, LATENT)

        def forward(self, x):
            h = self.trunk(x)
            return ModelOutput(embedding=self.loc(h), log_covariance=self.log_variance(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(*hidden(LATENT), nn.Linear(HIDDEN, DIM), nn.Sigmoid())

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    config = VAEConfig(input_dim=(DIM,), latent_dim=LATENT, reconstruction_loss="bce")
    data = torch.from_numpy(load(context)[:20_000])
    trainer = BaseTrainer(
        VAE(config, Encoder(), Decoder()),
        BaseDataset(data, torch.zeros(len(data))),
        training_config=BaseTrainerConfig(
            output_dir=os.environ["BENCHMARK_TMP"], per_device_train_batch_size=BATCH, learning_rate=RATE
        ),
    )
    trainer.prepare_training()

    def run():
        trainer.train_step(1)
        return len(trainer.train_loader)

    return run


# The library's own sides follow: one decorated function each, returning `run` as above.


@WORKLOAD.side("jensen, 512-bit vectors", needs=("jensen", "jax"), env=WIDE)
@WORKLOAD.side("jensen", needs=("jensen", "jax"))
def jensen_fit(context):
    """`jensen.fit` of a decoder and an amortised mean field, closed-form KL, with its progress bar; the loop's time."""
    import jax

    import jensen as jn

    data = load(context)
    seeds = iter(range(10**6))

    def run():
        seed = next(seeds)
        model = jn.models.LatentVariable.mlp(jax.random.key(seed), LATENT, (DIM,), "bernoulli", hidden=(HIDDEN, HIDDEN))
        fit = jn.fit(
            model, data, family=jn.families.Amortised(hidden=(HIDDEN, HIDDEN)), objective=jn.objectives.ELBO("kl"),
            gradient=jn.gradients.Pathwise, optimizer=RATE, n_samples=1, n_steps=3000, batch_size=BATCH,
            seed=seed, progress=True,
        )  # fmt: skip
        run.seconds += fit.trail[0].seconds
        return 3000

    return run
