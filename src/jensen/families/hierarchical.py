"""Hierarchical families: auxiliary variables, and a reverse model that makes up for them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import PyTree

from ..errors import OptionError, explain
from ..facts import Fact
from ..tree import Layout, Shared, default_float, replaced
from .amortised import Amortised
from .base import AbstractDistribution, AbstractFamily
from .conditional import is_sized, needs_density, one_row, spec_of
from .mean_field import MeanField

if TYPE_CHECKING:  # not a field: a checker would want it in `__init__`
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractHierarchical(AbstractDistribution):
    """q(z) = integral of q(lam) q(z | lam). A draw is (z, lam); the log-weight is log p(x, z) + log r(lam | z) - log q(lam, z),
    whose mean is the ELBO of q less E KL(q(lam | z) || r(lam | z)).

    mixing: q(lam); its parameters are q's own, `Amortised` computes them from x.   conditional: a family, called with lam.
    reverse: r, a family, called with z. Both are the same for all rows.
    """

    mixing: AbstractVar[AbstractDistribution]
    conditional: AbstractVar[Shared[AbstractFamily]]
    reverse: AbstractVar[Shared[AbstractFamily]]

    @property
    def facts(self):
        shared = self.mixing.facts & self.conditional.value.facts & {Fact.REPARAMETERISED, Fact.TYPED_NOISE}
        return frozenset(shared | {Fact.LOG_RATIO, Fact.DRAW_LOG_PROB})

    def kind_of(self, site):
        return self.conditional.value.kind_of(site)

    def given(self, lam: PyTree) -> AbstractDistribution:
        """q(z | lam)."""
        return self.conditional.value(lam)  # type: ignore[return-value]

    def log_reverse(self, draw: PyTree) -> jax.Array:
        """log r(lam | z)."""
        z, lam = draw
        return self.reverse.value(z).log_prob(lam)  # type: ignore[attr-defined]

    def noise_law(self):
        given = eqx.filter_eval_shape(lambda q, lam: q.given(lam), self, spec_of(self.mixing))
        return self.mixing.noise_law(), given.noise_law()

    def transform(self, noise):
        lam = self.mixing.transform(noise[0])
        return self.given(lam).transform(noise[1]), lam

    def transform_and_log_ratio(self, noise):
        lam, log_mixing = self.mixing.transform_and_log_ratio(noise[0])
        z, log_given = self.given(lam).transform_and_log_ratio(noise[1])
        return (z, lam), log_mixing + log_given - self.log_reverse((z, lam))

    def latent(self, draw):
        return draw[0]

    def log_prob(self, draw):
        z, lam = draw
        return self.mixing.log_prob(lam) + self.given(lam).log_prob(z)

    def log_ratio(self, draw):
        return self.log_prob(draw) - self.log_reverse(draw)

    def bound_parts(self, latents: PyTree, mixing: AbstractDistribution, key: jax.Array) -> tuple[Shared, Shared]:
        """(conditional, reverse), sized for each other."""
        k1, k2 = jr.split(key)
        lam = spec_of(mixing)
        conditional = self.conditional.value.bind(latents, one_row(lam), k1)
        return Shared(conditional), Shared(self.reverse.value.bind(lam, one_row(latents), k2))


class Hierarchical(AbstractHierarchical):
    """Hierarchical variational model: q(z | lam) over auxiliary lam, with a trained reverse r(lam | z) (HVM; auxiliary
    deep generative models).

    Definition: E_{q(lam) q(z | lam)}[log p(x, z) + log r(lam | z) - log q(lam) - log q(z | lam)] <= ELBO of q(z) <= log p(x).
    Arguments:  mixing: q(lam), any explicit distribution, a flow or a mixture say, sized or not (default
                `MeanField(scale=1.0)`).   n_auxiliary: dimensions of lam where the mixing is unsized (default: those of z).
                conditional: q(z | lam), a family called with lam: `Amortised(q)` makes one of any explicit q, discrete ones too
                (default `Amortised(MeanField(scale=1.0))`).   reverse: r(lam | z), likewise (default: the same, over lam).
                hidden, activation: of the default networks.
    Cost:       three networks a draw.   Bound: never above the ELBO of q, and equal to it where r is the posterior of lam.
    Reference:  Ranganath, Tran and Blei (2016), equation 5; Agakov and Barber (2004).  [ranganath2016hierarchical]
    """

    mixing: AbstractDistribution
    conditional: Shared[AbstractFamily]
    reverse: Shared[AbstractFamily]
    n_auxiliary: int | None = eqx.field(static=True)

    def __init__(
        self, mixing: AbstractDistribution | None = None, conditional: AbstractFamily | None = None,
        reverse: AbstractFamily | None = None, *, n_auxiliary: int | None = None, hidden: Sequence[int] = (50, 50),
        activation: str = "relu",
    ):  # fmt: skip
        if n_auxiliary is not None and n_auxiliary < 1:
            asked, because = f"`Hierarchical(n_auxiliary={n_auxiliary})`", "it counts auxiliary variables"
            raise OptionError(explain(asked, "it is below 1", because, "n_auxiliary=2"))
        net = lambda: Amortised(MeanField(scale=1.0), hidden=tuple(hidden), activation=activation)
        self.mixing = MeanField(scale=1.0) if mixing is None else mixing
        self.conditional = Shared(net() if conditional is None else conditional)
        self.reverse = Shared(net() if reverse is None else reverse)
        self.n_auxiliary = n_auxiliary
        parts = {"mixing": self.mixing, "conditional": self.conditional.value, "reverse": self.reverse.value}
        for name, part in parts.items():
            needs_density("Hierarchical", name, part)

    def bind(self, latents, rows, key):
        k1, k2 = jr.split(key)
        mixing = self.mixing
        if not is_sized(mixing):
            wide = self.n_auxiliary or Layout(latents).size
            mixing = mixing.bind(jax.ShapeDtypeStruct((wide,), default_float()), None, k1)
        conditional, reverse = self.bound_parts(latents, mixing, k2)
        return replaced(self, mixing=mixing, conditional=conditional, reverse=reverse)
