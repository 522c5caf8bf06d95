"""Maps of few parameters, one after the other, and the scalar equation that inverts those made of a tanh."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Composite(eqx.Module):
    """T = f_n o ... o f_1, each layer the same function of its own parameters.

    layers: parameters, leaves leading with the layer.   forward: (layer, x) -> (f(x), log |df/dx|).
    backward: (layer, y) -> x with f(x) = y.
    """

    layers: PyTree
    forward: Callable = eqx.field(static=True)
    backward: Callable = eqx.field(static=True)

    def _each(self) -> list[Any]:
        leaves, treedef = jax.tree.flatten(self.layers)
        return [treedef.unflatten(layer) for layer in zip(*map(apart, leaves), strict=True)]

    def transform(self, x: Array) -> Array:
        """T(x)."""
        return self.transform_and_log_det(x)[0]

    def transform_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """(T(x), log |dT/dx|)."""
        total = jnp.zeros((), x.dtype)
        for layer in self._each():
            x, log_det = self.forward(layer, x)
            total = total + log_det
        return x, total

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """(x, log |dx/dy|), where T(x) = y."""
        total = jnp.zeros((), y.dtype)
        for layer in self._each()[::-1]:
            y = self.backward(layer, y)
            total = total - self.forward(layer, y)[1]
        return y, total


def apart(a: Array) -> list[Array]:
    """The slices along the leading axis. By one split, whose derivative is a concatenation: under a map over the rows that
    an encoder sees, indexing would be a gather, and its derivative a scatter."""
    return [part.reshape(a.shape[1:]) for part in jax.lax.split(a, (1,) * a.shape[0])]


def over_minus_one(x: Array) -> Array:
    """Increasing, from -1 to infinity, 0 at 0: what keeps a layer invertible."""
    return jax.nn.softplus(x + jnp.log(jnp.expm1(jnp.ones((), x.dtype)))) - 1


def square(v: Float[Array, "*L D"]) -> Float[Array, "*L"]:
    """|v|^2, for a division: not quite 0 at 0."""
    return (v * v).sum(-1) + jnp.finfo(v.dtype).eps ** 2


@jax.custom_jvp
def solve_tanh(r: Array, k: Array, s: Array, t: Array) -> Array:
    """The a with a + r tanh(k a + s) = t, for r k > -1, which makes the left side increasing. Scalars.

    By bisection of [t - |r|, t + |r|] and a last Newton step; derivatives of every order, by the implicit function
    theorem: (1 + r k h') da = dt - h dr - r h' (a dk + ds), with h = tanh(k a + s) and h' = 1 - h^2.
    """

    def halve(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        below = middle + r * jnp.tanh(k * middle + s) < t
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, jnp.finfo(t.dtype).nmant, halve, (t - jnp.abs(r), t + jnp.abs(r)))
    a = 0.5 * (low + high)
    h = jnp.tanh(k * a + s)
    return a - (a + r * h - t) / (1 + r * k * (1 - h * h))


@solve_tanh.defjvp
def _(primals, tangents):
    r, k, s, t = primals
    dr, dk, ds, dt = tangents
    a = solve_tanh(r, k, s, t)
    h = jnp.tanh(k * a + s)
    slope = 1 - h * h
    return a, (dt - h * dr - r * slope * (a * dk + ds)) / (1 + r * k * slope)
