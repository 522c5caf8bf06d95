"""Models: what you believe. A model is the logarithm of a joint density of latents and data, up to a constant."""

import abc
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..arrays import in_force
from ..batch import Batch as Batch
from ..errors import ModelError, explain
from ..tree import Layout

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractModel(eqx.Module):
    """log p(z, x), unbatched: one latent, and one row of data (`plated`) or one `Batch` of rows.

    Arrays of floats in its fields are its parameters: they are fitted along with q. Data and constants that a model holds
    are wrapped in `jensen.tree.Frozen`, and read by `.value`.

    facts:   what it promises.
    plated:  True where every row has its own latent and the rows are independent given the parameters (amortised
             work); False where one latent explains all rows.
    latents: tree of `ShapeDtypeStruct`: one latent, in unconstrained coordinates.
    default_method: what `fit` takes where no method is chosen.
    """

    default_method: ClassVar[str] = "auto"
    facts: AbstractVar[frozenset]
    plated: AbstractVar[bool]

    @property
    @abc.abstractmethod
    def latents(self) -> PyTree: ...

    @abc.abstractmethod
    def log_density(self, z: PyTree, x: PyTree) -> Float[Array, ""]:
        """log p(z, x) in nats. `x` is one row if `plated`, else a `Batch`."""

    if TYPE_CHECKING:  # only where a fact says so

        def log_factors(
            self, z: PyTree, x: PyTree
        ) -> list[tuple[tuple[str, ...], Array]]: ...  # FACTORS: (sites read, value)

    def lifted(self) -> "AbstractModel":
        """The model with its data in the precision in force. Raises: DataError for data that it would blur."""
        return in_force(self)

    @abc.abstractmethod
    def constrain(self, z: PyTree) -> PyTree:
        """One latent in the user's coordinates: what samples and summaries show."""

    def twin(self) -> "AbstractModel":
        """The same model, whose user's functions read copies of what they read now: what a fit is made of."""
        return self

    def traced(self, xs: Sequence[PyTree]) -> "AbstractModel":
        """The same log density, its user's functions as traces (`program.Traced`): the form that is compiled.

        Arguments:  xs: the forms of `log_density`'s second argument that it will be called with.
        """
        return self

    def unconstrain(self, x: PyTree) -> tuple[PyTree, Float[Array, ""] | float]:
        """Inverse of `constrain`: (the latent with these values, log |det dx/dz| summed), for densities of values.

        Written anew where `constrain` computes anything; the latent alone will do where it and the values have equally
        many coordinates: then the determinant is found by differentiation.
        Raises:  ModelError where it is needed and not written.
        """
        if not computes_nothing(self):
            name = type(self).__name__
            wrong, because = (
                f"`{name}.unconstrain` is missing",
                "a density in the user's coordinates needs z and |dx/dz|",
            )
            instead = (
                "def unconstrain(self, x): return z, log_det, the inverse of `constrain` and log |det dx/dz|: for "
                '{"s": exp(z["s"])} it is {"s": log(x["s"])}, log(x["s"]).sum()'
            )
            raise ModelError(
                explain(f"the density of values that `{name}.constrain` computes", wrong, because, instead)
            )
        return x, 0.0


def computes_nothing(model: Any) -> bool:
    """Is `constrain` the identity?"""
    program = jax.make_jaxpr(model.constrain)(model.latents).jaxpr
    same_tree = jax.tree.structure(model.latents) == jax.tree.structure(jax.eval_shape(model.constrain, model.latents))
    return not program.eqns and list(program.invars) == list(program.outvars) and same_tree


def unconstrained(own: Any, x: PyTree) -> tuple[PyTree, Float[Array, ""] | float]:
    """(z, log |det dx/dz|) of values x, of a model or of coordinates; the determinant of a user's inverse that gives z alone
    is that of the Jacobian of `constrain`.

    Raises: ModelError where `unconstrain` is missing, or what it returns is not z, nor z with one number.
    """
    out = own.unconstrain(x)
    spec = getattr(own, "latents", None)
    if spec is None:
        return out
    shapes = lambda tree: (jax.tree.structure(tree), [jnp.shape(a) for a in jax.tree.leaves(tree)])
    asked, name = "the density of values", type(own).__name__
    if shapes(out) != shapes(spec):
        if isinstance(out, tuple) and len(out) == 2 and shapes(out[1]) == shapes(0.0):
            return out
        wrong = f"`{name}.unconstrain` returned {shapes(out)[1]}"
        because = f"the latent has {shapes(spec)[1]}, and the determinant is one number"
        raise ModelError(explain(asked, wrong, because, "return z, log_det, z as in `latents`"))
    layout, values = Layout(spec), Layout(jax.eval_shape(own.constrain, spec))
    if layout.size != values.size:
        wrong = f"`{name}.unconstrain` returned z without log |det dx/dz|"
        because = f"{values.size} values of {layout.size} coordinates have no Jacobian with a determinant"
        raise ModelError(explain(asked, wrong, because, "return z, log_det"))
    jacobian = jax.jacfwd(lambda u: values.ravel(own.constrain(layout.unravel(u))))(layout.ravel(out))
    return out, jnp.linalg.slogdet(jacobian)[1]


def like_rows(drawn: PyTree, rows: PyTree, asked: str) -> PyTree:
    """Rows drawn from a model (leading axis N), in the shapes of rows of data.

    Raises: ModelError where the two are not of one form.
    """
    sizes = lambda tree: [math.prod(jnp.shape(a)[1:]) for a in jax.tree.leaves(tree)]
    if jax.tree.structure(drawn) != jax.tree.structure(rows) or sizes(drawn) != sizes(rows):
        of = lambda tree: jax.tree.map(lambda a: jnp.shape(a)[1:], tree)
        wrong = f"the model draws rows of shape {of(drawn)}, and rows of the data have shape {of(rows)}"
        because, instead = (
            "rows that it drew are read as data are",
            "a likelihood whose `sample` returns a row as the data's",
        )
        raise ModelError(explain(asked, wrong, because, instead))
    return jax.tree.map(lambda a, row: jnp.reshape(a, (jnp.shape(a)[0], *jnp.shape(row)[1:])), drawn, rows)
