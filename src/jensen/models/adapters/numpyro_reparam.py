"""Non-centred coordinates of a NumPyro model: where a site's scale is itself inferred, its noise becomes the latent.

Scales may be numbers, or whole roots of covariances: varying slopes, Gaussian processes, random walks.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam, Reparam

from ...compiled import compiled
from ...errors import JensenError
from ...function import Function, Static
from .numpyro import NumPyroModel, from_numpyro
from .numpyro_run import bare, in_scan

SHAPES = {dist.Normal: (), dist.StudentT: ("df",), dist.Laplace: (), dist.Cauchy: (), dist.Logistic: ()}
"""Location-scale laws, with the names of their shape parameters."""


class Affine(NamedTuple):
    """A law of vectors that are an affine map of noise: what sets their scale, the noise, and the map."""

    scale: str
    noise: Callable[[Any], dist.Distribution]
    value: Callable[[Any, jax.Array], jax.Array]


def standard_normal(law: Any) -> dist.Distribution:
    return dist.Normal(0.0, 1.0).expand(law.event_shape).to_event(law.event_dim)


AFFINE = {
    dist.MultivariateNormal: Affine(
        "scale_tril", standard_normal, lambda law, z: law.loc + (law.scale_tril @ z[..., None])[..., 0]
    ),
    dist.GaussianRandomWalk: Affine(
        "scale", standard_normal, lambda law, z: jnp.cumsum(jnp.expand_dims(law.scale, -1) * z, -1)
    ),
}


class AffineReparam(Reparam):
    """The noise as the latent, `name_decentered`, and the site as a deterministic function of it."""

    def __call__(self, name: str, fn: Any, obs: Any) -> tuple[None, jax.Array]:
        assert obs is None
        law, expand_shape, event_dim = self._unwrap(fn)
        affine = AFFINE[type(law)]
        noise = self._wrap(affine.noise(law), expand_shape, event_dim)
        return None, affine.value(law, numpyro.sample(f"{name}_decentered", noise))


@dataclasses.dataclass(frozen=True)
class Noncentred:
    """The model function with these sites written as functions of their noise. Equal for equal functions and sites."""

    fn: Function
    sites: tuple[tuple[str, type], ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        config: Any = {
            name: AffineReparam() if law in AFFINE else LocScaleReparam(0.0, shape_params=SHAPES[law])
            for name, law in self.sites
        }
        return handlers.reparam(self.fn, config=config)(*args, **kwargs)


def scaled_sites(model: NumPyroModel) -> tuple[tuple[str, type], ...]:
    """Latent sites whose scale follows other latents, with their laws."""
    names = {s.name for s in model.sites if s.kind == "real"}

    def scales(key: jax.Array) -> dict[str, tuple]:
        z = jax.tree.map(lambda s: 0.3 * jax.random.normal(jax.random.fold_in(key, s.size), s.shape), model.latents)
        values = model._values(z, model.sites)
        sites = model._run(model.fn, values, key, *model._arguments())
        usable = {n: s for n, s in sites.items() if n in names and s["type"] == "sample" and not in_scan(s)}
        laws: dict[str, Any] = {n: bare(s["fn"]) for n, s in usable.items()}
        scale = {**dict.fromkeys(SHAPES, "scale"), **{law: affine.scale for law, affine in AFFINE.items()}}
        return {n: (type(x), np.asarray(getattr(x, scale[type(x)]))) for n, x in laws.items() if type(x) in scale}

    one, two = scales(jax.random.key(0)), scales(jax.random.key(1))
    return tuple((n, one[n][0]) for n in one if not np.array_equal(one[n][1], two[n][1]))


def noncentred(model: NumPyroModel) -> NumPyroModel | None:
    """The same posterior in non-centred coordinates; None where no site's scale is inferred, or it cannot be done."""
    if model.structure.rows is not None or model.structure.enumerated:
        return None
    try:
        sites = scaled_sites(model)
        if not sites:
            return None
        return from_numpyro(Noncentred(model.fn, sites), *model.args.value, **model.kwargs.value)
    except (JensenError, ValueError, TypeError, AttributeError, KeyError, NotImplementedError):
        return None  # an exotic site: the centred coordinates remain


@compiled(0)
def _back(static: Static, arrays: Any, z: Any) -> Any:
    model, wanted = eqx.combine(arrays, static.tree)

    def one(z):
        fixed = model.deterministics(z)
        return {name: fixed[name] if name in fixed else z[name] for name in wanted}

    return jax.vmap(one)(z)


class Centred:
    """From draws (leading axis n) of `model` = noncentred(like) to the latent coordinates of `like`."""

    def __init__(self, model: NumPyroModel, like: NumPyroModel):
        self.arrays, static = eqx.partition((model, tuple(like.latents)), eqx.is_array)
        self.static = Static(static)

    def __call__(self, z: Any) -> Any:
        return _back(self.static, self.arrays, z)
