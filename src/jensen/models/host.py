"""Log densities that JAX cannot trace, called back from its compiled programs."""

import contextlib
import itertools
import math
import re
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental.buffer_callback import buffer_callback
from jax.lax import bitcast_convert_type
from jaxtyping import Array, PyTree

from ..errors import JensenError, ModelError, explain
from ..tree import default_float
from .calls import WITHOUT_GRADIENT, without_gradient

_TEXT = re.compile(r"\bModelError: (.*?\n +instead: [^\n]*)", re.DOTALL)
UNDEFINED = object()  # what `guarded` returns for a point outside of the domain
OUTSIDE = (ArithmeticError, ValueError)  # how NumPy and `math` say that a point is outside of the domain

_MISFIT = re.compile("broadcast|shape|dimension|aligned|unpack|with a sequence")  # a ValueError that is a bug: of NumPy


BY_NUMBER: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()  # models that are called back
_COUNT = itertools.count()


def numbered(model: Any) -> np.int32:
    """A number by which a compiled program finds the model while it lives."""
    number = next(_COUNT)
    BY_NUMBER[number] = model
    return np.int32(number)


@contextlib.contextmanager
def surfaced() -> Iterator[None]:
    """A ModelError raised inside a callback leaves a compiled program as an XLA error with its text: this turns it back.
    What JAX says of a function that it cannot differentiate, it says after the function has returned: here too."""
    try:
        yield
    except JensenError:
        raise
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # a program's error is one or the other
        found = _TEXT.search(str(error))
        if found:
            raise ModelError(found[1]) from error
        if str(error).startswith(WITHOUT_GRADIENT):
            raise ModelError(explain("the gradient of the log density", *without_gradient(str(error)))) from error
        raise


def _plain(a: Any) -> np.ndarray:
    """A NumPy array; a real one in float64, whatever JAX computes in."""
    a = np.asarray(a)
    return a.astype(np.float64, copy=False) if jnp.issubdtype(a.dtype, jnp.floating) else a


def guarded(fn: Callable, *args: Any) -> Any:
    """fn(*args); UNDEFINED where it says that the point is outside of its domain.

    Raises:  ModelError, with the cause and where it happened, for any other exception.
    """
    try:
        return fn(*args)
    except JensenError:
        raise
    except Exception as error:
        if isinstance(error, OUTSIDE) and not _MISFIT.search(str(error)):
            return UNDEFINED
        at = traceback.extract_tb(error.__traceback__)[-1]
        because = f"{type(error).__name__}: {error} (line {at.lineno} of {at.filename})"
        instead = "a function that runs at every point, and returns nan where it is undefined"
        raise ModelError(explain(f"the log density `{fn!r}`", "it raised", because, instead)) from error


def call(fn: Callable, spec: PyTree, z: PyTree, *data: PyTree, vectorized: bool = False) -> PyTree:
    """fn(z, *data) by a callback: NumPy in, NumPy out; works under jit and vmap.

    Arguments:  spec: tree of `ShapeDtypeStruct`: the result for one point.   vectorized: `fn` takes z with a leading
                axis of points, always, and returns results with that axis: one call under vmap, not one a point. The
                data are the same for all points.
    """
    pure = jax.tree.map(jnp.asarray, (z, data))
    shapes, dtypes = jax.tree.map(lambda a: _Shape(a.shape), pure), jax.tree.map(lambda a: a.dtype, pure)

    def run(z: PyTree, data: tuple) -> PyTree:
        z, data = jax.tree.map(_unpack, (z, data), dtypes)
        lead = ()
        if vectorized:
            lead = np.broadcast_shapes(*(s.lead(a) for a, s in _pairs(z, shapes[0])))
            z = jax.tree.map(
                lambda a, s: np.broadcast_to(a, lead + s.dims).reshape(math.prod(lead), *s.dims), z, shapes[0]
            )
            data = jax.tree.map(lambda a, s: s.alone(a), data, shapes[1])
        out = fn(jax.tree.map(lambda a: np.array(_plain(a)), z), *jax.tree.map(_plain, data))  # z may be written to
        return jax.tree.map(lambda v, s: _pack_host(np.asarray(v, s.dtype).reshape(lead + s.shape)), out, spec)

    method = "expand_dims" if vectorized else "sequential"
    packed = _call_back(run, jax.tree.map(_packed_spec, spec), *jax.tree.map(_pack, pure), vmap_method=method)
    return jax.tree.map(lambda a, s: a if a.dtype == s.dtype else bitcast_convert_type(a, s.dtype), packed, spec)


