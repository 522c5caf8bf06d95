"""Why a fit cannot begin: what the log density is where it was looked at, in words."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..batch import Batch
from ..errors import JensenError, explain
from ..facts import Fact
from ..models.base import AbstractModel

LOOKED = 60  # points, beside 0

NAN_BECAUSE = (
    "NaN comes of log, sqrt or a power of a negative number, 0 / 0, inf - inf, or NaN in what the density reads"
)
NAN_INSTEAD = (
    "jax.config.update('jax_debug_nans', True) shows where; exp(z) or softplus(z) for what must be positive, or NumPyro, "
    "which maps supports; jnp.where on the argument of log, not on its result"
)
INF_BECAUSE = (
    "+inf is no density: it comes of a division by zero, exp of a large number, or log of a density with its sign lost"
)
INF_INSTEAD = "a log density that is finite where there is mass, and -inf where there is none"
ZERO_BECAUSE = "the posterior cannot be found from where its density is zero"
ZERO_INSTEAD = "check supports and data (a value outside of a likelihood's support gives -inf)"


def unreachable(
    values: np.ndarray, gradients: np.ndarray | None, at_zero: Any, remedy: str = "", at_fault: str = ""
) -> str:
    """The message for a log density that is finite at none of the starts.

    Arguments:  values, gradients: there, as they are.   at_zero: the value at z = 0.   remedy: one more.
                at_fault: where it comes from, if that is known.
    """
    values = np.asarray(values, float)
    n = len(values)
    shares = {"NaN": np.isnan(values), "+inf": values == np.inf, "-inf": values == -np.inf}
    counts = {name: int(mask.sum()) for name, mask in shares.items()}
    finite = n - sum(counts.values())
    if finite and gradients is not None:
        wrong = f"its gradient is not finite at any of {finite} points where its value is"
        because = "every method starts along the gradient; a gradient of NaN comes of jnp.where over a branch that is undefined"
        instead = (
            "jnp.where on the argument, so that neither branch is undefined; or LogDensity(..., differentiable=False)"
        )
        return explain("`fit` of this model", wrong, because, instead)
    worst = "NaN" if counts["NaN"] else "+inf" if counts["+inf"] else "-inf"
    if counts[worst] == n:
        wrong = f"its log density is {worst} at every one of {n} starts, z = 0 among them: it is not finite anywhere"
    else:
        kinds = ", ".join(f"{name} at {count}" for name, count in counts.items() if count)
        wrong = f"its log density is not finite at any of {n} starts ({kinds}); at z = 0 it is {_shown(at_zero)}"
    wrong += at_fault
    because, instead = {
        "NaN": (NAN_BECAUSE, NAN_INSTEAD), "+inf": (INF_BECAUSE, INF_INSTEAD), "-inf": (ZERO_BECAUSE, ZERO_INSTEAD),
    }[worst]  # fmt: skip
    return explain("`fit` of this model", wrong, because, instead + remedy)


def never_finite(model: AbstractModel, batch: Batch, seed: int) -> str:
    """The message of a gradient fit that has not found a start: of z = 0 and points around it."""
    rng, x = np.random.default_rng([seed, 43]), batch
    if model.plated:
        x = jax.tree.map(lambda a: a[0], batch.rows)
    points = lambda s: jnp.asarray(
        np.concatenate([np.zeros((1, *s.shape)), rng.normal(size=(LOOKED, *s.shape))]), s.dtype
    )
    smooth = Fact.DIFFERENTIABLE in model.facts
    look = lambda z: jax.value_and_grad(model.log_density)(z, x) if smooth else (model.log_density(z, x), z)
    values, gradients = jax.device_get(jax.lax.map(look, jax.tree.map(points, model.latents)))
    flat = [np.asarray(a, float).reshape(len(values), -1) for a in jax.tree.leaves(gradients)]
    remedy = "; or starting values that are inside, family=MeanField(shape, loc=...)"
    return unreachable(values, np.concatenate(flat, 1) if smooth else None, values[0], remedy, at_fault(model))


def too_large(step_size: float | None) -> str:
    """The message for a step size whose first step ends the fit, though the density is finite where it begins."""
    asked = "fit(optimizer=...)" if step_size is None else f"fit(optimizer={step_size:g})"
    wrong = "its first step leads to where numbers are not finite; at the start they are"
    because = "the step size is too large for this model: the density is not at fault"
    return explain(asked, wrong, because, "optimizer=1e-2, or None: a step size is then chosen on a short trial")


def at_fault(model: Any) -> str:
    """ ", observed site `y` at [3]: 0.0" of a NumPyro model: the first observed value whose log density is not finite at 0."""
    if not hasattr(model, "log_likelihood") or not hasattr(model, "init_z") or getattr(model, "plated", True):
        return ""
    try:
        terms = model.log_likelihood(model.init_z())
        sites = model.observations(model.init_z())
    except JensenError:  # sites that are tied together
        return ""
    for name, values in terms.items():
        bad = np.argwhere(~np.isfinite(np.asarray(values, float)))
        if len(bad):
            index = tuple(map(int, bad[0]))
            data = np.asarray(sites[name])
            value = f", where it is observed as {data[index]}" if data.shape == np.shape(values) else ""
            where = f"[{', '.join(map(str, index))}]" if index else "its value"
            term = _shown(np.asarray(values, float)[index])
            return f"; at z = 0 observed site `{name}` adds {term} at {where}{value}"
    return ""


def _shown(value: Any) -> str:
    value = float(value)
    return "NaN" if np.isnan(value) else f"{value:+g}" if np.isinf(value) else f"{value:g}"
