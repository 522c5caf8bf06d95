"""Running a NumPyro model on given latents and rows, and reading the log-probabilities off its trace."""

import contextlib
import copy
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro import handlers
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, MaskedDistribution, Unit
from numpyro.distributions.discrete import BernoulliLogits
from numpyro.distributions.util import is_identically_one, sum_rightmost
from numpyro.primitives import _PYRO_STACK, Messenger

from ...errors import JensenError, ModelError, explain
from ...kernels import bernoulli_log_prob
from ..calls import RANDOM, VALUE_NEEDED, states, where


def refuse(asked: str, wrong: str, because: str, instead: str) -> ModelError:
    return ModelError(explain(asked, wrong, because, instead))


class Rows(NamedTuple):
    """The subsampled plate of a model: its name, the number of rows, and of rows in a minibatch."""

    plate: str
    size: int
    batch_size: int


class _Setting(Messenger):
    """Gives the plate its rows (None: all, in order), whatever their number, and `prng_key` a fixed key."""

    def __init__(self, fn: Callable, shapes: dict[str, tuple], plate: str | None, index: Any, exact: bool):
        super().__init__(fn)
        self.shapes, self.plate, self.index, self.exact = shapes, plate, index, exact

    def process_message(self, msg):
        if msg["type"] == "sample" and msg["name"] in self.shapes and not in_scan(msg):
            self._check(msg)
        if msg["type"] == "plate" and msg["name"] == self.plate:
            size = msg["args"][0]
            msg["value"] = jnp.arange(size) if self.index is None else self.index
            msg["args"] = (size, msg["value"].shape[0])
        elif msg["type"] == "subsample" and self.index is not None:
            self._take(msg)
        elif msg["type"] == "prng_key" and msg["value"] is None:
            msg["value"] = jax.random.key(0)

    def _check(self, msg):
        have, want = self.shapes[msg["name"]], tuple(msg["fn"].shape(msg["kwargs"].get("sample_shape", ())))
        want = want if self.exact else want[max(len(want) - len(have), 0) :]  # enumerated values lie left of the plates
        if want != have:
            wrong, because = f"its value has shape {have}; the model wants {want}", "the latents are part of the model"
            instead = "data of the same shape; or a subsampled plate, whose latents can be drawn anew for new rows"
            raise refuse(f"site `{msg['name']}`", wrong, because, instead)

    def _take(self, msg):
        """numpyro's own plate takes rows only where they are fewer than all."""
        for plate in _PYRO_STACK:
            if getattr(plate, "name", None) == self.plate and self.index.shape[0] >= plate.size:
                axis = plate.dim - msg["kwargs"]["event_dim"]
                if jnp.ndim(msg["value"]) >= -axis and msg["value"].shape[axis] != 1:
                    msg["value"] = jnp.take(msg["value"], self.index, axis)


class Unobserve(Messenger):
    """Draws the observed sites anew; factors stay."""

    def process_message(self, msg):
        if msg["type"] == "sample" and not is_factor(msg):
            msg["fn"] = _of_whole_trials(msg["fn"])
            if msg["is_observed"]:
                msg["is_observed"], msg["value"] = False, None


def _of_whole_trials(fn: Distribution) -> Distribution:
    """numpyro draws for a number of trials of the default integer alone: one of another dtype (10.0) is made one."""
    inner, trials = getattr(fn, "base_dist", None), getattr(fn, "total_count", 0)
    whole = _of_whole_trials(inner) if isinstance(inner, Distribution) else inner
    if whole is inner and jnp.result_type(trials) == jnp.result_type(int):
        return fn
    new = copy.copy(fn)
    new.__dict__.update({"base_dist": whole} if whole is not inner else {"total_count": jnp.round(trials).astype(int)})
    return new


def setting(fn: Callable, values: dict, plate: str | None, index: Array | None, exact: bool = True) -> Callable:
    """The model with its latents and rows given."""
    shapes = {n: jnp.shape(v) for n, v in values.items()}
    return handlers.substitute(_Setting(fn, shapes, plate, index, exact), data=values)


def is_factor(site: dict[str, Any]) -> bool:
    return isinstance(bare(site["fn"]), Unit)


def in_scan(site: dict[str, Any]) -> bool:
    return "_control_flow_done" in site


def bare(fn: Distribution) -> Distribution:
    """Without plates, masks and reinterpreted axes."""
    while isinstance(fn, (ExpandedDistribution, Independent, MaskedDistribution)):
        fn = fn.base_dist
    return fn


def is_masked(fn: Distribution) -> bool:
    while isinstance(fn, (ExpandedDistribution, Independent, MaskedDistribution)):
        if isinstance(fn, MaskedDistribution) and fn._mask is not True:
            return True
        fn = fn.base_dist
    return False


def _unmask(fn: Distribution) -> Distribution:
    if isinstance(fn, (ExpandedDistribution, MaskedDistribution)):
        return _unmask(fn.base_dist).expand(fn.batch_shape)
    if isinstance(fn, Independent):
        return _unmask(fn.base_dist).to_event(fn.reinterpreted_batch_ndims)
    return fn


def log_prob(site: dict[str, Any]) -> Any:
    """log p of the site's value, of its batch shape. A latent has its prior also where `obs_mask` does not use it:
    those entries then integrate to one."""
    fn, value = site["fn"], site["value"]
    if site["is_observed"] or not is_masked(fn):
        return _log_prob(fn, value)
    return _log_prob(_unmask(fn), value)


