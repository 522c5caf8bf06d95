"""A user's function and what it is called with: its arguments counted, its failures and its results in words."""

import contextlib
import inspect
import random
import re
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

from ..environment import is_full
from ..errors import JensenError, ModelError, explain
from ..tree import Layout

VALUE_NEEDED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
"""What JAX raises where Python or NumPy ask an array that is being traced for its numbers."""
_ASKS_NUMBERS = (
    "real number|length-1|[Oo]nly scalar|[Oo]nly integer scalar|with a sequence"  # in words of Python and NumPy
)
BLACK_BOX = "jensen.models.BlackBox(fn, shape, gradient=...) for a function of NumPy, SciPy or plain Python"
RANDOM = (
    "it draws random numbers of NumPy's or Python's",
    "compiled once, it would keep the noise of that one call for ever",
    "what is random as a latent, or drawn before and given as data",
)
WITHOUT_GRADIENT = (
    "Reverse-mode differentiation does not work",
    "Pure callbacks do not support JVP",
    "IO callbacks do not",
)


def layout_of(shape: PyTree, of: str) -> Layout:
    """The layout of z; a whole number n is the shape (n,), a list of them a shape.

    Raises: ModelError for what is no shape, or has no coordinates.
    """
    is_shape = lambda s: (isinstance(s, tuple) and not s) or (isinstance(s, (tuple, list)) and _all_whole(s))
    leaves, treedef = jax.tree.flatten(shape, is_leaf=is_shape)
    found = [_shape_of(s) for s in leaves]
    if any(s is None for s in found):
        odd = next(leaf for leaf, s in zip(leaves, found, strict=True) if s is None)
        wrong = f"{odd!r:.60} in shape={shape!r:.60} is no shape"
        because = "it says how many numbers z has, and how they lie"
        raise ModelError(explain(f"`{of}(fn, shape)`", wrong, because, 'shape=(3,), or a tree, {"a": (), "b": (2, 3)}'))
    layout = Layout(jax.tree.unflatten(treedef, found))
    if layout.size == 0:
        wrong, because = f"shape={shape!r:.60} has no coordinates", "there is nothing to infer"
        raise ModelError(explain(f"`{of}`", wrong, because, "shape=(1,) or more"))
    return layout


def _all_whole(s: Any) -> bool:
    return len(s) > 0 and all(map(_is_whole, s))


def _is_whole(n: Any) -> bool:
    return isinstance(n, (int, np.integer)) and not isinstance(n, bool)


def _shape_of(leaf: Any) -> tuple[int, ...] | None:
    if _is_whole(leaf):
        leaf = (leaf,)
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating):
        leaf = leaf.shape
    if not isinstance(leaf, (tuple, list)) or not all(_is_whole(n) and n >= 0 for n in leaf):
        return None
    return tuple(int(n) for n in leaf)


def takes(fn: Callable, of: str, *names: str, optional: int = 0) -> int:
    """How many of the arguments `names` fn is called with: all, or up to `optional` fewer.

    An argument with a default is the function's own (`lambda z, k=k: ...` in a loop) and is left alone, but for the
    first. `*args` take what there is.   Raises: ModelError for a function that wants more, or fewer, or keywords.
    """
    if not callable(fn) or isinstance(fn, type):
        wrong = f"it is the class {fn.__name__}" if isinstance(fn, type) else f"it is {_a(type(fn).__name__)}"
        raise ModelError(
            explain(of, wrong, f"it is called as fn({', '.join(names)})", "a function, or a callable object")
        )
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return len(names) - optional
    free = lambda p: p.default is p.empty
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        wanted = len(names) if sum(map(free, positional)) <= len(names) else len(positional)
    else:
        wanted = max(sum(map(free, positional)), min(len(positional), 1))
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and free(p)]
    if len(names) - optional <= wanted <= len(names) and not keywords:
        return wanted
    signature = f"{getattr(fn, '__name__', type(fn).__name__)}{inspect.signature(fn)}"
    forms = [f"fn({', '.join(names[:n])})" for n in range(len(names) - optional, len(names) + 1)]
    because = f"it is called as {' or '.join(forms)}; arguments with defaults stay as they are"
    given = "a lambda or functools.partial that gives the rest"
    raise ModelError(explain(of, f"it is {signature}", because, f"{forms[-1]}: {given}"))


