"""The data a fit was made on: observed sites of a NumPyro model, rows of a plated one."""

from typing import Any

import jax
import numpy as np

from ..fit.minibatch import MappedArray
from ..tree import length


def has(model: Any, *names: str) -> bool:
    """Can the model do this?"""
    return model is not None and all(hasattr(model, n) for n in names)


def generates_sites(fit: Any) -> bool:
    """A model with named observed sites that can be drawn anew."""
    return has(fit.model, "predict", "observed") and not fit.plated


def decodes(fit: Any) -> bool:
    """A prior, and a decoder of rows to one array."""
    if not (fit.plated and has(fit.model, "decode", "sample", "likelihood")):
        return False
    return hasattr(jax.eval_shape(fit.model.decode, fit.model.latents), "shape")


def observed_sites(fit: Any) -> dict[str, np.ndarray]:
    """Observed site -> values, all rows in order; NaN where `obs_mask` hides them."""
    from numpyro import handlers

    from ..models.adapters.numpyro_run import setting

    model = fit.model
    rows, (args, kwargs) = model.structure.rows, model._arguments()
    latents = model.constrain(model.init_z())
    run = handlers.seed(setting(model.fn, latents, None if rows is None else rows.plate, None), jax.random.key(0))
    sites = handlers.trace(run).get_trace(*args, **kwargs)
    return {n: _seen(sites[n]) for n in model.observed if n in sites}


def _seen(site: dict[str, Any]) -> np.ndarray:
    """The value of an observed site, NaN where it is masked."""
    fn, value, mask = site["fn"], np.asarray(site["value"]), True
    while hasattr(fn, "base_dist"):
        mask = np.logical_and(mask, np.asarray(getattr(fn, "_mask", True)))
        fn = fn.base_dist
    return (
        value if np.all(mask) or site["fn"].event_dim else np.where(np.broadcast_to(mask, value.shape), value, np.nan)
    )


def n_rows(fit: Any) -> int:
    return len(fit.rows) if isinstance(fit.rows, MappedArray) else length(fit.rows)


def spread_rows(fit: Any, limit: int) -> tuple[np.ndarray, Any]:
    """(row numbers, rows): up to `limit`, spread over the data."""
    n = n_rows(fit)
    index = np.unique(np.linspace(0, n - 1, min(n, limit)).astype(int))
    take = lambda a: np.asarray(a[index])
    return index, take(fit.rows) if isinstance(fit.rows, MappedArray) else jax.tree.map(take, fit.rows)


def drawn_part(fit: Any, rows: Any) -> np.ndarray | None:
    """The array of the rows that the model draws: what its draws may be compared with. None where that cannot be told."""
    own = getattr(getattr(fit.model, "likelihood", None), "observed", None)
    leaves = jax.tree.leaves(rows)
    found = own(rows) if own is not None else leaves[0] if len(leaves) == 1 else None
    return None if found is None else np.asarray(found)


def image_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """How a row of this shape is shown as an image: (H, W), (H, W, 3); flat rows of 64, 81, ... are squares."""
    if len(shape) == 1:
        side = round(shape[0] ** 0.5)
        return (side, side) if side >= 8 and side * side == shape[0] else None
    if len(shape) == 2 and min(shape) >= 4:
        return shape
    if len(shape) == 3 and shape[-1] in (1, 3) and min(shape[:2]) >= 4:
        return shape[:2] if shape[-1] == 1 else shape
    return None


def model_name(fit: Any) -> str:
    """The name of the user's function, else of the kind of model."""
    name = repr(getattr(fit.model, "fn", None))
    return name if name.isidentifier() and name != "None" else str(fit.options.get("model", "Model"))