def _log_prob(fn: Any, value: Array) -> Any:
    if type(fn) is BernoulliLogits:
        logits = jnp.asarray(fn.logits)
        return bernoulli_log_prob(logits, jnp.asarray(value, logits.dtype))
    if type(fn) is ExpandedDistribution and type(bare(fn)) is BernoulliLogits:
        terms = _log_prob(fn.base_dist, value)
        return jnp.broadcast_to(terms, jnp.broadcast_shapes(terms.shape, fn.batch_shape))
    if type(fn) is Independent and type(bare(fn)) is BernoulliLogits:
        return sum_rightmost(_log_prob(fn.base_dist, value), fn.reinterpreted_batch_ndims)
    return fn.log_prob(value)


def plate_dim(site: dict[str, Any], plate: str | None) -> int | None:
    """The plate's axis, counted from the right end of the batch axes; None outside of it."""
    return next((f.dim for f in site["cond_indep_stack"] if f.name == plate), None)


def user_scale(site: dict[str, Any], rows: Rows | None, n_rows: int) -> Any:
    """The product of the `scale` handlers; numpyro multiplies N/n of a subsampled plate in, and this divides it out."""
    scale = site["scale"]
    if scale is not None and rows is not None and n_rows != rows.size and plate_dim(site, rows.plate) is not None:
        scale = scale / (rows.size / n_rows)
    return None if scale is None or is_identically_one(scale) else scale


def total(sites: dict[str, dict], rows: Rows | None, n_rows: int, weight: Array | None) -> Array | float:
    """sum_sites scale * weight * log p."""
    value = 0.0
    for site in sites.values():
        if site["type"] != "sample":
            continue
        terms, scale = log_prob(site), user_scale(site, rows, n_rows)
        terms = terms if scale is None else scale * terms
        dim = None if rows is None else plate_dim(site, rows.plate)
        if dim is not None and weight is not None:
            terms = terms * weight.reshape(weight.shape[0], *(1,) * (-dim - 1))
        value = value + terms.sum()
    return value


def check_values(sites: dict[str, dict], values: dict[str, Array]) -> None:
    """While tracing: the latents asked for are the latents given, and no site is an outer product by accident."""
    for name in values:
        if name not in sites:
            wrong, because = "it is not met on every run of the model", "latents are the same on every run"
            raise refuse(f"site `{name}`", wrong, because, "a site that is always sampled, with jnp.where on its value")
    for name, site in sites.items():
        if site["type"] == "sample" and site["is_observed"] and not is_factor(site):
            check_observed(name, site)


def check_observed(name: str, site: dict[str, Any]) -> None:
    shape, fn = jnp.shape(site["value"]), site["fn"]
    data, own = shape[: len(shape) - fn.event_dim], tuple(fn.batch_shape)
    try:
        both = jnp.broadcast_shapes(data, own)
    except ValueError:
        both = None
    if both is not None and math.prod(both) <= max(math.prod(data), math.prod(own)):
        return
    wrong = f"observed values have batch shape {data}, their distribution {own}"
    because = "each observed value must count once" if both else "they do not go together"
    instead = "obs of the distribution's shape; inside a subsampled plate `with numpyro.plate(...) as i`, y[i]"
    raise refuse(f"observed site `{name}`", wrong, because, instead)


def describe(args: tuple, kwargs: dict) -> str:
    """args[0]: float32[10,3], ..."""
    leaves = jax.tree_util.tree_flatten_with_path({"args": args, "kwargs": kwargs})[0]
    array = lambda a: f"{a.dtype}[{','.join(map(str, a.shape))}]"
    short = lambda a: array(a) if eqx.is_array(a) else f"{type(a).__name__} {a!r:.30}"
    name = lambda path: f"{path[0].key}{jax.tree_util.keystr(path[1:])}"
    return ", ".join(f"{name(path)}: {short(a)}" for path, a in leaves) or "no arguments"


@contextlib.contextmanager
def explained(fn: Callable, args: tuple, kwargs: dict) -> Iterator[None]:
    """Turns an exception of the model into a ModelError that shows it and the arguments."""
    before = states(fn)
    try:
        yield
    except JensenError:
        raise
    except VALUE_NEEDED as e:
        because = (
            "arrays and latents are arguments of the compiled log density: only their shapes are known while it is made"
        )
        instead = (
            "jax.numpy in place of numpy, jnp.where in place of `if`; sizes computed outside, passed as Python ints"
        )
        wrong = f"it needs the value of an array to decide what to do{where(e)}, given {describe(args, kwargs)}"
        raise refuse(f"running the model `{fn!r}`", wrong, because, instead) from e
    except Exception as e:
        twice = re.search("unique names but got `(.*)` duplicated", str(e))
        if twice:
            wrong, because = f"the name `{twice[1]}` is used by two sites", "a name is how a site's value is found"
            instead = "a name of its own for each, e.g. an f-string with a counter"
        else:
            wrong = f"it raised{where(e)}, given {describe(args, kwargs)}"
            because = f"{type(e).__name__}: {e}"
            instead = "arguments the model runs on; the traceback above shows where it stopped"
        raise refuse(f"running the model `{fn!r}`", wrong, because, instead) from e
    if before != states(fn):
        raise refuse(f"running the model `{fn!r}`", *RANDOM)