def wants_data(fn: Callable, takes_data: bool) -> bool | None:
    """Must `fn(z, data)` be given data? None: it may be (`*args`)."""
    if not takes_data:
        return False
    try:
        parameters = inspect.signature(getattr(fn, "fn", fn)).parameters.values()
    except (TypeError, ValueError):
        return None
    return None if any(p.kind is p.VAR_POSITIONAL for p in parameters) else True


def described(value: Any) -> str:
    """float32[3], or a tree of such; what it is, for anything else."""
    spec = lambda a: jax.typeof(a).str_short() if isinstance(a, (jax.Array, np.ndarray)) else type(a).__name__
    leaves, treedef = jax.tree.flatten(value)
    return spec(leaves[0]) if treedef == jax.tree.structure(0) else str(jax.tree.map(spec, value)).replace("'", "")


@contextlib.contextmanager
def explained(asked: str, fn: Any, given: str) -> Iterator[None]:
    """Around a call of a user's function that JAX traces: whatever it raises is a ModelError in words.

    Arguments:  asked: what is being done, with fn's name.   given: the arguments, in words.
    Raises:     ModelError, too, where fn draws from NumPy's or Python's random numbers: they are drawn once, when the
                function is compiled.
    """
    before = states(fn)
    try:
        yield
    except JensenError:
        raise
    except Exception as error:
        raise ModelError(explain(asked, *_reasons(error, given))) from error
    if before != states(fn):
        raise ModelError(explain(asked, *RANDOM))


def _reasons(error: Exception, given: str) -> tuple[str, str, str]:
    """(wrong, because, instead) of an exception in a traced function."""
    text = f"{type(error).__name__}: {error}".split("\n")[0][:300]
    if isinstance(error, VALUE_NEEDED):
        wrong = f"it needs the numbers in an array, given {given} ({type(error).__name__}{where(error)})"
        because = "JAX compiles it for arrays of which only shapes are known: float(), `if` and NumPy's functions need numbers"
        return wrong, because, f"jax.numpy in place of numpy and math, jnp.where in place of `if`; or {BLACK_BOX}"
    if isinstance(error, TypeError) and "item assignment" in str(error):
        wrong, because = f"it writes into an array{where(error)}", "arrays of JAX are immutable"
        return wrong, because, f"z = z.at[0].set(1.0); or {BLACK_BOX}"
    if str(error).startswith(WITHOUT_GRADIENT):
        return without_gradient(text)
    asks_math = isinstance(error, (TypeError, ValueError)) and re.search(_ASKS_NUMBERS, str(error))
    instead = (
        f"a function of JAX that runs on such arguments{f'; or {BLACK_BOX}' if asks_math or _foreign(error) else ''}"
    )
    return f"it raised, given {given}{where(error)}", text, instead


def without_gradient(text: str) -> tuple[str, str, str]:
    """(wrong, because, instead) where JAX can run a function and not differentiate it."""
    instead = "lax.scan, or lax.fori_loop with fixed bounds; or LogDensity(..., differentiable=False); or BlackBox"
    return "JAX cannot differentiate it", text.split("\n")[0], instead


def where(error: Exception) -> str:
    """The last line of code that is the user's."""
    here = [f for f in traceback.extract_tb(error.__traceback__) if not _library(f.filename)]
    return f", in line {here[-1].lineno} of {here[-1].filename}" if here else ""


def _library(path: str) -> bool:
    return "site-packages" in path or "/jensen/" in path or "dist-packages" in path or path.endswith("contextlib.py")


def _foreign(error: Exception) -> bool:
    """Was it raised inside NumPy or SciPy?"""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(f"/{name}/" in frames[-1].filename for name in ("numpy", "scipy", "pandas", "sklearn"))


