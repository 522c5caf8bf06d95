"""Independent variables of a named law: gamma, beta, Student's t, Poisson, ..."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array

from ..errors import OptionError, explain
from ..facts import Fact
from ..tree import default_float, replaced
from .base import PLAIN, UNSIZED, AbstractPlain
from .discrete import _fits, _one_array
from .noise import Keys, Uniform
from .quantile import SOLVED, from_normal, to_normal
from .standardised import STANDARD
from .von_mises import on_path
from .weak import WEAK, one_by_one


class Kind(NamedTuple):
    """What is known of one of NumPyro's laws."""

    icdf: bool = False  # draws by the inverse CDF of a uniform; else by a key
    path: bool = True  # draws move differentiably with all parameters
    moments: bool = True  # a mean and a variance for all parameters, in closed form
    entropy: bool = True
    start: tuple = ()  # where the unconstrained 0 is no good start


KINDS: dict[str, Kind] = {
    "Beta": Kind(),
    "Cauchy": Kind(icdf=True, moments=False),
    "Chi2": Kind(start=(("df", 3.0),)),
    "Dirichlet": Kind(),
    "Exponential": Kind(icdf=True),
    "Gamma": Kind(),
    "Gumbel": Kind(icdf=True, entropy=False),
    "HalfCauchy": Kind(icdf=True, moments=False, entropy=False),
    "HalfNormal": Kind(icdf=True, entropy=False),
    "InverseGamma": Kind(moments=False, start=(("concentration", 3.0),)),
    "Kumaraswamy": Kind(icdf=True, entropy=False),
    "Laplace": Kind(icdf=True),
    "LogNormal": Kind(icdf=True),
    "Logistic": Kind(icdf=True),
    "Normal": Kind(icdf=True),
    "Poisson": Kind(path=False, entropy=False),
    "StudentT": Kind(moments=False, start=(("df", 5.0),)),
    "VonMises": Kind(path=False, moments=False, entropy=False),
    "Weibull": Kind(icdf=True),
}
_BASE = PLAIN - {Fact.TYPED_NOISE}


