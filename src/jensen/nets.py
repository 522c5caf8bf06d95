"""The multilayer perceptron that amortised families and decoders use when none is given, and what stands before it."""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from .errors import OptionError, explain
from .tree import Frozen, default_float

ACTIVATIONS: dict[str, Callable] = {
    "relu": jax.nn.relu, "tanh": jnp.tanh, "silu": jax.nn.silu, "gelu": jax.nn.gelu, "elu": jax.nn.elu,
    "softplus": jax.nn.softplus, "sigmoid": jax.nn.sigmoid,
}  # fmt: skip


class MLP(eqx.Module):
    """Layers x -> act(x W + b), the last one linear; weights are stored (in, out), so that a batch is one x @ W.

    Arguments:  key; n_inputs; hidden: widths; n_outputs; activation: one of `ACTIVATIONS`.
    The input may be any tree of arrays: it is flattened and cast to float.
    """

    weights: list[Float[Array, "i o"]]
    biases: list[Float[Array, " o"]]
    activation: str = eqx.field(static=True)

    def __init__(self, key: Array, n_inputs: int, hidden: Sequence[int], n_outputs: int, *, activation: str = "relu"):
        if activation not in ACTIVATIONS:
            asked = f"`MLP(activation={activation!r})`"
            raise OptionError(explain(asked, "it is unknown", "the name is looked up", f"one of {sorted(ACTIVATIONS)}"))
        sizes = [n_inputs, *hidden, n_outputs]
        keys = jr.split(key, len(sizes) - 1)
        glorot = jax.nn.initializers.glorot_uniform()
        self.weights = [glorot(k, (i, o), default_float()) for k, i, o in zip(keys, sizes, sizes[1:], strict=False)]
        self.biases = [jnp.zeros(o, default_float()) for o in sizes[1:]]
        self.activation = activation

    def __call__(self, x: PyTree) -> Float[Array, " o"]:
        dtype = self.biases[0].dtype
        leaves = [jnp.ravel(a).astype(dtype) for a in jax.tree.leaves(x)]
        h = leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves)
        for i, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = h @ w + b
            if i < len(self.weights) - 1:
                h = ACTIVATIONS[self.activation](h)
        return h


class FromBits(eqx.Module):
    """net(2 h - 1): both values of a binary unit speak, and equally loud."""

    net: Callable

    def __call__(self, h: PyTree) -> Array:
        return self.net(jax.tree.map(lambda a: 2 * a - 1, h))


class Reads(eqx.Module):
    """A decoder of named latents that reads only some of them: what it does not name has no part in p(x | z)."""

    net: Callable
    reads: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, z: Mapping[str, Array]) -> Array:
        return self.net({site: z[site] for site in self.reads})


class Centred(eqx.Module):
    """net(x - shift): an encoder of rows whose mean is far from zero. The shift is not trained."""

    net: Callable
    shift: Frozen[Array]

    def __init__(self, net: Callable, shift: Array):
        self.net, self.shift = net, Frozen(jnp.asarray(shift, default_float()))

    def __call__(self, x: Array) -> Array:
        return self.net(jnp.ravel(x).astype(self.shift.value.dtype) - jnp.ravel(self.shift.value))
