"""Small models for the cells of `jensen.cells`: of latents of every kind, each with its data."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array

from .facts import Fact
from .families import Bernoulli, Categorical, Layers, MeanField, Product, relaxed
from .models import BlackBox, LatentVariable, LogDensity
from .models.base import AbstractModel
from .tree import split_trainable

N_ROWS = 4


class Setting(NamedTuple):
    """A model with its data; `minibatched`: a step sees two of the rows."""

    name: str
    model: AbstractModel
    rows: Any
    minibatched: bool


LATENTS: dict[str, Any] = {
    "real": (2,),
    "line": (1,),
    "binary": (2,),
    "category": (3,),
    "relaxed": (2,),
    "relaxed category": (3,),
    "mixed": {"b": (2,), "w": (1,)},
    "layers": {"h1": (2,), "h2": (2,)},
    "rows": (1,),
}


def _vector(z: Any) -> Array:
    return jnp.concatenate([jnp.ravel(a) for a in jax.tree.leaves(z)])


class Reader(eqx.Module):
    """An encoder."""

    weight: Array

    def __call__(self, row):
        return (row["x"] if isinstance(row, dict) else row) @ self.weight


class Curve(eqx.Module):
    """A log density near the families' starting points, neither Gaussian nor separable; `theta` is trained."""

    theta: Array

    def __call__(self, z):
        v = _vector(z)
        return self.theta @ v - 0.6 * v @ v + 0.25 * jnp.sin(1.5 * v.sum()) + 0.3 * jnp.prod(jnp.cos(v))


class Blind(eqx.Module):
    """The same, but no derivative in z passes."""

    fn: Curve

    def __call__(self, z):
        return self.fn(stop_gradient(z))


def _curve_in_numpy(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`Curve` at points of two coordinates, (n,), and its gradient, (n, 2)."""
    theta, s, cosines = np.array([0.5, -0.4]), z.sum(-1), np.cos(z)
    value = z @ theta - 0.6 * (z**2).sum(-1) + 0.25 * np.sin(1.5 * s) + 0.3 * cosines.prod(-1)
    return value, theta - 1.2 * z + 0.375 * np.cos(1.5 * s)[..., None] - 0.3 * np.sin(z) * cosines[..., ::-1]


class RowTerm(eqx.Module):
    """log p(row | z)."""

    theta: Array

    def __call__(self, z, row):
        mean = jnp.sin(self.theta * _vector(z)).sum()
        return -0.15 * (row["x"][0] - mean) ** 2 + 0.2 * row["x"][1] * mean


class RowJoint(eqx.Module):
    """log p(z, row)."""

    prior: Curve
    term: RowTerm

    def __call__(self, z, row):
        return self.prior(z) + self.term(z, row)


class Affine(eqx.Module):
    """A decoder."""

    weight: Array
    bias: Array

    def __call__(self, z):
        return jnp.tanh(_vector(z)) @ self.weight + self.bias


class Hierarchy(AbstractModel):
    """A global latent g, and a latent z for each row: p(g) prod_i p(z_i, x_i | g)."""

    top: Curve
    term: RowTerm
    facts: ClassVar = frozenset({Fact.DIFFERENTIABLE, Fact.EXACT_LOG_WEIGHT, Fact.MINIBATCH})
    plated: ClassVar = False

    @property
    def latents(self):
        return {"g": jax.ShapeDtypeStruct((1,), self.top.theta.dtype)}

    @property
    def local_latents(self):
        return {"z": jax.ShapeDtypeStruct((1,), self.top.theta.dtype)}

    def log_density(self, z, x):
        row = lambda z, row: -0.6 * (z[0] - 0.5 * z_top[0]) ** 2 + self.term(z, row)
        z_top = z["g"]
        terms = jax.vmap(row)(z["z"], x.rows)
        return self.top(z["g"]) + (terms if x.weight is None else x.weight * terms).sum()

    def constrain(self, z):
        return z


def _prior(latents: str) -> Any:
    normal, bernoulli = MeanField((2,), loc=jnp.array([0.3, -0.2]), scale=0.9), Bernoulli([0.4, -0.7])
    by_name = {
        "real": normal,
        "line": MeanField((1,), loc=jnp.array([0.3]), scale=0.9),
        "binary": bernoulli,
        "category": Categorical([0.3, -0.5, 0.1]),
    }
    if latents == "layers":
        return generic(Layers({"h2": 2, "h1": 2}))
    by_name |= {k: relaxed(by_name[d], 1.5) for k, d in (("relaxed", "binary"), ("relaxed category", "category"))}
    return by_name.get(latents) or Product({"w": MeanField((1,), scale=0.9), "b": bernoulli})


def rows() -> dict[str, Array]:
    x = jnp.array([[0.7, 0.5], [-0.9, 0.0], [0.4, -0.6], [1.1, 0.3]])
    return {"x": x, "index": jnp.arange(N_ROWS)}


def _boxes() -> list[Setting]:
    """Log densities of two coordinates that JAX cannot trace."""
    value = lambda z: _curve_in_numpy(z)[0]
    with_gradient = BlackBox(value, (2,), vectorized=True, value_and_grad=_curve_in_numpy)
    return [
        Setting("global, NumPy", BlackBox(value, (2,), vectorized=True), None, False),
        Setting("global, NumPy with gradient", with_gradient, None, False),
    ]


def settings(latents: str) -> list[Setting]:
    """The models of each kind over these latents."""
    if latents == "rows":
        model = Hierarchy(Curve(jnp.array([0.4])), RowTerm(jnp.array([1.2])))
        two = jax.tree.map(lambda a: a[:2], rows())
        return [
            Setting("global and local, all rows", model, two, False),
            Setting("global and local, minibatch", model, rows(), True),
        ]
    shape = LATENTS[latents]
    size = sum(jnp.zeros(s).size for s in (shape.values() if isinstance(shape, dict) else [shape]))
    curve, term = Curve(jnp.linspace(0.5, -0.4, size)), RowTerm(jnp.linspace(1.1, 0.6, size))
    data = rows()
    decoder = Affine(0.6 * jnp.sin(jnp.arange(2.0 * size)).reshape(size, 2), jnp.array([0.1, -0.3]))
    return [
        *(_boxes() if latents == "real" else ()),
        Setting("global", LogDensity(curve, shape), None, False),
        Setting("global, not differentiable", LogDensity(Blind(curve), shape, differentiable=False), None, False),
        Setting("global, all rows", LogDensity(curve, shape, log_likelihood=term), data, False),
        Setting("global, minibatch", LogDensity(curve, shape, log_likelihood=term), data, True),
        Setting("local, minibatch", LogDensity(RowJoint(curve, term), shape, local=True), data, True),
        Setting(
            "decoder, minibatch", LatentVariable(_prior(latents), decoder, "gaussian", shape=(2,)), data["x"], True
        ),
    ]


def generic(tree: Any) -> Any:
    """The tree with its trained arrays moved off their special starting values."""
    trained, rest = split_trainable(tree)
    shift = lambda a: a + 0.2 * jnp.sin(1.0 + 3 * jnp.arange(a.size)).reshape(a.shape)
    return eqx.combine(jax.tree.map(shift, trained), rest)
