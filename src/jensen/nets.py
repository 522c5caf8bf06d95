"""The multilayer perceptron that amortised families and decoders use when none is given."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from .errors import OptionError, explain
from .tree import default_float

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
