"""Families: which q may be chosen. `family(x)` is the distribution for x; with global latents x plays no part.

To write one: subclass `AbstractPlain`, give `facts`, `kind_of`, `bind`, `noise_law`, `transform` and `log_prob`; all of
them unbatched (one draw, one datum). Batching happens elsewhere, once. Arrays of floats in its fields are trained.

    class Logistic(AbstractPlain):
        loc: Array
        log_scale: Array
        layout: Layout = eqx.field(static=True)  # how the latents lie in one vector
        facts = PLAIN | {Fact.REPARAMETERISED}

        def __init__(self, latents=None):
            self.layout = None if latents is None else Layout(latents)
            self.loc = self.log_scale = None if latents is None else jnp.zeros(self.layout.size)

        def kind_of(self, site):
            return "real"

        def bind(self, latents, rows, key):
            return type(self)(latents)

        def noise_law(self):
            return Uniform(self.loc.shape)

        def transform(self, noise):
            return self.layout.unravel(self.loc + jnp.exp(self.log_scale) * (jnp.log(noise) - jnp.log1p(-noise)))

        def log_prob(self, draw):
            u = (self.layout.ravel(draw) - self.loc) * jnp.exp(-self.log_scale)
            return -(u + 2 * jax.nn.softplus(-u) + self.log_scale).sum()
"""

import abc
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ..facts import Fact, amend, owner, rewritten
from .noise import iid

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

PLAIN = frozenset(
    {Fact.LOG_PROB, Fact.ZERO_MEAN_SCORE, Fact.DRAW_LOG_PROB, Fact.LOG_RATIO, Fact.TYPED_NOISE, Fact.OWN_PARAMETERS}
)

OF_ONE_LAW = frozenset({Fact.LAYERS, Fact.BINARY, Fact.WEAK_DERIVATIVE, Fact.STANDARDISED, Fact.NORMAL_SCORES})
"""Promises of methods that a composite of such laws does not have, though all its parts do."""

UNSIZED: Any = None  # what an array or a layout is until `bind` sizes it

_LAW = ("noise_law", "transform", "log_prob")  # what a distribution is
_BY_LAYERS = ("next_logits", "layer_log_probs")
_KNOWN_OF_IT = {
    Fact.ENTROPY: ("entropy",),
    Fact.MOMENTS: ("moments",),
    Fact.MOMENT_LOG_PROB: ("expected_log_prob",),
    Fact.ENUMERABLE: ("support",),
    Fact.WEAK_DERIVATIVE: ("weak_derivatives",),
    Fact.STANDARDISED: ("standardise", "unstandardise"),
    Fact.NORMAL_SCORES: ("from_normal", "to_normal", "log_probs"),
    Fact.LAYERS: _BY_LAYERS,
    Fact.BINARY: _BY_LAYERS,
    Fact.FACTORS: ("log_factors",),
    Fact.PRODUCT: ("sites", "log_factors"),
    Fact.SEMI_IMPLICIT: ("log_joint",),
    Fact.INDEPENDENT_COORDINATES: (),
}
"""Facts that are knowledge of one law, and the methods that hold it: a subclass with another law does not inherit them."""
_BOTH_AT_ONCE = ("transform_and_log_ratio", "transform_and_log_estimate")


def same_law(q: Any, parent: type) -> bool:
    """Is q a `parent`, with the noise, draws and density of that class?"""
    return isinstance(q, parent) and all(getattr(type(q), name) is getattr(parent, name) for name in _LAW)


def _withdraw(cls: Any) -> None:
    """Takes from a class what belongs to the law of a parent that it does not have."""
    for name in _BOTH_AT_ONCE:
        if rewritten(cls, owner(cls, name), _LAW):
            setattr(cls, name, vars(AbstractDistribution)[name])
    changed = rewritten(cls, owner(cls, "facts"), _LAW)
    if changed:
        anew = lambda name: all(c in owner(cls, name).__mro__ for c in changed)
        lost = {fact for fact, names in _KNOWN_OF_IT.items() if not names or not all(map(anew, names))}
        amend(cls, "facts", lambda facts: frozenset(facts) - lost)


class AbstractFamily(eqx.Module):
    """A conditional distribution is a call: `family(x)` is the distribution for datum (or batch) x."""

    facts: AbstractVar[frozenset]

    @abc.abstractmethod
    def __call__(self, x: PyTree) -> "AbstractDistribution": ...

    def kind_of(self, site: str) -> str:
        """What its draws of a (global) site are: "real" unless written anew, "binary" (0. and 1.) or "category" (one-hot)."""
        return "real"

    @abc.abstractmethod
    def bind(self, latents: PyTree, rows: PyTree, key: Array) -> Self:
        """The family sized for `latents` (tree of ShapeDtypeStruct); checks the shape if it already has one.

        Arguments:  rows: the data (leading axis N; shapes suffice) for a conditional family, else None; key: starting values.
        Raises:     ModelError where the latents do not fit.
        """

    @property
    def reads_row(self) -> bool:
        """Does q(. | x) depend on x? A distribution is the same for all x, unless its class writes `__call__` anew."""
        return True

    @property
    def any_row(self) -> bool:
        """Is there a q(. | x) for any x, or only for the rows that q was sized for?"""
        return True

    def check_rows(self, rows: PyTree) -> None:
        """Raises ModelError if there is no q(. | x) for some of these rows (leading axis N)."""

    def sharpened(self) -> "AbstractFamily":
        """The same q with a log_ratio nearer to its log density, at any cost: what fitted q are judged with. Itself, unless
        written anew."""
        return self


