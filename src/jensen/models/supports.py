"""Supports: where a latent lives, how it maps to the unconstrained line, and how that is written to a file."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro.distributions import biject_to, constraints

from ..errors import CheckpointError, explain
from ..tree import default_float

_UNLISTED = {"independent", "less_than_eq", "nonnegative", "open_interval", "positive_ordered_vector"}
_NAMES = (set(constraints.__all__) | _UNLISTED) - {"Constraint", "dependent", "is_dependent"}
PUBLIC = {n: getattr(constraints, n) for n in sorted(_NAMES)}
_BY_CLASS = {(c if isinstance(c, type) else type(c)): n for n, c in PUBLIC.items()}
_REAL = {"real", "real_vector", "real_matrix"}


class Opaque:
    """A constraint of a class that numpyro does not export: usable in memory, not in a file."""

    def __init__(self, constraint: constraints.Constraint):
        self.constraint = constraint

    def __hash__(self) -> int:
        return hash(type(self.constraint))

    def __eq__(self, other: object) -> bool:
        mine = self.constraint
        return isinstance(other, Opaque) and type(mine) is type(other.constraint) and bool(mine == other.constraint)


def encode(constraint: constraints.Constraint) -> Any:
    """A hashable description, `(name, ((argument, value), ...))`; `Opaque` if numpyro has no name for it."""
    name = _BY_CLASS.get(type(constraint))
    if name is None:
        return Opaque(constraint)
    if not isinstance(PUBLIC[name], type):
        return (name, ())
    values, (keys, static) = constraint.tree_flatten()
    fields = {**dict(zip(keys, values, strict=True)), **static}
    coded = tuple((k.lstrip("_"), _code(v)) for k, v in fields.items())
    return Opaque(constraint) if any(isinstance(v, Opaque) for _, v in coded) else (name, coded)


def _code(value: Any) -> Any:
    if isinstance(value, constraints.Constraint):
        return encode(value)
    if isinstance(value, tuple):
        coded = tuple(_code(v) for v in value)
        opaque = [v for v in coded if isinstance(v, Opaque)]
        return opaque[0] if opaque else ("tuple", *coded)
    array = np.asarray(value)
    if array.size and (array == array.flat[0]).all():
        return array.flat[0].item()
    return ("array", array.shape, tuple(array.ravel().tolist()))


def decode(code: Any) -> constraints.Constraint:
    """The constraint of a description: inverse of `encode`."""
    if isinstance(code, Opaque):
        return code.constraint
    name, fields = code
    return PUBLIC[name](**{k: _value(v) for k, v in fields}) if isinstance(PUBLIC[name], type) else PUBLIC[name]


def _value(code: Any) -> Any:
    if not isinstance(code, tuple):
        return code
    if code[0] == "array":
        return np.array(code[2]).reshape(code[1])
    return tuple(_value(c) for c in code[1:]) if code[0] == "tuple" else decode(code)


def _tuples(code: Any) -> Any:
    return tuple(_tuples(c) for c in code) if isinstance(code, list) else code


@functools.cache
def _bijection(code: Any) -> Any:
    """The transform from the unconstrained space; None where that is the space itself."""
    if not isinstance(code, Opaque):
        fields = dict(code[1])
        if code[0] in _REAL or (code[0] == "independent" and fields["base_constraint"][0] in _REAL):
            return None
    return biject_to(decode(code))


@dataclasses.dataclass(frozen=True)
class Site:
    """One latent of a model, without the model: all that is needed to constrain samples of a saved fit.

    name:     as in the model.
    shape:    of the unconstrained value; for a latent of each row, of one row.
    kind:     "real"; "binary" (0. and 1.); "category" (one-hot on the last axis).
    support:  description of the constraint, see `encode`.
    lower:    the value of the first category.
    axis:     where the rows lie in the model's value; None for a latent shared by all rows.
    integral: whether the model is given a discrete value as an integer (then no derivative passes).
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    support: Any
    lower: int = 0
    axis: int | None = None
    integral: bool = True

    def spec(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape, default_float())

    def forward(self, z: Array) -> tuple[Array, Array | float]:
        """z, led by the rows if there are any, to the model's value and log |det dx/dz|: scalar, or one a row."""
        z = z if self.axis is None else jnp.moveaxis(z, 0, self.axis)
        if self.kind != "real":
            return self._discrete(z), 0.0
        bijection = _bijection(self.support)
        if bijection is None:
            return z, 0.0
        value = bijection(z)
        log_det = bijection.log_abs_det_jacobian(z, value)
        return value, log_det.sum(tuple(i for i in range(log_det.ndim) if i != self.axis))

    def _discrete(self, z: Array) -> Array:
        if self.kind == "category":
            return jnp.argmax(z, -1) + self.lower
        return z.astype(int) if self.integral else z

    def constrain(self, z: Array) -> Array:
        """The value in the user's coordinates; discrete ones are integers."""
        value = self.forward(z)[0]
        return value if self.kind == "real" else value.astype(int)

    def unconstrain(self, x: Array) -> tuple[Array, Array | float]:
        """Inverse of `constrain`, rows leading if there are any, and log |det dx/dz| of `forward` there."""
        x = jnp.asarray(x)
        if self.kind != "real":
            z = jax.nn.one_hot(x - self.lower, self.shape[-1]) if self.kind == "category" else x
            z, log_det = z.astype(default_float()), 0.0
        else:
            bijection = _bijection(self.support)
            z = x if bijection is None else bijection.inv(x)
            log_det = 0.0 if bijection is None else bijection.log_abs_det_jacobian(z, x)
            log_det = jnp.sum(log_det, tuple(i for i in range(jnp.ndim(log_det)) if i != self.axis))
        return (z if self.axis is None else jnp.moveaxis(z, self.axis, 0)), log_det

    def start(self, lead: tuple[int, ...] = ()) -> Array:
        """Zeros; the first category."""
        zeros = jnp.zeros((*lead, *self.shape), default_float())
        return zeros.at[..., 0].set(1) if self.kind == "category" else zeros

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and None only.

        Raises:  CheckpointError if the support is of a class numpyro does not export.
        """
        if isinstance(self.support, Opaque):
            asked, kind = f"saving the support of site `{self.name}`", type(self.support.constraint).__name__
            wrong = f"`{kind}` is not a constraint of numpyro.distributions.constraints"
            instead = "a support made of numpyro's own constraints, e.g. through a TransformedDistribution"
            raise CheckpointError(explain(asked, wrong, "a file holds names and numbers, not Python classes", instead))
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Site":
        """Inverse of `to_json`, also after `json.loads(json.dumps(...))`."""
        try:
            site = cls(**{**data, "shape": tuple(data["shape"]), "support": _tuples(data["support"])})
            decode(site.support)
        except (KeyError, TypeError, ValueError) as e:
            asked, because = "reading the support of a site", "samples cannot be constrained without it"
            raise CheckpointError(explain(asked, f"the entry is {data}", because, "the dict made by `to_json`")) from e
        return site
