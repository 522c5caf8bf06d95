"""A fit as ArviZ `InferenceData`."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ..errors import ModelError, OptionError, explain
from .draws import sites
from .observed import generates_sites, has, observed_sites, spread_rows

BLOCK = 256  # draws whose log-likelihood is evaluated at once


def to_inference_data(
    fit: Any,
    n: int | None = None,
    *,
    coords: dict[str, Sequence] | None = None,
    dims: dict[str, list[str]] | None = None,
    predictive: bool = False,
) -> Any:
    """The verdict's draws as `arviz.InferenceData`, one chain.

    Groups: posterior (the model's coordinates; a latent without a name is `z`); sample_stats: lp = log p(x, z),
    with the Jacobian of the coordinates, and log_q; observed_data and log_likelihood where the model has them. Each
    group's attributes name verdict, method, and how the draws came from q (`corrected`): where they were resampled, or
    come from chains, lp - log_q are no importance weights.
    Arguments:  n: the first n draws; None: all.   coords, dims: named axes, as in `arviz.from_dict`; with a latent for
                each row the axis `row` comes first and need not be named.   predictive: with posterior_predictive.
    Raises:     OptionError if n is more than there are, ModelError if the draws were not kept.
    """
    if fit.draws is None:
        because = "they are what the data set is made of"
        raise ModelError(explain("to_arviz()", "the draws were not kept", because, "sample(1000)"))
    total = len(fit.log_p)
    n = total if n is None else n
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= total:
        because = "log p and log q are known for these draws only"
        wrong = f"the fit holds {total:,} draws"
        raise OptionError(explain(f"to_arviz(n={n!r})", wrong, because, f"n from 1 to {total}, or sample(n)"))
    az = _arviz()
    posterior = {name: a[None, :n] for name, a in sites(fit).items()}
    stats = {"lp": np.asarray(fit.log_p)[None, :n], "log_q": np.asarray(fit.log_q)[None, :n]}
    coords, dims = dict(coords or {}), dict(dims or {})
    if fit.plated:
        coords, dims = _with_rows(fit, posterior, stats, coords, dims)
    groups = {**_likelihood(fit, n), **(_predictive(fit, n) if predictive else {})}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        out = az.from_dict(posterior=posterior, sample_stats=stats, coords=coords, dims=dims, **groups)
    for group in out.groups():
        out[group].attrs.update(_attributes(fit))
    return out


def _arviz() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        import arviz
    return arviz


def _attributes(fit: Any) -> dict[str, Any]:
    from .. import __version__

    known = {name: fit.options[name] for name in ("method", "evaluations") if name in fit.options}
    return {
        "inference_library": "jensen", "inference_library_version": __version__, "verdict": str(fit.verdict),
        "khat": float(fit.khat), "elbo": float(fit.elbo), "log_evidence": float(fit.log_evidence),
        "family": str(fit.options.get("family")), "corrected": fit.corrected, "undetermined": _undetermined(fit), **known,
    }  # fmt: skip


def _undetermined(fit: Any) -> str:
    """`name: what`, separated by semicolons: means and sds that the draws do not settle."""
    if fit._constrainer() is None:  # loaded, and its coordinates are code
        return ""
    marks = fit.summary()["undetermined"]
    return "; ".join(f"{name}: {mark}" for name, mark in marks[marks != ""].items())


def _with_rows(fit: Any, posterior: dict, stats: dict, coords: dict, dims: dict) -> tuple[dict, dict]:
    """Names the axis of rows, by row number where that is known."""
    count = stats["lp"].shape[2]
    if "row" not in coords:
        known = fit.rows is not None
        coords["row"] = spread_rows(fit, count)[0] if known else np.arange(count)
    for name, a in {**posterior, **stats}.items():
        own = list(dims.get(name, [f"{name}_dim_{i}" for i in range(a.ndim - 3)]))
        dims[name] = own if len(own) == a.ndim - 2 else ["row", *own]
    return coords, dims


def _likelihood(fit: Any, n: int) -> dict[str, dict]:
    """observed_data and log_likelihood, as far as the model has them."""
    model = fit.model
    z = jax.tree.map(lambda a: jnp.asarray(a[:n]), fit.draws)
    many = lambda f: jax.device_get(jax.jit(lambda z: jax.lax.map(f, z, batch_size=min(BLOCK, n)))(z))
    if generates_sites(fit) and has(model, "log_likelihood"):
        observed = {"observed_data": observed_sites(fit)}
        try:
            values = many(model.log_likelihood)
        except ModelError:  # a marginalised site ties the rows together: there is no pointwise term
            return observed
        return {**observed, "log_likelihood": {k: v[None] for k, v in values.items()}}
    pointwise = not fit.plated and has(model, "log_likelihood_per_row") and getattr(model, "log_likelihood", None)
    if not pointwise or fit.rows is None:
        return {}
    values = many(lambda z: model.log_likelihood_per_row(z, fit.rows))
    leaves, _ = jax.tree_util.tree_flatten_with_path(fit.rows)
    data = {jax.tree_util.keystr(p, simple=True, separator=".") or "data": np.asarray(a) for p, a in leaves}
    return {"observed_data": data, "log_likelihood": {"row": values[None]}}


def _predictive(fit: Any, n: int) -> dict[str, dict]:
    """One replicated data set for each draw."""
    if not generates_sites(fit):
        kind = "this fit was loaded without its model" if fit.model is None else f"a {type(fit.model).__name__}"
        because = "replicated data are draws from p(x | z) at its observed sites"
        asked = "to_inference_data(predictive=True)"
        raise ModelError(explain(asked, f"{kind}: it cannot generate data", because, "a NumPyro model"))
    keys = jr.split(jr.key(fit.seed), n)
    z = jax.tree.map(lambda a: jnp.asarray(a[:n]), fit.draws)
    values = jax.device_get(jax.jit(jax.vmap(fit.model.predict))(keys, z))
    return {"posterior_predictive": {k: v[None] for k, v in values.items()}}
