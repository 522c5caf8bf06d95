"""Stacks of coupling and autoregressive layers, through FlowJAX.

A family keeps a `Stack` (hyperparameters) and a flat tuple of trained arrays; FlowJAX's objects are made around them when
called. So a saved flow holds names and numbers of jensen only, and FlowJAX is imported when a flow is first used.
"""

import functools
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from ..errors import OptionError, explain
from ..nets import ACTIVATIONS
from ..tree import default_float

MAX_LOG_SCALE = 3.0  # of one affine layer: a wild step of the optimiser cannot overflow
MIN_SLOPE = 1e-3  # of a spline
COUPLINGS = ("coupling", "additive")


class Stack(eqx.Module):
    """What a stack of layers is, apart from its trained arrays.

    kind: "coupling", "additive" (coupling that only shifts), "autoregressive" or its inverse, "masked".
    width, depth: hidden layers of each layer's network.
    knots, interval: of the splines, if knots > 0; else the layers are affine.   context: length of what all networks read too.
    """

    kind: str = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    knots: int = eqx.field(static=True, default=0)
    interval: float = eqx.field(static=True, default=0.0)
    context: int = eqx.field(static=True, default=0)

    def start(self, key: Array, dim: int) -> tuple[Array, ...]:
        """Trained arrays of shape `(n_layers, ...)` at which the stack is the identity: the networks' last layers are 0."""
        shapes = [(self.n_layers, *s.shape) for s in _skeleton(self, dim, str(default_float())).trained]
        fan_in = [s[2] for s in shapes[::2] for _ in (0, 1)]  # of a weight, and of the bias that follows it
        sizes = [math.prod(s) for s in shapes[:-2]]
        # one draw, cut in NumPy: each shape drawn alone would be compiled alone
        parts = np.split(np.asarray(jr.uniform(key, (sum(sizes),), default_float(), -1, 1)), np.cumsum(sizes)[:-1])
        hidden = [a.reshape(s) / math.sqrt(n) for a, s, n in zip(parts, shapes[:-2], fan_in[:-2], strict=True)]
        return tuple(jnp.asarray(a, default_float()) for a in (*hidden, *(np.zeros(s) for s in shapes[-2:])))

    def __call__(self, arrays: tuple[Array, ...], dim: int, context: Array | None = None) -> "Given":
        """FlowJAX's bijection of `(dim,)` with these arrays, at this context."""
        from flowjax.bijections import Chain, Invert

        dtype = default_float()
        skeleton = _skeleton(self, dim, str(dtype))
        trained = jax.tree.unflatten(skeleton.treedef, [a.astype(dtype) for a in arrays])
        # unrolled: as quick to compile as `Scan` for a few layers, faster to run, and the derivative of a spline inside
        # a scan crashes XLA on CPUs when only the cotangents are batched (`jax.jacrev`)
        layers = [eqx.combine(jax.tree.map(lambda a, i=i: a[i], trained), skeleton.rest) for i in range(self.n_layers)]
        *moves, last = skeleton.moves
        chain = Chain([b for pair in zip(moves, layers, strict=True) for b in pair] + [last])
        return Given(Invert(chain) if self.kind == "masked" else chain, context)


class Given(eqx.Module):
    """A bijection at a context."""

    bijection: Any
    context: Array | None

    def transform(self, x: Array) -> Array:
        """T(x)."""
        return self.bijection.transform(x, self.context)

    def transform_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """(T(x), log |dT/dx|)."""
        return self.bijection.transform_and_log_det(x, self.context)

    def inverse_and_log_det(self, y: Array) -> tuple[Array, Array]:
        """(x, log |dx/dy|), where T(x) = y."""
        return self.bijection.inverse_and_log_det(y, self.context)


class _Skeleton(eqx.Module):
    """A layer with holes for what is trained, and the permutations before each layer and after the last."""

    trained: list[jax.ShapeDtypeStruct]
    treedef: Any = eqx.field(static=True)
    rest: Any
    moves: list[Any]


