"""A model given by a log density that JAX cannot trace."""

from collections.abc import Callable
from typing import Any, ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..errors import ModelError, explain
from ..facts import Fact
from ..function import Function
from ..tree import Frozen, Layout
from . import host
from .base import AbstractModel, Batch
from .calls import layout_of, takes, wants_data


class BlackBox(AbstractModel):
    """A log density written in NumPy, or any other Python function, over an unconstrained latent.

    Definition: log p(z, x) = fn(z) or fn(z, data), up to a constant.
    Arguments:  fn: `fn(z)` or `fn(z, data)` -> number, in nats. It sees NumPy arrays: real ones in float64.
                shape: shape tuple, or tree of shapes, of z.
                vectorized: fn takes many points at once, z with a leading axis (n, *shape) always there, and returns
                (n,); `gradient` likewise. One call for all the draws of a step, not one a draw.
                gradient: same arguments -> d fn / dz, a tree like z.
                value_and_grad: same arguments -> (fn, d fn / dz), where both at once are cheaper.
    Facts:      DIFFERENTIABLE if a gradient is given; without it only score-function gradients.
    Returns nan where fn raises ArithmeticError or ValueError (of these are `numpy.linalg.LinAlgError` and
    `math.log(-1.)`): the point is outside of its domain; vectorised, all points of the call are. Arrays that do not fit
    together, and any other exception, are a ModelError.
    Raises:     ModelError if fn raises at z = 0, or returns anything but one number (so for `gradient`: a tree like z).
                fn with data is not tried before it has data.
    Cost:       about 50 microseconds a call besides fn's own time, on the host: the rest of the step waits for it.
    Example:    >>> import numpy as np
                >>> BlackBox(lambda z: -0.5 * np.sum(z**2), (3,), gradient=lambda z: -z)
    """

    fn: Function = eqx.field(static=True)
    gradient: Function | None = eqx.field(static=True)
    value_and_grad: Function | None = eqx.field(static=True)
    layout: Layout = eqx.field(static=True)
    vectorized: bool = eqx.field(static=True)
    takes_data: bool = eqx.field(static=True)
    number: Frozen[Array] | None
    plated: ClassVar[bool] = False

    def __init__(
        self,
        fn: Callable,
        shape: PyTree,
        *,
        vectorized: bool = False,
        gradient: Callable | None = None,
        value_and_grad: Callable | None = None,
    ):
        arity: dict[str, int] = {}
        for name, f in {"fn": fn, "gradient": gradient, "value_and_grad": value_and_grad}.items():
            if not callable(f) and (f is not None or name == "fn"):
                raise _refuse(f"{name} is a {type(f).__name__}", "it is called with z", f"a function for {name}")
            if f is not None:
                arity[name] = takes(f, f"`BlackBox({name}=...)`", "z", "data", optional=1)
        odd = [name for name, n in arity.items() if n != arity["fn"]]
        if odd:
            because, instead = "it is called as fn is", f"{odd[0]}(z{', data' if arity['fn'] == 2 else ''})"
            raise _refuse(f"fn takes {arity['fn']} argument(s), {odd[0]} {arity[odd[0]]}", because, instead)
        if gradient is not None and value_and_grad is not None:
            raise _refuse("both gradient and value_and_grad are given", "one is enough", "value_and_grad alone")
        wrap = lambda f: None if f is None else Function(f)
        self.fn, self.gradient, self.value_and_grad = Function(fn), wrap(gradient), wrap(value_and_grad)
        self.layout, self.vectorized, self.takes_data = layout_of(shape, "BlackBox"), vectorized, arity["fn"] == 2
        self.number = None
        if not self.takes_data:
            self._try()

    @property
    def facts(self):
        own = {Fact.EXACT_LOG_WEIGHT}
        return frozenset(own if self._both is None else own | {Fact.DIFFERENTIABLE})

    @property
    def wants_data(self) -> bool | None:
        """Must there be data? None: there may be."""
        return wants_data(self.fn, self.takes_data)

    @property
    def latents(self):
        return self.layout.spec()

    def log_density(self, z, x):
        rows = x.rows if isinstance(x, Batch) else x
        data = (rows,) if self.takes_data and rows is not None else ()
        name = f"the log density `{self.fn!r}`"
        if self.number is not None:
            both = None if self._both is None else _value_and_grad_of
            return host.density(_value_of, both, z, self.number.value, *data, vectorized=self.vectorized, name=name)
        return host.density(self._value, self._both, z, *data, vectorized=self.vectorized, name=name)

    def constrain(self, z):
        return z

    def traced(self, xs):
        """Called back by a number, an argument of the program: which holds no function, and serves all of this form."""
        number = host.numbered(self)
        hot = eqx.tree_at(lambda m: m.number, self, Frozen(jnp.asarray(number)), is_leaf=lambda a: a is None)
        for name in ("fn", "gradient", "value_and_grad"):
            if getattr(self, name) is not None:
                object.__setattr__(hot, name, _BY_NUMBER)
        return hot

    def fixed_points(self) -> list[float]:
        """log p at two fixed latents, where it needs no data: what a checkpoint knows the function by."""
        if self.takes_data:
            return []
        at = lambda c: jax.tree.map(lambda s: np.full((1,) * self.vectorized + s.shape, c), self.latents)
        model = self if self.number is None else host.BY_NUMBER[int(self.number.value)]
        return [float(np.ravel(model._value(at(c)))[0]) for c in (0.0, 0.25)]

    def _value(self, z: PyTree, *data: PyTree) -> np.ndarray:
        return self._number(host.guarded(self.fn, z, *data), z)

    @property
    def _both(self) -> Callable | None:
        return None if self.gradient is None and self.value_and_grad is None else self._value_and_grad

    def _value_and_grad(self, z: PyTree, *data: PyTree) -> tuple[np.ndarray, PyTree]:
        if self.value_and_grad is not None:
            out = host.guarded(self.value_and_grad, z, *data)
            return self._pair((out, out) if out is host.UNDEFINED else out, z)
        value = host.guarded(self.fn, jax.tree.map(np.copy, z), *data)  # fn may write to its argument
        gradient = value if value is host.UNDEFINED else host.guarded(cast(Callable, self.gradient), z, *data)
        return self._pair((value, gradient), z)

    def _pair(self, out: Any, z: PyTree) -> tuple[np.ndarray, PyTree]:
        if not (isinstance(out, tuple) and len(out) == 2):
            wrong = f"value_and_grad returned a {type(out).__name__}"
            raise _refuse(wrong, "both are needed", "`return value, gradient`")
        return self._number(out[0], z), self._like(out[1], z)

    def _number(self, value: Any, z: PyTree) -> np.ndarray:
        """One number, or (n,); nan where undefined."""
        want = jax.tree.leaves(z)[0].shape[:1] if self.vectorized else ()
        if value is host.UNDEFINED:
            return np.full(want, np.nan)
        if isinstance(value, jax.Array):
            because = "a JAX function needs no callback, and may wait for itself in one"
            raise _refuse("fn returned a JAX array", because, "LogDensity(fn, shape)")
        return _checked(value, want, "fn", "log p(z, x) of one latent is one number")

    def _like(self, gradient: Any, z: PyTree) -> PyTree:
        """A tree like z; nan where undefined."""
        if gradient is host.UNDEFINED:
            return jax.tree.map(lambda a: np.full(a.shape, np.nan), z)
        leaves, treedef = jax.tree.flatten(gradient)
        if treedef != jax.tree.structure(z):
            raise _refuse(f"the gradient is the tree {treedef}", "z has another", f"{jax.tree.structure(z)}")
        because = "it has one number for each of z's"
        checked = [_checked(g, a.shape, "gradient", because) for g, a in zip(leaves, jax.tree.leaves(z), strict=True)]
        return jax.tree.unflatten(treedef, checked)

    def _try(self) -> None:
        """Once at z = 0, outside of JAX."""
        lead = (3,) if self.vectorized else ()
        zeros = lambda: jax.tree.map(lambda s: np.zeros((*lead, *s.shape)), self.latents)
        calls = {"fn": self.fn, "gradient": self.gradient, "value_and_grad": self.value_and_grad}
        checks = {"fn": self._number, "gradient": self._like, "value_and_grad": self._pair}
        for name, f in ((n, f) for n, f in calls.items() if f is not None):
            try:
                out = f(zeros())
            except Exception as error:
                wrong, because = f"{name} raised at z = 0", f"{type(error).__name__}: {error}"
                axis = ", with a leading axis of points" if self.vectorized else ""
                instead = f"a function of float64 arrays of shape {self.layout.shape_tree()}{axis}; nan where undefined"
                raise _refuse(wrong, because, instead) from error
            checks[name](out, zeros())


def _unknown(*args: Any) -> Any:
    raise AssertionError("called by its number")


_BY_NUMBER = Function(_unknown)


def _value_of(z: PyTree, number: Any, *data: PyTree) -> np.ndarray:
    return host.BY_NUMBER[int(number)]._value(z, *data)


def _value_and_grad_of(z: PyTree, number: Any, *data: PyTree) -> tuple[np.ndarray, PyTree]:
    return host.BY_NUMBER[int(number)]._value_and_grad(z, *data)


def _refuse(wrong: str, because: str, instead: str) -> ModelError:
    return ModelError(explain("`BlackBox`", wrong, because, instead))


def _checked(value: Any, shape: tuple[int, ...], name: str, because: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise _refuse(f"{name} returned {type(value).__name__} of dtype {array.dtype}", because, "real numbers")
    if array.shape != shape:
        raise _refuse(f"{name} returned shape {array.shape}", because, f"shape {shape}")
    return array