class AbstractDistribution(AbstractFamily):
    """q. Its primitive is the pair noise/transform; a draw may carry more than the latent (an extended space).

    A subclass of a family that writes `noise_law`, `transform` or `log_prob` anew is another law. Of what was known of the
    old one (entropy, moments, support, log q from the noise, ...) it keeps what it writes anew too; the other facts are
    withdrawn, unless it declares `facts` itself.
    """

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        _withdraw(cls)

    @property
    def reads_row(self) -> bool:
        return type(self).__call__ is not AbstractDistribution.__call__

    @abc.abstractmethod
    def noise_law(self) -> PyTree:
        """The laws of the noise one draw needs. May read only the SHAPES of self."""

    @abc.abstractmethod
    def transform(self, noise: PyTree) -> PyTree:
        """One draw from one noise."""

    @abc.abstractmethod
    def log_prob(self, draw: PyTree) -> Float[Array, ""]:
        """Log density of the whole draw: what a score-function term differentiates."""

    @abc.abstractmethod
    def latent(self, draw: PyTree) -> PyTree:
        """The part of the draw that the model sees."""

    @abc.abstractmethod
    def log_ratio(self, draw: PyTree) -> Float[Array, ""]:
        """What the log-weight subtracts: log q(draw) - log r(extras | latent); log_prob if there are no extras."""

    def transform_and_log_ratio(self, noise: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        """Both at once, for path gradients. Written anew where the noise gives log q more cheaply than the draw does
        (a Normal: 20 % of a small fit; an inverse autoregressive flow: its whole inverse)."""
        draw = self.transform(noise)
        return draw, self.log_ratio(draw)

    def transform_and_log_estimate(self, noise: PyTree) -> tuple[PyTree, Float[Array, ""]]:
        """The same, but log_ratio may be estimated without bias: for objectives linear in it. Written anew where exactness
        costs (a continuous flow: D derivatives of its field instead of one)."""
        return self.transform_and_log_ratio(noise)

    def noise(self, key: Array, shape: tuple[int, ...] = ()) -> PyTree:
        """Independent noise with leading axes `shape`, in one call."""
        return iid(key, self.noise_law(), shape)

    def sample(self, key: Array) -> PyTree:
        """One draw."""
        return self.transform(self.noise(key))

    def __call__(self, x: PyTree = None) -> "AbstractDistribution":
        return self

    if TYPE_CHECKING:  # only where a fact says so

        def entropy(self) -> Array: ...  # ENTROPY

        def moments(self) -> tuple[PyTree, PyTree]: ...  # MOMENTS: (mean, variance), each in the latent's tree

        def support(self) -> PyTree: ...  # ENUMERABLE: all draws on a leading axis

        def expected_log_prob(self, mean: PyTree, variance: PyTree) -> Array: ...  # MOMENT_LOG_PROB: to be a prior

        def log_factors(
            self, draw: PyTree
        ) -> list[tuple[tuple[str, ...], Array]]: ...  # FACTORS: in the order of drawing

        # WEAK_DERIVATIVE: the noise it needs; other draws z_m (leading axis M) and weights w_m, of which only gradients count:
        # grad E f(z) = E sum_m (f(z_m) - f(z)) grad w_m
        def weak_noise_law(self) -> PyTree: ...

        def weak_derivatives(self, draw: PyTree, noise: PyTree) -> tuple[PyTree, Array]: ...

        # STANDARDISED: the standardised draw, and (the draw, log of the map's slope) back from it
        def standardise(self, draw: PyTree) -> PyTree: ...

        def unstandardise(self, noise: PyTree) -> tuple[PyTree, Array]: ...

        # NORMAL_SCORES: each coordinate as an increasing map of a standard normal, back, and each one's own log density
        def from_normal(self, scores: Array) -> PyTree: ...

        def to_normal(self, draw: PyTree) -> Array: ...

        def log_probs(self, draw: PyTree) -> Array: ...

        # LAYERS: a draw or a noise as a tuple of layers in the order of sampling, and back; the logits of the layer that
        # follows the given ones (relaxed values are fine)
        @property
        def n_layers(self) -> int: ...

        def layers(self, tree: PyTree) -> tuple: ...

        def unlayered(self, layers: tuple) -> PyTree: ...

        def next_logits(self, before: tuple) -> Array: ...

        def layer_log_probs(self, draw: PyTree) -> tuple[Array, ...]: ...  # log q(h_l | h_<l) of each layer

        @property
        def sites(self) -> dict[Any, "AbstractDistribution"]: ...  # PRODUCT: the factors


class AbstractPlain(AbstractDistribution):
    """A draw is the latent itself."""

    def latent(self, draw):
        return draw

    def log_ratio(self, draw):
        return self.log_prob(draw)