@functools.lru_cache(maxsize=64)
def _skeleton(stack: Stack, dim: int, dtype: str) -> _Skeleton:
    """Made in a thread of its own, so that a caller that is being traced leaves no tracer in the cache."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_build, stack, dim, dtype).result()


def _build(stack: Stack, dim: int, dtype: str) -> _Skeleton:
    from flowjax.bijections import Permute

    with jax.enable_x64(dtype == "float64"):
        trained, rest = eqx.partition(_layer(stack, dim), eqx.is_inexact_array)
        leaves, treedef = jax.tree.flatten(trained)
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves]
        return _Skeleton(shapes, treedef, rest, [Permute(move) for move in _moves(dim, stack)])


def _layer(stack: Stack, dim: int) -> Any:
    from flowjax.bijections import Coupling, MaskedAutoregressive

    nn: Any = dict(nn_width=stack.width, nn_depth=stack.depth, nn_activation=ACTIVATIONS[stack.activation])
    nn["cond_dim"] = stack.context or None
    if stack.kind in COUPLINGS:
        return Coupling(jr.key(0), transformer=_transformer(stack), untransformed_dim=dim // 2, dim=dim, **nn)
    return MaskedAutoregressive(jr.key(0), transformer=_transformer(stack), dim=dim, **nn)


def _transformer(stack: Stack) -> Any:
    """The scalar map whose parameters a network computes; the identity where the network gives zeros."""
    from flowjax.bijections import Affine, Chain, Loc, RationalQuadraticSpline
    from paramax import Parameterize

    if stack.kind == "additive":
        return Loc(jnp.zeros(()))
    affine = eqx.tree_at(lambda a: a.scale, Affine(), Parameterize(_bounded_exp, jnp.zeros(())))
    if not stack.knots:
        return affine
    spline = RationalQuadraticSpline(knots=stack.knots, interval=stack.interval, min_derivative=MIN_SLOPE)
    slopes = Parameterize(_slopes, jnp.zeros(stack.knots))
    return Chain([eqx.tree_at(lambda s: s.derivatives, spline, slopes), affine])


def _bounded_exp(x: Array) -> Array:
    return jnp.exp(MAX_LOG_SCALE * jnp.tanh(x / MAX_LOG_SCALE))


def _slopes(x: Array) -> Array:
    """Slopes at the knots: 1 at x = 0, and 1 at both ends, where the spline meets the identity. With free ends the density
    would jump where a draw leaves the interval, and a path gradient would miss the jump."""
    free = MIN_SLOPE + jax.nn.softplus(x + math.log(math.expm1(1 - MIN_SLOPE)))
    return jnp.pad(free, [(0, 0)] * (x.ndim - 1) + [(1, 1)], constant_values=1.0)


def _moves(dim: int, stack: Stack) -> list[np.ndarray]:
    """The permutation before each layer, and the one after the last, back to the coordinates' own order. Every second layer
    sees the reverse order of the one before it, so that a pair of couplings moves every coordinate; a pair of couplings
    starts from a random order."""
    rng, orders = np.random.default_rng(0), [np.arange(dim)]
    while len(orders) < stack.n_layers:
        shuffled = len(orders) % 2 == 0 and stack.kind in COUPLINGS
        orders.append(rng.permutation(dim) if shuffled else orders[-1][::-1])
    orders = [np.arange(dim), *orders, np.arange(dim)]
    return [np.argsort(before)[after] for before, after in itertools.pairwise(orders)]


def check_stack(name: str, stack: Stack) -> None:
    """Raises: OptionError for hyperparameters out of range."""
    for field in ("n_layers", "width", "depth"):
        if getattr(stack, field) < 1:
            asked = f"`{name}({field}={getattr(stack, field)})`"
            raise OptionError(explain(asked, "it is below 1", "it is a count", f"{field}=1 or more"))
    if stack.context < 0:
        asked = f"`{name}(context={stack.context})`"
        raise OptionError(explain(asked, "it is negative", "it is the length of a vector", "context=16, or 0: none"))
    if stack.activation not in ACTIVATIONS:
        asked, instead = f"`{name}(activation={stack.activation!r})`", f"one of {sorted(ACTIVATIONS)}"
        raise OptionError(explain(asked, "it is unknown", "the name is looked up", instead))
