"""Conditional distributions q(z | eps), and what the mixtures of them over eps share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from ..errors import ModelError, OptionError, explain
from ..facts import Fact
from ..nets import ACTIVATIONS, MLP
from ..tree import Layout, Shared, default_float, replaced
from .base import UNSIZED, AbstractDistribution, AbstractFamily
from .gaussian import check_scale, sized
from .mean_field import MeanField

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

CHUNK = 128  # components of a mixture evaluated at once: bounds the memory where there are many


def normal_at(layout: Layout, loc: Array, log_scale: Array) -> MeanField:
    """N(loc, diag e^{2 log_scale}) over latents of this layout."""
    return eqx.tree_at(lambda q: (q.loc, q.log_scale), MeanField(layout.shape_tree()), (loc, log_scale))


def one_row(spec: PyTree) -> PyTree:
    """Shapes of data of one row: what a conditional family is bound to, to be called with `spec`."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape), a.dtype), spec)


def spec_of(q: AbstractDistribution) -> PyTree:
    """Shapes of one draw."""
    return eqx.filter_eval_shape(lambda q: q.sample(jr.key(0)), q)


def is_sized(q: AbstractDistribution) -> bool:
    return bool(jax.tree.leaves(eqx.filter(q, eqx.is_array)))


def needs_density(name: str, part: str, given: AbstractFamily) -> None:
    """Raises ModelError if log q of a part cannot be evaluated."""
    if Fact.LOG_PROB not in given.facts:
        asked, wrong = f"`{name}({part}={type(given).__name__}(...))`", "its density cannot be evaluated"
        raise ModelError(
            explain(asked, wrong, "the bound is made of it", f"{part}=MeanField(), or another explicit family")
        )


class NormalNet(AbstractFamily):
    """q(z | c, eps) = N(z; mu, diag sigma^2), mu = net(act(c + W eps)), sigma the same for all eps.

    The context c is the bias of the first layer: where it is a linear function of x, mu is one network of [x, eps], and its
    part that reads x is computed once a datum, not once for each eps.
    """

    weight: Float[Array, "E H"]
    tail: MLP
    log_scale: Float[Array, " D"]
    layout: Layout = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    start: float = eqx.field(static=True)
    facts: ClassVar = MeanField.facts - {Fact.OWN_PARAMETERS}

    def __init__(
        self, hidden: Sequence[int], activation: str, scale: float,
        layout: Layout | None = None, n_noise: int = 0, key: Array | None = None,
    ):  # fmt: skip
        self.hidden, self.activation, self.start = tuple(hidden), activation, float(scale)
        self.weight = self.tail = self.log_scale = self.layout = UNSIZED
        if layout is not None:
            k1, k2 = jr.split(jr.key(0) if key is None else key)
            glorot, dtype = jax.nn.initializers.glorot_uniform(), default_float()
            self.layout = layout
            self.weight = glorot(k1, (n_noise, self.hidden[0]), dtype)
            self.tail = MLP(k2, self.hidden[0], self.hidden[1:], layout.size, activation=activation)
            self.log_scale = jnp.full(layout.size, jnp.log(self.start), dtype)

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        layout = sized("SemiImplicit", self.layout, latents)
        if self.layout is not None:
            return self
        n_noise = sum(a.size for a in jax.tree.leaves(rows[1]))
        return replaced(self, **vars(NormalNet(self.hidden, self.activation, self.start, layout, n_noise, key)))

    def __call__(self, x: PyTree) -> MeanField:
        context, eps = x
        flat = jnp.concatenate([jnp.ravel(a) for a in jax.tree.leaves(eps)])
        loc = self.tail(ACTIVATIONS[self.activation](context + flat @ self.weight))
        return normal_at(self.layout, loc, self.log_scale)


class AbstractConditional(AbstractDistribution):
    """q whose draws come from q(z | c, eps), eps from elsewhere.

    context: c, all that is q's own; `Amortised` computes it from x.   conditional: a family, called with (c, eps); its
    weights are the same for all rows.
    """

    context: AbstractVar[Array]
    conditional: AbstractVar[Shared[AbstractFamily]]

    def kind_of(self, site):
        return self.conditional.value.kind_of(site)

    def given(self, eps: PyTree) -> AbstractDistribution:
        """q(z | eps)."""
        return self.conditional.value((self.context, eps))  # type: ignore[return-value]

    def log_mixture(self, z: PyTree, eps: PyTree) -> Float[Array, ""]:
        """log 1/n sum_l q(z | eps_l), the leaves of `eps` leading with n."""
        n = jax.tree.leaves(eps)[0].shape[0]
        one = lambda e: self.given(e).log_prob(z)
        each = jax.vmap(one)(eps) if n <= CHUNK else jax.lax.map(one, eps, batch_size=CHUNK)
        return jax.nn.logsumexp(each) - jnp.log(n)


def start_conditional(
    name: str, conditional: AbstractFamily | None, hidden: Sequence[int], activation: str, scale: float
) -> AbstractFamily:
    """The conditional that was given, or the default one; checked."""
    check_scale(name, scale)
    if not hidden or any(h < 1 for h in hidden) or activation not in ACTIVATIONS:
        asked = f"`{name}(hidden={tuple(hidden)}, activation={activation!r})`"
        because = "eps goes through at least one hidden layer"
        instead = f"hidden=(50, 50), activation one of {sorted(ACTIVATIONS)}"
        raise OptionError(explain(asked, "it is no network with a hidden layer", because, instead))
    if conditional is None:
        return NormalNet(hidden, activation, scale)
    needs_density(name, "conditional", conditional)
    return conditional


def bind_conditional(conditional: Any, latents: PyTree, n_context: int, eps: PyTree, key: Array) -> AbstractFamily:
    """The conditional, sized for latents and for what it reads."""
    context = jax.ShapeDtypeStruct((n_context,), default_float())
    return conditional.bind(latents, one_row((context, eps)), key)
