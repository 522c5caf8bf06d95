"""Semi-implicit families: an explicit conditional, mixed over a distribution that can be drawn from."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..facts import Fact
from ..tree import Frozen, Layout, Shared, default_float, replaced
from .base import UNSIZED, AbstractDistribution, AbstractFamily
from .conditional import AbstractConditional, bind_conditional, is_sized, needs_density, spec_of, start_conditional
from .mean_field import MeanField
from .noise import is_law


class SemiImplicit(AbstractConditional):
    """Semi-implicit q, and the bound of semi-implicit variational inference (SIVI).

    Definition: q(z) = E_{q(eps)} q(z | eps). A draw is z with eps_0, which made it, and L others; the log-weight is
                log p(x, z) - log 1/(L+1) sum_{l=0..L} q(z | eps_l).
    Derivation: given the set {eps_l}, the generating one is any of them, so z has density 1/(L+1) sum_l q(z | eps_l): E[w] is
                p(x) for each L, also in `IWAE`, and the direct gradient of that log density has mean zero. The bound rises
                with L to the ELBO of q.
    Arguments:  mixing: q(eps), any explicit distribution, trained unless it is `Frozen` (default: N(0, I) of `n_noise`
                dimensions, not trained).
                conditional: q(z | eps), a family called with (context, eps) (default: a normal, its mean a network of eps, its
                standard deviation trained, the same for all eps).   n_mixing: L, 1 or more.
                n_noise: dimensions of eps (default: those of the latents).   hidden, activation, scale: of the default
                conditional: layers of its network, and its starting sd.
                n_verdict: mixing draws with which the fitted q is judged: the more, the nearer to its own density.
    Amortised:  the encoder computes the context, the biases of the first layer: `Amortised(SemiImplicit(hidden=(200, 200)),
                hidden=())` is N(mu([x, eps]), diag sigma^2). All else is the same for all rows.
    Cost:       L + 1 evaluations of q(z | eps) a draw; `UIVI()` as the gradient follows the ELBO itself.
    Reference:  Yin and Zhou (2018); Molchanov, Kharitonov, Sobolev and Vetrov (2019).  [yin2018sivi]
    """

    context: Float[Array, " H"]
    conditional: Shared[AbstractFamily]
    mixing: Shared[Any]
    n_mixing: int = eqx.field(static=True)
    n_noise: int | None = eqx.field(static=True)
    n_verdict: int = eqx.field(static=True)
    hidden: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, *, mixing: AbstractDistribution | Frozen | None = None, conditional: AbstractFamily | None = None,
        n_mixing: int = 50, n_noise: int | None = None, hidden: Sequence[int] = (50, 50), activation: str = "relu",
        scale: float = 0.5, n_verdict: int = 200,
    ):  # fmt: skip
        for name, n in (("n_mixing", n_mixing), ("n_noise", n_noise), ("n_verdict", n_verdict)):
            if n is not None and n < 1:
                because = "the mixture is compared at the eps that made z and at n_mixing others, of n_noise dimensions"
                raise OptionError(explain(f"`SemiImplicit({name}={n})`", "it is below 1", because, f"{name}=50"))
        self.mixing = Shared(Frozen(MeanField(scale=1.0)) if mixing is None else mixing)
        needs_density("SemiImplicit", "mixing", self._mixing())
        self.hidden = tuple(hidden)
        self.conditional = Shared(start_conditional("SemiImplicit", conditional, hidden, activation, scale))
        self.n_mixing, self.n_noise, self.n_verdict = int(n_mixing), n_noise, int(n_verdict)
        self.context = UNSIZED

    def _mixing(self) -> AbstractDistribution:
        mixing = self.mixing.value
        return mixing.value if isinstance(mixing, Frozen) else mixing

    @property
    def facts(self):
        mixing, conditional = self._mixing().facts, self.conditional.value.facts
        fixed = isinstance(self.mixing.value, Frozen)
        out = {Fact.LOG_RATIO, Fact.DRAW_LOG_PROB} | (mixing & conditional & {Fact.TYPED_NOISE})
        if Fact.REPARAMETERISED in conditional and (fixed or Fact.REPARAMETERISED in mixing):
            out |= {Fact.REPARAMETERISED}
        if Fact.REPARAMETERISED in mixing:
            out |= {Fact.SEMI_IMPLICIT}
        # eps moves with the parameters of a trained mixing, but has no part in the density that loses its direct gradient
        return frozenset(out | {Fact.ZERO_MEAN_SCORE} if fixed else out)

    def bind(self, latents, rows, key):
        k1, k2 = jr.split(key)
        mixing, wide = self._mixing(), self.n_noise or Layout(latents).size
        if not is_sized(mixing):
            mixing = mixing.bind(jax.ShapeDtypeStruct((wide,), default_float()), None, k1)
        conditional = bind_conditional(self.conditional.value, latents, self.hidden[0], spec_of(mixing), k2)
        made = Frozen(mixing) if isinstance(self.mixing.value, Frozen) else mixing
        context = jnp.zeros(self.hidden[0], default_float()) if self.context is None else self.context
        return replaced(self, mixing=Shared(made), conditional=Shared(conditional), context=context)

    def sharpened(self):
        """The same q with `n_verdict` mixing draws: what importance weights are made with."""
        return replaced(self, n_mixing=max(self.n_mixing, self.n_verdict))

    def noise_law(self):
        mixing = self._mixing()
        eps = spec_of(mixing)
        widen = lambda law: type(law)((self.n_mixing + 1, *law.shape))
        given = eqx.filter_eval_shape(lambda q, e: q.given(e), self, eps)
        return given.noise_law(), jax.tree.map(widen, mixing.noise_law(), is_leaf=is_law)

    def transform(self, noise):
        """(z, eps): the leaves of eps lead with L + 1, the generating one first."""
        own, mixed = noise
        eps = jax.vmap(self._mixing().transform)(mixed)
        return self.given(_first(eps)).transform(own), eps

    def latent(self, draw):
        return draw[0]

    def log_ratio(self, draw):
        return self.log_mixture(*draw)

    def log_prob(self, draw):
        z, eps = draw
        return self.given(_first(eps)).log_prob(z) + jax.vmap(self._mixing().log_prob)(eps).sum()

    # ---- the fact SEMI_IMPLICIT ---------------------------------------------------------------------------------
    def generating(self, draw: PyTree) -> PyTree:
        """The eps that made z."""
        return _first(draw[1])

    def log_joint(self, z: PyTree, eps: PyTree) -> Float[Array, ""]:
        """log q(eps) + log q(z | eps)."""
        return self._mixing().log_prob(eps) + self.given(eps).log_prob(z)


def _first(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda a: a[0], tree)