def states(fn: Any) -> list:
    """The states of the random generators of NumPy and Python that a function, or one that it calls, has the names of."""
    states: list[Any] = []
    for name, value in _reads(fn):
        if isinstance(value, np.random.Generator):
            states.append(repr(value.bit_generator.state))
        elif isinstance(value, np.random.RandomState):
            states.append(repr(value.get_state()))
        elif name == "random":  # numpy.random, or Python's
            legacy: Any = np.random.get_state()  # noqa: NPY002
            states += [legacy[1].tobytes(), legacy[2:], random.getstate()]
    return states


def _reads(fn: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    """(name, value) of what a function reads by name: captured, default, global; and what the functions among these do."""
    fn = getattr(fn, "fn", fn)
    fn = getattr(fn, "func", getattr(fn, "__func__", fn))
    try:
        fn = inspect.unwrap(fn)
    except ValueError:
        return
    if not isinstance(fn, types.FunctionType):
        fn = vars(type(fn)).get("__call__")
    if not isinstance(fn, types.FunctionType):
        return
    cells = zip(fn.__code__.co_freevars, (c.cell_contents for c in fn.__closure__ or () if is_full(c)), strict=False)
    named = [(n, fn.__globals__.get(n)) for n in fn.__code__.co_names]
    for name, value in [*cells, *named, *(("", d) for d in fn.__defaults__ or ())]:
        yield name, value
        if depth and isinstance(value, types.FunctionType) and not _library(value.__code__.co_filename):
            yield from _reads(value, depth - 1)


def number(value: Any, asked: str, *, differentiable: bool = True) -> Array:
    """The log density that a function returned. Raises: ModelError unless it is one real number."""

    def refuse(
        wrong: str, instead: str, because: str = "log p(z, x) of one latent is one number, in nats"
    ) -> ModelError:
        return ModelError(explain(asked, wrong, because, instead))

    if value is None:
        raise refuse("it returned None", "`return` before the number")
    if hasattr(value, "close") and inspect.iscoroutine(value):
        value.close()
        raise refuse("it returned a coroutine", "`def`, not `async def`")
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        raise refuse("it returned a generator", "`return` in place of `yield`; sum(...) of the terms")
    if isinstance(value, bool) or not isinstance(value, (int, float, complex, np.ndarray, np.generic, jax.Array)):
        instead = "one number: the sum of the terms"
        if type(value).__call__ is not type.__call__ and callable(value):
            instead = "an instance of a class that is called with z, or a function that returns a number"
        raise refuse(f"it returned {_a(type(value).__name__)}", instead)
    if isinstance(value, (int, float)):
        value = float(value)  # a flat prior, `lambda z: 0`
    array = jnp.asarray(value)
    if array.shape != ():
        instead = "sum over the axes: `.sum()`" if array.size != 1 else "`.sum()`, or `[0]`"
        raise refuse(f"it returned shape {array.shape}", instead, "log p(z, x) of one latent is one number")
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise refuse(f"it returned a complex number ({array.dtype})", "its real part, `.real`, where that is meant")
    if jnp.issubdtype(array.dtype, jnp.bool_):
        raise refuse("it returned a bool", "jnp.where(inside, log_density, -jnp.inf) for a support")
    if differentiable and not jnp.issubdtype(array.dtype, jnp.floating):
        because = "the gradient of whole numbers is zero everywhere"
        instead = "floats throughout; or LogDensity(..., differentiable=False) where z is rounded on purpose"
        raise refuse(f"it returned an integer ({array.dtype})", instead, because)
    return array


def must_depend(value: Any, z: PyTree, asked: str) -> None:
    """Raises: ModelError for a constant: a number that was made without z, though z is traced."""
    if any(isinstance(a, Tracer) for a in jax.tree.leaves(z)) and not isinstance(value, Tracer):
        because = "a constant has no finite integral: there is no posterior"
        raise ModelError(explain(asked, f"it returned {value!r:.60}, whatever z is", because, "a function of z"))


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
