"""Non-centred coordinates of a NumPyro model: where a site's scale is itself inferred, its noise becomes the latent."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam

from ...compiled import compiled
from ...errors import JensenError
from ...function import Function, Static
from .numpyro import NumPyroModel, from_numpyro
from .numpyro_run import bare, in_scan

SHAPES = {dist.Normal: (), dist.StudentT: ("df",), dist.Laplace: (), dist.Cauchy: (), dist.Logistic: ()}


@dataclasses.dataclass(frozen=True)
class Noncentred:
    """The model function with these sites written as loc + scale * noise. Equal for equal functions and sites."""

    fn: Function
    sites: tuple[tuple[str, tuple[str, ...]], ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        config: Any = {name: LocScaleReparam(0.0, shape_params=shape) for name, shape in self.sites}
        return handlers.reparam(self.fn, config=config)(*args, **kwargs)


def scaled_sites(model: NumPyroModel) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Latent location-scale sites whose scale follows other latents, with the names of their shape parameters."""
    names = {s.name for s in model.sites if s.kind == "real"}

    def scales(key: jax.Array) -> dict[str, tuple]:
        z = jax.tree.map(lambda s: 0.3 * jax.random.normal(jax.random.fold_in(key, s.size), s.shape), model.latents)
        values = model._values(z, model.sites)
        sites = model._run(model.fn, values, key, *model._arguments())
        usable = {n: s for n, s in sites.items() if n in names and s["type"] == "sample" and not in_scan(s)}
        laws: dict[str, Any] = {n: bare(s["fn"]) for n, s in usable.items()}
        return {n: (type(law), np.asarray(law.scale)) for n, law in laws.items() if type(law) in SHAPES}

    one, two = scales(jax.random.key(0)), scales(jax.random.key(1))
    return tuple((n, SHAPES[one[n][0]]) for n in one if not np.array_equal(one[n][1], two[n][1]))


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
