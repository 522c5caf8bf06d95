"""Implicit q: draws are a network's outputs for random inputs, and there is no density."""

import math
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..errors import ModelError, OptionError, explain
from ..facts import Fact
from ..nets import MLP
from ..tree import Layout, Shared, default_float, replaced, row_spec
from .base import UNSIZED, AbstractDistribution, AbstractFamily
from .gaussian import check_scale, sized
from .noise import StandardNormal

FACTS = frozenset({Fact.REPARAMETERISED, Fact.TYPED_NOISE})


class Generator(eqx.Module):
    """(row, eps) -> net([row, eps]) + scale eps[:D]: the second part gives q some width from the first step on."""

    net: MLP
    log_scale: Float[Array, " D"]

    def __call__(self, inputs: tuple[Array, Array]) -> Float[Array, " D"]:
        return self.net(inputs) + jnp.exp(self.log_scale) * inputs[1][: self.log_scale.shape[0]]


class Pushforward(AbstractDistribution):
    """The law of net([context, eps]), eps ~ N(0, I): q of one row, or of all data."""

    context: Float[Array, " F"]  # the row, flattened; of length 0 under global latents
    net: Shared[Callable]
    layout: Layout = eqx.field(static=True)
    n_noise: int = eqx.field(static=True)
    facts: ClassVar = FACTS

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        return self

    def noise_law(self):
        return StandardNormal((self.n_noise,))

    def transform(self, noise):
        return self.layout.unravel(self.net.value((self.context, noise)))

    def latent(self, draw):
        return draw

    def log_prob(self, draw):
        because = "a network's output has a density only where the network can be inverted"
        instead = "a family with a density (MeanField, FullRank, RealNVP)"
        raise ModelError(explain("the density of an implicit q", "it cannot be evaluated", because, instead))

    def log_ratio(self, draw):
        return self.log_prob(draw)


class Implicit(AbstractFamily):
    """Implicit distribution: z = net(eps) under global latents, z = net([x, eps]) with a latent for each row.

    Definition: q(z | x) is the law of net([x, eps]), eps ~ N(0, I). Draws are cheap and differentiable; log q cannot be
                evaluated, so the gradient needs an estimator of the density ratio or of the score:
                `gradients.Adversarial()`, `KernelRatio()` or `SpectralStein()`.
    Arguments:  network: an Equinox module (row (F,), eps (noise,)) -> (D,); left out, an MLP plus scale eps[:D].
                noise: dimension of eps (default: that of z, and ten more); at least that of z, or q would lie on
                a surface, where no ratio to p exists.   hidden, activation: of the MLP.   scale: starting width, > 0.
                shape, reads: the latents' shape, and whether the network reads the row: left out, the model says.
    Facts:      REPARAMETERISED, TYPED_NOISE: no density of any kind. The verdict is made from draws alone, and is DOUBTFUL
                at best (`diagnostics.samples`).
    Raises:     OptionError for a noise that is too small; ModelError where the network does not fit.
    Cost:       the network, once a draw.
    Reference:  Mescheder, Nowozin and Geiger (2017); Huszar (2017).  [mescheder2017avb]
    """

    network: Callable
    layout: Layout = eqx.field(static=True)
    n_noise: int | None = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    reads: bool = eqx.field(static=True)  # does the network read the row?
    facts: ClassVar = FACTS

    def __init__(
        self,
        network: Callable | None = None,
        *,
        noise: int | None = None,
        hidden: tuple[int, ...] = (64, 64),
        activation: str = "silu",
        scale: float = 0.5,
        shape: PyTree = None,
        reads: bool = False,
    ):
        check_scale("Implicit", scale)
        if noise is not None and (isinstance(noise, bool) or not isinstance(noise, int) or noise < 1):
            asked = f"`Implicit(noise={noise!r})`"
            raise OptionError(explain(asked, "it is not a positive whole number", "it is a dimension", "noise=10"))
        self.network = UNSIZED if network is None else network
        self.layout, self.reads = UNSIZED if shape is None else Layout(shape), reads
        self.n_noise, self.hidden, self.activation = noise, tuple(hidden), activation
        self.scale = float(scale)

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        layout = sized("Implicit", self.layout, latents)
        n_noise = self.n_noise if self.n_noise is not None else layout.size + 10
        if n_noise < layout.size:
            asked, because = f"`Implicit(noise={n_noise})`", f"z has {layout.size} coordinates: q would be a surface"
            raise OptionError(explain(asked, "it is too small", because, f"noise={layout.size} or more"))
        n_inputs = 0 if rows is None else sum(math.prod(a.shape) for a in jax.tree.leaves(row_spec(rows)))
        network = self.network
        if network is None:
            net = MLP(key, n_inputs + n_noise, self.hidden, layout.size, activation=self.activation)
            network = Generator(net, jnp.full(layout.size, math.log(self.scale), default_float()))
        _fits(network, n_inputs, n_noise, layout.size)
        return replaced(self, network=network, n_noise=n_noise, layout=layout, reads=rows is not None)

    def __call__(self, x: PyTree = None) -> Pushforward:
        dtype = default_float()
        leaves = [jnp.ravel(a).astype(dtype) for a in jax.tree.leaves(x)] if self.reads else []
        context = jnp.concatenate(leaves) if leaves else jnp.zeros(0, dtype)
        return Pushforward(context, Shared(self.network), self.layout, self.n_noise or 0)


def _fits(network: Callable, n_inputs: int, n_noise: int, size: int) -> None:
    spec = lambda n: jax.ShapeDtypeStruct((n,), default_float())
    out = eqx.filter_eval_shape(network, (spec(n_inputs), spec(n_noise)))
    if getattr(out, "shape", None) != (size,):
        wrong = f"it returns shape {getattr(out, 'shape', type(out))} for a row of {n_inputs} and noise of {n_noise}"
        because = f"its output is a latent of {size} coordinates"
        raise ModelError(
            explain("`Implicit` with a network of its own", wrong, because, f"an array of shape ({size},)")
        )