class Univariate(AbstractPlain):
    """Independent variables of one of NumPyro's laws, by name, in the law's own coordinates.

    Definition: q(z) = prod_d law(z_d; theta_d); every parameter of every variable is trained, unconstrained through
                NumPyro's `biject_to`. The log density sees z itself: a gamma's z is positive, a Poisson's a count.
    Arguments:  distribution: a name ("gamma", "beta", "dirichlet", "student-t", "von-mises", "log-normal", "poisson", ...:
                `KINDS`), or that class of `numpyro.distributions`.
                shape: the latent's shape; left out, the model's. The last axis of a Dirichlet are its parts.
                **start: starting parameters by NumPyro's names (`concentration=2.0, rate=1.0`), numbers or arrays.
                periodic: of a von Mises: the log density has period 2 pi in z. Only then is there a path gradient: mass
                that leaves at pi comes back at -pi.
    Facts:      of each law its own: REPARAMETERISED (gamma, beta, Dirichlet, Student's t by implicit differentiation),
                TYPED_NOISE where the inverse CDF is used, MOMENTS and ENTROPY where NumPyro has them,
                WEAK_DERIVATIVE (Poisson, exponential, gamma), STANDARDISED (gamma, beta).
    Raises:     OptionError: an unknown law, parameter, or value out of range.
    Cost:       O(D) a draw.
    Reference:  Figurnov, Mohamed and Mnih (2018), implicit reparameterization.  [figurnov2018implicit]
    """

    raw: dict[str, Array]  # unconstrained
    start: tuple[tuple[str, float], ...] = eqx.field(static=True)  # kept until the shape is known
    name: str = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)

    def __init__(self, distribution: str | type, shape: tuple[int, ...] | None = None, *, periodic=False, **start: Any):
        self.name, self.periodic = _named(distribution), periodic
        if periodic and self.name != "VonMises":
            asked, because = f"`Univariate({self.name!r}, periodic=True)`", "only angles come back to where they were"
            raise OptionError(explain(asked, "it is not the law of an angle", because, "leave out periodic"))
        values = {k: jnp.asarray(v, default_float()) for k, v in (dict(KINDS[self.name].start) | start).items()}
        if shape is None and any(v.ndim for v in values.values()):
            shape = jnp.broadcast_shapes(*[v.shape for v in values.values()])
        self.shape = UNSIZED if shape is None else tuple(shape)
        self.start, self.raw = (), UNSIZED
        if self.shape is None:
            self.start = tuple((k, float(v)) for k, v in values.items())
        else:
            self.raw = self._unconstrained(values)

    @property
    def _law(self) -> Any:
        from numpyro import distributions

        return getattr(distributions, self.name)

    def _unconstrained(self, values: dict[str, Array]) -> dict[str, Array]:
        from numpyro.distributions import biject_to

        constraints = self._law.arg_constraints
        asked = f"`Univariate({self.name!r}, {', '.join(values)})`"
        unknown = sorted(set(values) - set(constraints))
        if unknown:
            because, instead = "starting parameters go by NumPyro's names", f"some of {sorted(constraints)}"
            raise OptionError(explain(asked, f"there is no parameter {unknown}", because, instead))
        out = {}
        for k, constraint in constraints.items():
            if k not in values:
                out[k] = jnp.zeros(self.shape, default_float())
                continue
            value = jnp.broadcast_to(values[k], self.shape)
            if not bool(jnp.all(constraint(value))):
                because = f"it must be {constraint}"
                raise OptionError(explain(asked, f"{k} = {values[k]} is out of range", because, "a value inside"))
            out[k] = biject_to(constraint).inv(value)
        return out

    @property
    def facts(self):
        kind = KINDS[self.name]
        has = {
            Fact.TYPED_NOISE: kind.icdf,
            Fact.REPARAMETERISED: kind.path or self.periodic,
            Fact.MOMENTS: kind.moments,
            Fact.ENTROPY: kind.entropy,
            Fact.INDEPENDENT_COORDINATES: self.name != "Dirichlet",
            Fact.WEAK_DERIVATIVE: self.name in WEAK,
            Fact.STANDARDISED: self.name in STANDARD,
            Fact.NORMAL_SCORES: kind.icdf or self.name in SOLVED,
        }
        return _BASE | {fact for fact, holds in has.items() if holds}

    def kind_of(self, site):
        return "count" if self.name == "Poisson" else "real"

    def bind(self, latents, rows, key):
        shape = _one_array("Univariate", latents)
        if self.shape is None:
            return replaced(self, **vars(Univariate(self.name, shape, periodic=self.periodic, **dict(self.start))))
        _fits("Univariate", next(iter(self.raw.values())), shape)
        return self

    @property
    def parameters(self) -> dict[str, Array]:
        """By NumPyro's names, constrained."""
        from numpyro.distributions import biject_to

        return {k: biject_to(c)(self.raw[k]) for k, c in self._law.arg_constraints.items()}

    def noise_law(self):
        return Uniform(self.shape) if KINDS[self.name].icdf else Keys()

    def transform(self, noise):
        p = self.parameters
        if self.name == "VonMises":
            return _angle(self._law(**stop_gradient(p)).sample(noise), p)
        if self.name in _ICDF:
            return _ICDF[self.name](noise, **p)
        law = self._law(**p)
        z = law.icdf(noise) if KINDS[self.name].icdf else law.sample(noise).astype(default_float())
        return _inside(z, self.name)

    def from_normal(self, scores: Array) -> Array:
        p = self.parameters
        icdf = lambda u: _ICDF[self.name](u, **p) if self.name in _ICDF else self._law(**p).icdf(u)
        closed = icdf if KINDS[self.name].icdf else None
        return _inside(from_normal(scores, self.name, p, self._law, closed), self.name)

    def to_normal(self, draw: Array) -> Array:
        return to_normal(draw, self.name, self.parameters, self._law)

    def log_probs(self, draw: Array) -> Array:
        return self._law(**self.parameters).log_prob(draw)

    def log_prob(self, draw):
        return self.log_probs(draw).sum()

    def entropy(self):
        return self._law(**self.parameters).entropy().sum()

    def moments(self):
        law = self._law(**self.parameters)
        return law.mean, law.variance

    def weak_noise_law(self):
        return Uniform((WEAK[self.name][0], math.prod(self.shape)))

    def weak_derivatives(self, draw, noise):
        flat = draw.reshape(-1)
        new, weights = WEAK[self.name][1](flat, noise, **{k: v.reshape(-1) for k, v in self.parameters.items()})
        return stop_gradient(one_by_one(flat, new)).reshape((-1, *self.shape)), weights.reshape(-1)

    def standardise(self, draw: Array) -> Array:
        how = STANDARD[self.name]
        mean, variance = how.moments(**self.parameters)
        return (how.to(draw) - mean) / jnp.sqrt(variance)

    def unstandardise(self, noise: Array) -> tuple[Array, Array]:
        how = STANDARD[self.name]
        mean, variance = how.moments(**self.parameters)
        t = mean + jnp.sqrt(variance) * noise
        return how.back(t), (how.log_slope(t) + 0.5 * jnp.log(variance)).sum()


def _named(distribution: str | type) -> str:
    """The class's name: any case, hyphens or not."""
    name = distribution.__name__ if isinstance(distribution, type) else str(distribution)
    key = name.lower().replace("-", "").replace("_", "")
    found = next((n for n in KINDS if n.lower() == key), None)
    if found is None:
        because = "each law comes with what is known of it (its path, moments, weak derivatives)"
        raise OptionError(explain(f"`Univariate({name!r})`", "it is unknown", because, f"one of {sorted(KINDS)}"))
    return found


def _inside(z: Array, name: str) -> Array:
    """Rounding may put a draw on the edge of the support, where log q is infinite."""
    tiny, edge = float(jnp.finfo(z.dtype).tiny), float(jnp.finfo(z.dtype).eps)
    if name in ("Beta", "Dirichlet"):
        return jnp.clip(z, tiny, 1 - edge)
    return jnp.maximum(z, tiny) if name in ("Gamma", "Chi2", "InverseGamma") else z


def _angle(drawn: Array, p: dict[str, Array]) -> Array:
    """The same angle, on its path."""
    wrap = lambda a: jnp.mod(a + jnp.pi, 2 * jnp.pi) - jnp.pi
    return wrap(p["loc"] + on_path(wrap(drawn - stop_gradient(p["loc"])), p["concentration"]))


_ICDF = {
    "Weibull": lambda u, scale, concentration: scale * (-jnp.log1p(-u)) ** (1 / concentration),
    "Kumaraswamy": lambda u, concentration1, concentration0: (
        (-jnp.expm1(jnp.log1p(-u) / concentration0)) ** (1 / concentration1)
    ),
}
