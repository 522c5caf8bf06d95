"""Marginalising discrete sites of a NumPyro model exactly, by tensor variable elimination (funsor)."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from .numpyro_run import Rows, plate_dim, refuse, user_scale


def require_funsor(names: tuple[str, ...]) -> None:
    try:
        import funsor  # noqa: F401
        import numpyro.contrib.funsor  # noqa: F401
    except ImportError as e:
        sites = ", ".join(f"`{n}`" for n in names)
        wrong, because = f"funsor cannot be imported: {e}", "numpyro eliminates enumerated sites with it"
        raise refuse(f"marginalising {sites}", wrong, because, "pip install funsor") from e


def log_joint(model: Callable, args: tuple, kwargs: dict, nesting: int) -> Any:
    """log sum_k p(k, latents, data): also chains of discrete states under `scan`."""
    from numpyro.contrib.funsor import enum, log_density

    return log_density(enum(model, -nesting - 1), args, kwargs, {})[0]


def log_joint_of_rows(
    model: Callable, args: tuple, kwargs: dict, nesting: int, rows: Rows, n_rows: int, weight: Array | None
) -> Any:
    """sum_i w_i log sum_k p(k_i, x_i | ...) + the rest: the weight is outside of the sum over k, unlike in numpyro."""
    import funsor
    from funsor.optimizer import apply_optimizer

    sites, factors, enumerated = _factors(model, args, kwargs, nesting, rows, n_rows)
    shared = {n for n in enumerated if plate_dim(sites[n], rows.plate) is None}
    for name, factor in factors.items():
        bad = sorted(shared & set(factor.inputs))
        if bad and plate_dim(sites[name], rows.plate) is not None:
            wrong = f"it is marginalised outside of the subsampled plate `{rows.plate}`, where `{name}` depends on it"
            because = "log sum_k exp(scaled sum over a minibatch) is a biased estimate"
            raise refuse(f"site `{bad[0]}`", wrong, because, "no subsample_size; or the site inside the plate")
    plates = frozenset(f.name for s in sites.values() for f in s["cond_indep_stack"])
    with funsor.interpretations.lazy:
        parts = funsor.sum_product.partial_sum_product(
            funsor.ops.logaddexp, funsor.ops.add, list(factors.values()), (plates | enumerated) - {rows.plate}, plates
        )
    value = 0.0
    for lazy in parts:
        part: Any = apply_optimizer(lazy)
        scaled = weight is not None and rows.plate in part.inputs
        value = value + (part.data * weight if scaled else part.data).sum()
    return value


def log_likelihood(model: Callable, args: tuple, kwargs: dict, nesting: int, names: tuple[str, ...]) -> dict[str, Any]:
    """Elementwise log p(x | latents) of the observed sites `names`, summed over the discrete ones.

    Raises:  ModelError where the sum ties elements or sites together.
    """
    import funsor

    sites, factors, enumerated = _factors(model, args, kwargs, nesting, None, None)
    dims = {n: {f.name: f.dim for f in s["cond_indep_stack"]} for n, s in sites.items()}
    result = {}
    for name in names:
        tied = _tied(factors[name], factors, enumerated)
        others = [n for n, f in factors.items() if n not in (name, *tied) and tied & set(f.inputs)]
        if others or any(set(dims[n]) != set(dims[name]) for n in tied):
            wrong = f"its elements share the marginalised {sorted(tied)} with each other or with {others}"
            because = "p(x_i | latents) of one element is not a factor of the likelihood"
            raise refuse(f"log-likelihood of site `{name}`", wrong, because, "a latent that is not marginalised")
        joint: Any = sum((factors[n] for n in sorted(tied)), start=factors[name])
        result[name] = funsor.to_data(joint.reduce(funsor.ops.logaddexp, tied), name_to_dim=dims[name])
    return result


def _tied(factor: Any, factors: dict[str, Any], enumerated: frozenset[str]) -> frozenset[str]:
    """The discrete sites a factor depends on, and those that they depend on."""
    tied, new = frozenset(), enumerated & set(factor.inputs)
    while new - tied:
        tied |= new
        new = frozenset().union(*(enumerated & set(factors[n].inputs) for n in tied))
    return tied


def _factors(
    model: Callable, args: tuple, kwargs: dict, nesting: int, rows: Rows | None, n_rows: int | None
) -> tuple[dict[str, dict], dict[str, Any], frozenset[str]]:
    """The sample sites, their log-probabilities as funsors (unscaled without `n_rows`), and the marginalised names."""
    import funsor
    from numpyro.contrib.funsor import enum, plate_to_enum_plate, trace

    with plate_to_enum_plate():
        sites = trace(enum(model, -nesting - 1)).get_trace(*args, **kwargs)
    sites = {n: s for n, s in sites.items() if s["type"] == "sample"}
    factors = {}
    for name, site in sites.items():
        names = site["infer"]["dim_to_name"]
        if any(n.startswith(("_time", "_PREV_")) for n in names.values()):
            wrong, because = "it is in a `scan` with marginalised states", "elements of a chain are not independent"
            raise refuse(f"site `{name}`", wrong, because, "log_density without subsampling")
        terms = site["fn"].log_prob(site["value"])
        scale = None if n_rows is None else user_scale(site, rows, n_rows)
        terms = terms if scale is None else scale * terms
        terms = terms.squeeze() if names == OrderedDict() and terms.size == 1 else terms
        factors[name] = funsor.to_funsor(terms, output=funsor.Real, dim_to_name=names)
    marked = [n for n, s in sites.items() if not s["is_observed"] and s["infer"].get("enumerate") == "parallel"]
    return sites, factors, frozenset(marked) & frozenset(i for f in factors.values() for i in f.inputs)
