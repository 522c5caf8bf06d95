"""A Gaussian copula: univariate laws of any kind, made dependent on each other."""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import ModelError, OptionError, explain
from ..facts import Fact
from ..tree import Layout, default_float, replaced
from .base import PLAIN, UNSIZED, AbstractDistribution, AbstractPlain
from .gaussian import log_normal_from_noise
from .noise import StandardNormal
from .univariate import Univariate

Marginal = AbstractDistribution | str


class GaussianCopula(AbstractPlain):
    """Any marginals, joined by a Gaussian copula.

    Definition: xi = L eps, eps ~ N(0, I), L L^T = R a correlation matrix; z_d = F_d^-1(Phi(xi_d)). The marginal of z_d is F_d,
                and log q(z) = sum_d log f_d(z_d) + log N(xi; 0, R) - sum_d log N(xi_d; 0, 1), xi_d = Phi^-1(F_d(z_d)).
    Arguments:  marginals: for all coordinates, or {site: law}: a `Univariate` or its name ("normal", "student-t", "gamma",
                "log-normal", ...), or `SinhArcsinh()` (skewed); default "normal", which is a full-rank Gaussian.
    Facts:      REPARAMETERISED: quantiles without a closed form (gamma, Student's t) are found by bisection, and their
                derivatives by the implicit function theorem. ENTROPY (that of the marginals + log det L) and MOMENTS
                (the marginals' own) where all marginals have them.
    Raises:     OptionError for a law that is not an increasing map of a normal (Poisson, Dirichlet, von Mises, beta);
                ModelError where the sites are not the model's.
    Cost:       O(D^2) a draw, and 64 evaluations of a CDF where it is inverted by bisection.
    Reference:  Han, Liao, Dunson and Carin (2016), section 3.  [han2016copula]
    """

    laws: tuple[Any, ...]
    lower: Float[Array, "D D"]
    names: tuple[str, ...] | None = eqx.field(static=True)  # None: one array
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def __init__(
        self, marginals: Marginal | Mapping[str, Marginal] = "normal", *, lower: Array | None = None, shapes=()
    ):
        self.names = tuple(marginals) if isinstance(marginals, Mapping) else None
        given = tuple(marginals.values()) if isinstance(marginals, Mapping) else (marginals,)
        self.laws = tuple(Univariate(m) if isinstance(m, str) else m for m in given)
        for law in self.laws:
            if Fact.NORMAL_SCORES not in getattr(law, "facts", ()):
                what = getattr(law, "name", type(law).__name__)
                because = "a copula joins laws whose CDF can be inverted and differentiated"
                raise OptionError(
                    explain(f"`GaussianCopula` of {what}", "it has no such CDF", because, '"student-t", SinhArcsinh()')
                )
        self.lower, self.shapes = UNSIZED if lower is None else lower, tuple(shapes)

    @property
    def facts(self):
        shared = frozenset.intersection(*[frozenset(law.facts) for law in self.laws])
        return PLAIN | {Fact.REPARAMETERISED} | (shared & {Fact.ENTROPY, Fact.MOMENTS})

    def kind_of(self, site):
        return "real"

    def bind(self, latents, rows, key):
        tree = latents if isinstance(latents, Mapping) else {"z": latents}
        names = tuple(tree) if isinstance(latents, Mapping) else None
        laws = dict.fromkeys(tree, self.laws[0]) if self.names is None else self._named()
        if set(laws) != set(tree) or (self.names is not None and names is None):
            wrong = f"the model's sites are {sorted(tree)}"
            because = "each site needs marginals"
            raise ModelError(explain(f"`GaussianCopula` over {sorted(laws)}", wrong, because, "one law a site"))
        bound = {n: laws[n].bind(spec, None, key) for n, spec in tree.items()}
        n = Layout(latents).size
        lower = jnp.zeros((n, n), default_float()) if self.lower is None else self.lower
        shapes = tuple(tuple(spec.shape) for spec in tree.values())
        return replaced(self, names=names, laws=tuple(bound.values()), lower=lower, shapes=shapes)

    def _named(self) -> dict[str, Any]:
        return dict(zip(self.names or (), self.laws, strict=True))

    def cholesky(self) -> Float[Array, "D D"]:
        """L: unit lower triangular, its rows scaled to length 1, so that L L^T has a unit diagonal."""
        rows = jnp.tril(self.lower, -1) + jnp.eye(self.lower.shape[0], dtype=self.lower.dtype)
        return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)

    def _parts(self, draw: Any) -> list[Any]:
        return [draw] if self.names is None else [draw[n] for n in self.names]

    def _joined(self, parts: list[Any]) -> Any:
        return parts[0] if self.names is None else dict(zip(self.names, parts, strict=True))

    def noise_law(self):
        return StandardNormal((self.lower.shape[0],))

    def transform(self, noise):
        scores, at, parts = self.cholesky() @ noise, 0, []
        for law, shape in zip(self.laws, self.shapes, strict=True):
            size = math.prod(shape)
            parts.append(law.from_normal(scores[at : at + size].reshape(shape)))
            at += size
        return self._joined(parts)

    def _own(self, draw: Any) -> Float[Array, ""]:
        return sum((law.log_prob(z) for law, z in zip(self.laws, self._parts(draw), strict=True)), jnp.zeros(()))

    def _dependence(self, scores: Float[Array, " D"], noise: Float[Array, " D"]) -> Float[Array, ""]:
        """log N(xi; 0, R) - sum log N(xi_d), eps = L^-1 xi."""
        log_scale = jnp.log(jnp.diagonal(self.cholesky()))
        return log_normal_from_noise(noise, log_scale) - log_normal_from_noise(scores, jnp.zeros_like(scores))

    def transform_and_log_ratio(self, noise):
        draw = self.transform(noise)
        return draw, self._own(draw) + self._dependence(self.cholesky() @ noise, noise)

    def log_prob(self, draw):
        pairs = zip(self.laws, self._parts(draw), strict=True)
        scores = jnp.concatenate([jnp.ravel(law.to_normal(z)) for law, z in pairs])
        noise = jax.scipy.linalg.solve_triangular(self.cholesky(), scores, lower=True)
        return self._own(draw) + self._dependence(scores, noise)

    def entropy(self):
        own = sum(law.entropy() for law in self.laws)
        return own + jnp.log(jnp.diagonal(self.cholesky())).sum()

    def moments(self):
        pairs = [law.moments() for law in self.laws]
        return self._joined([m for m, _ in pairs]), self._joined([v for _, v in pairs])
