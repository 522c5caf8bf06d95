"""Data made up by a NumPyro model, the same model with other data or arguments, and the data it was given."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpyro import handlers
from numpyro.distributions import ImproperUniform
from numpyro.primitives import _PYRO_STACK, Messenger

from ...compiled import compiled
from ...function import Function, Static
from .numpyro import Latents, NumPyroModel, checked
from .numpyro_run import Unobserve, bare, explained, is_factor, plate_dim, refuse, setting, user_scale

Values = dict[str, Array]


class _Proper(Messenger):
    """Refuses a prior that cannot be drawn from, by name."""

    def process_message(self, msg):
        if msg["type"] == "sample" and not msg["is_observed"] and isinstance(bare(msg["fn"]), ImproperUniform):
            wrong, because = "its prior is improper", "true values are drawn from the prior, and it has no total mass"
            raise refuse(f"simulating site `{msg['name']}`", wrong, because, "a proper prior, e.g. dist.Normal(0, 100)")


class _Replace(Messenger):
    """Gives the observed sites other values; of a subsampled plate, the rows it asks for."""

    def __init__(self, fn: Callable, values: Values, plate: str | None):
        super().__init__(fn)
        self.values, self.plate = values, plate

    def process_message(self, msg):
        if msg["type"] != "sample" or not msg["is_observed"] or msg["name"] not in self.values:
            return
        value, dim = self.values[msg["name"]], plate_dim(msg, self.plate)
        if dim is not None:
            index = next(p for p in _PYRO_STACK if getattr(p, "name", None) == self.plate)._indices
            value = jnp.take(value, index, dim - msg["fn"].event_dim)
        msg["value"] = value


class Replaced:
    """A model function whose observed values are its first argument: `(values, *args, **kwargs)`.

    Equal for equal functions, so that models with other values share what is compiled.
    """

    def __init__(self, fn: Function, plate: str | None):
        self.fn, self.plate = fn, plate

    def __call__(self, values: Values, *args: Any, **kwargs: Any) -> Any:
        return _Replace(self.fn, values, self.plate)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        own = inspect.signature(self.fn.fn)
        first = inspect.Parameter("values", inspect.Parameter.POSITIONAL_ONLY)
        return own.replace(parameters=[first, *own.parameters.values()])

    def __hash__(self) -> int:
        return hash((Replaced, self.fn, self.plate))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Replaced) and (self.fn, self.plate) == (other.fn, other.plate)

    def __repr__(self) -> str:
        return repr(self.fn)


def with_observed(model: NumPyroModel, values: Values) -> NumPyroModel:
    """The same model, given other observed values: an argument of what is compiled, so that nothing is compiled anew.

    Arguments:  values: of all observed sites, on all rows, of the shapes of the model's own.
    """
    fn = Function(Replaced(model.fn, _plate(model)))
    return NumPyroModel(fn, (values, *model.args.value), model.kwargs.value, model.structure)


def _plate(model: NumPyroModel) -> str | None:
    return None if model.structure.rows is None else model.structure.rows.plate


def simulate(model: NumPyroModel, key: Array) -> tuple[Latents, Values]:
    """One draw of the latents from the prior (constrained), and of the observed sites given them, on all rows.

    Raises:  ModelError where the joint density is not the law of a simulation: an improper prior, `numpyro.factor`,
             a `scale` handler.
    """
    arrays, static = eqx.partition(model, eqx.is_array)
    return _simulate(Static(static), arrays, key)


@compiled(0)
def _simulate(static: Static, arrays: Any, key: Array) -> tuple[Latents, Values]:
    model: NumPyroModel = eqx.combine(arrays, static.tree)
    (args, kwargs), rows = model._arguments(), model.structure.rows
    traced = lambda fn, key: handlers.trace(handlers.seed(setting(fn, {}, _plate(model), None), key))
    with explained(model.fn, args, kwargs):
        sites = traced(_Proper(Unobserve(model.fn)), key).get_trace(*args, **kwargs)
        given = traced(model.fn, key).get_trace(*args, **kwargs)
    for name, site in sites.items():
        if site["type"] == "sample":
            _check_generative(name, site, rows)
    latents = {s.name: jnp.asarray(sites[s.name]["value"]) for s in model.sites}
    return latents, {n: _like(sites[n]["value"], given[n]["value"]) for n in model.observed}


def _check_generative(name: str, site: dict[str, Any], rows: Any) -> None:
    because = "true values and data are drawn site by site, and nothing draws from such a density"
    if is_factor(site):
        instead = "the term as the log density of a numpyro.sample site"
        raise refuse(f"simulating from a model with the factor `{name}`", "it is no distribution", because, instead)
    if user_scale(site, rows, 0 if rows is None else rows.size) is not None:
        wrong = "its log-probability is scaled by a `scale` handler"
        raise refuse(f"simulating site `{name}`", wrong, because, "the model without it")


def _like(drawn: Any, given: Any) -> Array:
    """Whole numbers are given as the floats the model had; a float is never cut to a whole number."""
    drawn, dtype = jnp.asarray(drawn), jnp.asarray(given).dtype
    return drawn.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else drawn


class Observed(NamedTuple):
    """The value of an observed site on all rows, and which of its batch elements count (not under a mask)."""

    value: np.ndarray
    counts: np.ndarray


def observed_values(model: NumPyroModel) -> dict[str, Observed]:
    """Observed site -> what was observed."""
    args, kwargs = model._arguments()
    latents = model.constrain(model.init_z())
    run = handlers.seed(setting(model.fn, latents, _plate(model), None), jax.random.key(0))
    with explained(model.fn, args, kwargs):
        sites = handlers.trace(run).get_trace(*args, **kwargs)
    return {n: _observed(sites[n]) for n in model.observed if n in sites}


def _observed(site: dict[str, Any]) -> Observed:
    value, fn, mask = np.asarray(site["value"]), site["fn"], np.asarray(True)
    batch = jnp.broadcast_shapes(tuple(fn.batch_shape), value.shape[: value.ndim - fn.event_dim])
    while hasattr(fn, "base_dist"):
        mask = np.logical_and(mask, np.asarray(getattr(fn, "_mask", True)))
        fn = fn.base_dist
    return Observed(value, np.broadcast_to(mask, batch))


def arguments(model: NumPyroModel, new: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The model function's arguments (args, kwargs), some of them replaced by name.

    Arguments:  new: name of an argument of the model function -> its new value. `args` and `kwargs`, unless the
                function has arguments of these names: all positional ones, all keywords.
    Raises:     ModelError for a name the function does not have; it lists those it has. DataError as `from_numpyro`.
    """
    named = inspect.signature(model.fn.fn).parameters
    whole = {n: new[n] for n in ("args", "kwargs") if n in new and _kind(named, n) in (None, *_COLLECT)}
    args, kwargs = whole.get("args", model.args.value), whole.get("kwargs", model.kwargs.value)
    bound = inspect.signature(model.fn.fn).bind(*args, **kwargs)
    rest = next((p.name for p in named.values() if p.kind is inspect.Parameter.VAR_KEYWORD), None)
    for name, value in new.items():
        if name in whole:
            continue
        if _kind(named, name) not in (None, *_COLLECT):
            bound.arguments[name] = value
        elif rest is not None:
            bound.arguments[rest] = {**bound.arguments.get(rest, {}), name: value}
        else:
            own = ", ".join(f"`{n}`" for n, p in named.items() if p.kind not in _COLLECT) or "none"
            because = "new data replace the model's arguments by name, and the others stay"
            raise refuse(f"an argument `{name}` of `{model.fn!r}`", "it has no such argument", because, f"one of {own}")
    return checked("args", bound.args), checked("kwargs", bound.kwargs)


_COLLECT = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _kind(named: Any, name: str) -> Any:
    return named[name].kind if name in named else None
