"""Deep belief network: an RBM, and directed layers below it."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .boltzmann import RBM


class DBN(eqx.Module):
    """Deep belief network (DBN) of stacked RBMs: p(x, h_1, ..., h_L) = p(x | h_1) ... p(h_{L-2} | h_{L-1}) p(h_{L-1}, h_L).

    Arguments:  stack: RBMs trained greedily, each on the hidden probabilities of the one below; the last one is the
                undirected top, of the others only p(v | h) and, for inference, p(h | v) are kept.
    Reference:  Hinton, Osindero and Teh (2006); Salakhutdinov and Murray (2008), section 5, for `log_weights`.
                [hinton2006dbn]
    """

    stack: tuple[RBM, ...]

    def encode(self, v: Float[Array, "n v"]) -> list[Float[Array, "n d"]]:
        """Probabilities of each layer bottom-up, each given those of the layer below."""
        out = []
        for m in self.stack:
            v = m.hidden_given(v)
            out.append(v)
        return out

    def decode(self, h: Float[Array, "n d"]) -> Float[Array, "n v"]:
        """E[x] from the top layer, top-down by means."""
        for m in self.stack[::-1]:
            h = m.visible_given(h)
        return h

    def sample(self, key: Array, top: Float[Array, "n d"], n_steps: int) -> Float[Array, "n v"]:
        """Rows drawn top-down, after `n_steps` sweeps of the top RBM from its hidden layer `top`."""
        key, first = jr.split(key)
        (x,), _ = self.stack[-1].gibbs(first, (top,), n_steps)
        for m in self.stack[-2::-1]:
            key, k = jr.split(key)
            (x,) = m.draw(k, m.means((x,), 0), 0)
        return x

    def log_weights(self, key: Array, v: Float[Array, "n v"], n_samples: int) -> Float[Array, "K n"]:
        """log p*(v, h) - log q(h | v) at h ~ q bottom-up, the top layer summed: their mean is at most log p(v) + log Z,
        and log mean exp of many tends to it, Z the top RBM's partition function."""

        def one(key: Array) -> Array:
            x, out = v, jnp.zeros(len(v), v.dtype)
            for m in self.stack[:-1]:
                key, k = jr.split(key)
                up = m.fields((x,), 1)
                h = m.draw(k, m.means_at(up, 1), 1)
                down = m.fields(h, 0)
                out = out + _log_prob(m, 0, x, down[0]) - _log_prob(m, 1, h[0], up[0])
                x = h[0]
            return out - self.stack[-1].free_energy(x)

        return jax.lax.map(one, jr.split(key, n_samples))

    def log_prob(self, key: Array, v: Float[Array, "n v"], log_z: float, n_samples: int = 100) -> Float[Array, " n"]:
        """log p(v) by importance sampling from q, nats; below it on average. Exact in (log_z) where L = 1."""
        w = self.log_weights(key, v, n_samples)
        return jax.nn.logsumexp(w, axis=0) - math.log(n_samples) - log_z


def _log_prob(m: RBM, layer: int, x: Array, field: Array) -> Array:
    u = m.units[layer]
    return (u.statistic(x) * field).sum(-1) - u.base(x) - u.log_partition(field).sum(-1)
