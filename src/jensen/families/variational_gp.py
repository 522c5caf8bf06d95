"""The variational Gaussian process: a hierarchical family mixed over functions."""

from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PyTree

from ..errors import OptionError, explain
from ..facts import Fact
from ..tree import Layout, Shared, default_float, replaced
from .amortised import Amortised
from .base import PLAIN, UNSIZED, AbstractFamily, AbstractPlain
from .conditional import needs_density, normal_at
from .gaussian import check_scale, log_normal_from_noise, sized
from .hierarchical import AbstractHierarchical
from .mean_field import MeanField
from .noise import StandardNormal
from .triangular import solve_lower


class Around(AbstractFamily):
    """q(z | f) = N(z; f, diag sigma^2)."""

    log_scale: Float[Array, " D"]
    layout: Layout = eqx.field(static=True)
    facts: ClassVar = MeanField.facts - {Fact.OWN_PARAMETERS}

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        sized("VariationalGP", self.layout, latents)
        return self

    def __call__(self, x: PyTree) -> MeanField:
        return normal_at(self.layout, x["f"], self.log_scale)


class GPMixing(AbstractPlain):
    """xi ~ N(0, I) and f = (f_1(xi), .., f_D(xi)), each f_d from the Gaussian process given the pairs (s_i, t_i).

    Definition: f_d(xi) | xi ~ N(k' K^-1 t_d, k(xi, xi) - k' K^-1 k), k = k(s, xi), K = k(s, s), with
                k(a, b) = v exp(-1/2 sum_j w_j (a_j - b_j)^2) + nugget (automatic relevance determination: a weight an axis).
    """

    sources: Float[Array, "m C"]
    targets: Float[Array, "m D"]
    log_weights: Float[Array, " C"]
    log_variance: Float[Array, ""]
    nugget: float = eqx.field(static=True)
    facts: ClassVar = PLAIN | {Fact.REPARAMETERISED}

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        return self

    def noise_law(self):
        return {"xi": StandardNormal(self.log_weights.shape), "f": StandardNormal(self.targets.shape[1:])}

    def _kernel(self, a: Array, b: Array) -> Array:
        """(m, C), (n, C) -> (m, n), in units of the variance."""
        apart = (a[:, None] - b[None]) ** 2 @ jnp.exp(self.log_weights)
        return jnp.exp(-0.5 * apart)

    def _conditional(self, xi: Array) -> tuple[Array, Array]:
        """Mean (D,) and log standard deviation (the same for every d) of f(xi)."""
        m = self.sources.shape[0]
        eye = jnp.eye(m, dtype=xi.dtype)
        chol = jnp.linalg.cholesky(self._kernel(self.sources, self.sources) + self.nugget * eye)
        whiten = jax.vmap(solve_lower, (None, 1), 1)(chol, eye)  # reads no draw: made once for all draws of a q
        v = whiten @ self._kernel(self.sources, xi[None])[:, 0]
        return v @ (whiten @ self.targets), 0.5 * (self.log_variance + jnp.log(1 + self.nugget - v @ v))

    def transform(self, noise):
        mean, log_sd = self._conditional(noise["xi"])
        return {"xi": noise["xi"], "f": mean + jnp.exp(log_sd) * noise["f"]}

    def log_prob(self, draw):
        mean, log_sd = self._conditional(draw["xi"])
        own = (draw["f"] - mean) * jnp.exp(-log_sd)
        normal = lambda e, log_sd: log_normal_from_noise(e, jnp.broadcast_to(log_sd, e.shape))
        return normal(draw["xi"], jnp.zeros((), own.dtype)) + normal(own, log_sd)


class VariationalGP(AbstractHierarchical):
    """Variational Gaussian process (VGP).

    Definition: xi ~ N(0, I); f_d ~ GP given variational pairs {(s_i, t_i)}; z_d ~ N(f_d(xi), sigma_d^2); the bound is that of
                `Hierarchical` with lam = (xi, f(xi)) and a trained r(xi, f | z).
    Arguments:  n_pairs: source-target pairs, 1 or more.   n_noise: dimensions of xi (default: those of the latents).
                scale: starting sigma and size of the targets, > 0.   nugget: what of the kernel's variance is not interpolated,
                > 0.   reverse, hidden, activation: as for `Hierarchical`.
    Amortised:  the encoder computes pairs and kernel from x; sigma and the reverse are the same for all rows.
    Cost:       O(n_pairs^3) a datum and O(n_pairs^2 + n_pairs D) a draw.
    Reference:  Tran, Ranganath and Blei (2016), sections 2-3.  [tran2016vgp]
    """

    mixing: GPMixing
    conditional: Shared[AbstractFamily]
    reverse: Shared[AbstractFamily]
    n_pairs: int = eqx.field(static=True)
    n_noise: int | None = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    nugget: float = eqx.field(static=True)

    def __init__(
        self, n_pairs: int = 20, *, n_noise: int | None = None, scale: float = 0.5, nugget: float = 1e-3,
        reverse: AbstractFamily | None = None, hidden: Sequence[int] = (50, 50), activation: str = "relu",
    ):  # fmt: skip
        for name, n in (("n_pairs", n_pairs), ("n_noise", n_noise)):
            if n is not None and n < 1:
                because = "the process passes through n_pairs points of n_noise dimensions"
                raise OptionError(explain(f"`VariationalGP({name}={n})`", "it is below 1", because, f"{name}=20"))
        if not nugget > 0:
            asked, because = f"`VariationalGP(nugget={nugget})`", "the kernel's matrix must have a Cholesky factor"
            raise OptionError(explain(asked, "it is not positive", because, "nugget=1e-3"))
        check_scale("VariationalGP", scale)
        if reverse is None:
            reverse = Amortised(MeanField(scale=1.0), hidden=tuple(hidden), activation=activation)
        needs_density("VariationalGP", "reverse", reverse)
        self.reverse = Shared(reverse)
        self.n_pairs, self.n_noise, self.scale, self.nugget = int(n_pairs), n_noise, float(scale), float(nugget)
        self.mixing = self.conditional = UNSIZED

    @property
    def facts(self):
        return frozenset({Fact.LOG_RATIO, Fact.DRAW_LOG_PROB, Fact.REPARAMETERISED, Fact.TYPED_NOISE})

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        layout = sized("VariationalGP", None, latents)
        k1, k2 = jr.split(key)
        mixing, conditional = self.mixing, self.conditional
        if mixing is None:
            mixing = _start_pairs(k1, self.n_pairs, self.n_noise or layout.size, layout.size, self.scale, self.nugget)
            conditional = Shared(Around(jnp.full(layout.size, jnp.log(self.scale), default_float()), layout))
        new = replaced(self, mixing=mixing, conditional=conditional)
        conditional, reverse = new.bound_parts(latents, mixing, k2)
        return replaced(new, conditional=conditional, reverse=reverse)


def _start_pairs(key: Array, n_pairs: int, n_noise: int, n_latent: int, scale: float, nugget: float) -> GPMixing:
    """Sources where xi falls, targets that a linear map makes of them: z starts near N(0, 2 scale^2)."""
    k1, k2 = jr.split(key)
    dtype = default_float()
    sources = jr.normal(k1, (n_pairs, n_noise), dtype)
    targets = scale * sources @ (jr.normal(k2, (n_noise, n_latent), dtype) / n_noise**0.5)
    return GPMixing(sources, targets, jnp.zeros(n_noise, dtype), 2 * jnp.log(jnp.asarray(scale, dtype)), nugget)