def _call_back(run: Callable, spec: PyTree, *args: PyTree, vmap_method: str) -> PyTree:
    """run(*args) on the host. `pure_callback` queues a copy of the arguments behind the program that waits for it, so that
    the one thread of a container of one core waits for ever: on a processor they are copied here instead."""
    if jax.default_backend() != "cpu":
        return jax.pure_callback(run, spec, *args, vmap_method=vmap_method)

    def fill(_: Any, out: PyTree, *args: PyTree) -> None:
        jax.tree.map(lambda to, value: np.copyto(np.asarray(to), value), out, run(*jax.tree.map(_copy, args)))

    return buffer_callback(fill, spec, vmap_method=vmap_method)(*args)


def _copy(buffer: Any) -> np.ndarray:
    """What a caller may keep, but not write to: the program's memory is used again after the call."""
    a = np.asarray(buffer).copy()
    a.flags.writeable = False
    return a


class _Shape:
    """The shape of one point's array, a leaf of a tree; a mapped array has axes before it."""

    def __init__(self, dims: tuple[int, ...]):
        self.dims = dims

    def lead(self, a: np.ndarray) -> tuple[int, ...]:
        return a.shape[: a.ndim - len(self.dims)]

    def alone(self, a: np.ndarray) -> np.ndarray:
        if math.prod(self.lead(a)) != 1:
            asked, wrong = "a vectorised log density under `vmap`", "its data were mapped too"
            because = "one call evaluates many points on the same data"
            raise ModelError(explain(asked, wrong, because, "vectorized=False"))
        return a.reshape(self.dims)


def _pairs(z: PyTree, shapes: PyTree) -> Iterator[tuple[np.ndarray, _Shape]]:
    return zip(jax.tree.leaves(z), jax.tree.leaves(shapes), strict=True)


# Double precision may be on in the calling thread only (`with jax.enable_x64(True)`), and XLA calls back from a thread of
# its own, where JAX would round to single precision. So eight-byte numbers travel as two words.


def _wide(dtype: np.dtype) -> bool:
    return dtype.itemsize == 8 and dtype.kind in "fiu"


def _packed_spec(s: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*s.shape, 2), np.uint32) if _wide(s.dtype) else s


def _pack(a: Array) -> Array:
    return bitcast_convert_type(a, np.uint32) if _wide(a.dtype) else a


def _pack_host(a: np.ndarray) -> np.ndarray:
    return np.array(a, order="C").reshape(*a.shape, 1).view(np.uint32) if _wide(a.dtype) else a


def _unpack(a: Any, dtype: np.dtype) -> np.ndarray:
    a = np.asarray(a)
    return a if a.dtype == dtype else np.ascontiguousarray(a).view(dtype).reshape(a.shape[:-1])


def density(
    value: Callable, value_and_grad: Callable | None, z: PyTree, *data: PyTree, vectorized: bool = False, name: str
) -> Array:
    """A log density by callback, as a JAX number; its gradient in z by a second callback.

    Arguments:  value: (z, *data) -> number.   value_and_grad: the same -> (number, tree like z); None: differentiating
                is refused.   name: for messages.
    """
    dtype = default_float()
    scalar = jax.ShapeDtypeStruct((), dtype)
    like_z = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), dtype), z)

    @jax.custom_vjp
    def run(z: PyTree, data: tuple) -> Array:
        return call(value, scalar, z, *data, vectorized=vectorized)

    def forward(z: PyTree, data: tuple) -> tuple[Array, PyTree]:
        if value_and_grad is None:
            asked, because = f"the gradient of {name}", "JAX cannot look inside a callback"
            instead = "gradient= or value_and_grad=; or an estimator that needs no gradient of the model"
            raise ModelError(explain(asked, "none was given", because, instead))
        return call(value_and_grad, (scalar, like_z), z, *data, vectorized=vectorized)

    run.defvjp(forward, lambda grad, ct: (jax.tree.map(lambda g: ct * g, grad), None))
    if any(isinstance(a, Tracer) for a in jax.tree.leaves((z, data))):
        return run(z, data)
    with surfaced():
        return jax.block_until_ready(run(z, data))
