"""Targets of the Inference Gym, and anything with their interface."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ...errors import JensenError, ModelError, explain
from ...facts import Fact
from ...function import Function
from ...tree import Layout, default_float
from ..base import AbstractModel

_NEEDED = ("event_shape", "default_event_space_bijector", "unnormalized_log_prob", "dtype")


class GymModel(AbstractModel):
    """A target density with a bijector from the unconstrained space; made by `from_inference_gym`.

    Definition: log p(z) = target.unnormalized_log_prob(x) + log |det dx/dz|, x = bijector(z), up to a constant.
    """

    target: Function = eqx.field(static=True)
    layout: Layout = eqx.field(static=True)
    facts: ClassVar = frozenset({Fact.DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT})
    plated: ClassVar[bool] = False
    rows: ClassVar[None] = None  # its data are its own, and none can be given to `fit`

    @property
    def latents(self) -> PyTree:
        return self.layout.spec()

    def log_density(self, z: PyTree, x: Any = None) -> Float[Array, ""]:
        value = self.target.fn.unnormalized_log_prob(self._forward(z))
        return jnp.asarray(value, default_float()) + self._log_det(z)

    def constrain(self, z: PyTree) -> PyTree:
        """The event, as the target takes it."""
        return self._forward(z)

    def unconstrain(self, x: PyTree) -> tuple[PyTree, Array]:
        """Inverse of `constrain`, and log |det dx/dz| there."""
        z = self._each("inverse", x)
        return z, self._log_det(z)

    def _forward(self, z: PyTree) -> PyTree:
        return self._each("forward", z)

    @property
    def _bijector(self) -> Any:
        return self.target.fn.default_event_space_bijector

    def _each(self, method: str, value: PyTree) -> PyTree:
        if hasattr(self._bijector, "forward"):  # one for the whole event
            return getattr(self._bijector, method)(value)
        return jax.tree.map(lambda b, v: getattr(b, method)(v), self._bijector, value, is_leaf=_is_bijector)

    def _log_det(self, z: PyTree) -> Array:
        if hasattr(self._bijector, "forward"):
            terms = self._bijector.forward_log_det_jacobian(z, jax.tree.map(jnp.ndim, z))
        else:
            one = lambda b, v: b.forward_log_det_jacobian(v, jnp.ndim(v))
            terms = jax.tree.map(one, self._bijector, z, is_leaf=_is_bijector)
        return sum((jnp.sum(jnp.asarray(t)) for t in jax.tree.leaves(terms)), start=jnp.zeros((), default_float()))


def from_inference_gym(target: Any) -> GymModel:
    """A target density with the Inference Gym's interface as a model over the unconstrained space of its bijector.

    Arguments:  target: an object with `event_shape`, `dtype` (trees of the same structure), `unnormalized_log_prob(x)`
                of one event, and `default_event_space_bijector`: one bijector for the whole event, or a tree of them,
                with `forward`, `inverse`, `forward_log_det_jacobian(z, event_ndims)` and, where the shapes differ,
                `inverse_event_shape(shape)`. All in JAX.
    Raises:     ModelError: something of this is missing, an event is discrete, or the density is not a number in JAX.
    Reference:  Sountsov, Radul et al. (2020), Inference Gym.  [sountsov2020gym]
    """
    missing = [name for name in _NEEDED if not hasattr(target, name)]
    if missing:
        because, instead = "they say what the latents are", "a target of inference_gym.using_jax"
        raise _refuse(f"{type(target).__name__} has no {', '.join(missing)}", because, instead)
    discrete = [str(d) for d in jax.tree.leaves(target.dtype) if not jnp.issubdtype(_numpy(d), jnp.floating)]
    if discrete:
        because = "the latents here are real numbers"
        raise _refuse(
            f"its event is of dtype {', '.join(discrete)}", because, "a target with the discrete part summed out"
        )
    try:
        made = GymModel(Function(target), Layout(_unconstrained_shapes(target)))
        out = jax.eval_shape(made.log_density, made.latents)
        jax.eval_shape(jax.grad(lambda z: made.log_density(z).sum()), made.latents)
    except JensenError:
        raise
    except Exception as error:
        because = f"{type(error).__name__}: {error}"
        raise _refuse("JAX cannot trace its density", because, "a target of inference_gym.using_jax") from error
    if out.shape != ():
        because, instead = "log p of one event is one number", "a target without batch axes"
        raise _refuse(f"its density has shape {out.shape}", because, instead)
    return made


def _unconstrained_shapes(target: Any) -> PyTree:
    """Shapes of the latents: of each event, or what its bijector makes of it."""
    is_shape = lambda s: not isinstance(s, dict) and not _is_namedtuple(s) and _as_tuple(s) is not None
    shapes = jax.tree.map(_as_tuple, target.event_shape, is_leaf=is_shape)
    bijector = target.default_event_space_bijector
    inverse = lambda b, s: _as_tuple(b.inverse_event_shape(s)) if hasattr(b, "inverse_event_shape") else s
    if not hasattr(bijector, "forward"):
        return jax.tree.map(inverse, bijector, shapes, is_leaf=_is_bijector)
    if isinstance(shapes, tuple) and is_shape(shapes):
        return inverse(bijector, shapes)
    found = bijector.inverse_event_shape(shapes) if hasattr(bijector, "inverse_event_shape") else shapes
    return jax.tree.map(_as_tuple, found, is_leaf=is_shape)


def _is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _as_tuple(shape: Any) -> tuple[int, ...] | None:
    """A shape of any library as a tuple; None for anything else."""
    try:
        return tuple(int(n) for n in shape)
    except (TypeError, ValueError):
        return None


def _is_bijector(node: Any) -> bool:
    return hasattr(node, "forward")


def _numpy(dtype: Any) -> np.dtype:
    return np.dtype(getattr(dtype, "as_numpy_dtype", dtype))


def _refuse(wrong: str, because: str, instead: str) -> ModelError:
    return ModelError(explain("`from_inference_gym`", wrong, because, instead))
