"""`Fit.plot`: the kinds of figure, and which of them a fit has."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..errors import OptionError, explain
from . import coordinates, decoder, ladder, marginals, predictive, search, trace, weights
from .observed import decodes, generates_sites, image_shape, model_name
from .rungs import has_rungs
from .style import Figure, new_figure, styled, text


class Kind(NamedTuple):
    """draw(figure or subfigure, fit, compact); size(fit) in inches; missing(fit): why a fit has none, or ""."""

    draw: Callable[..., None]
    size: Callable[[Any], tuple[float, float]]
    missing: Callable[[Any], str]


def _no_history(fit: Any) -> str:
    if has_rungs(fit):
        return "the method climbs no single objective step by step"
    return "" if len(fit.history) else "no objective was recorded: the algorithm takes no steps"


def _no_ladder(fit: Any) -> str:
    if not has_rungs(fit):
        return "the fit was made by stochastic gradients: there are no rungs"
    return "" if fit.trail else "no rungs were recorded"


def _no_search(fit: Any) -> str:
    return "" if "search" in fit.diagnosis.details else "no search for modes was made"


def _no_coordinates(fit: Any) -> str:
    return "" if "coordinates" in fit.diagnosis.details else "the model's own coordinates were used"


def _no_walls(fit: Any) -> str:
    return (
        ""
        if fit.diagnosis.details.get("walls", {}).get("pictures")
        else "no walls were found at which the density ends"
    )


def _no_weights(fit: Any) -> str:
    if fit.corrected != "none" and fit.proposals is None:
        return "the draws are corrected, and the draws of q that were weighed are not at hand"
    if not fit.weighable:
        return "q has no density that can be evaluated, so its draws have no importance weights"
    return _no_draws(fit)


def _no_draws(fit: Any) -> str:
    return "" if fit.draws is not None else "the draws were not kept"


def _no_pairs(fit: Any) -> str:
    return _no_draws(fit) or ("" if marginals.Draws(fit).size > 1 else "the posterior has one coordinate only")


def _no_rows(fit: Any) -> str:
    if not fit.plated:
        return "it is for models with a latent for each row, and these latents are shared by all rows"
    return "" if fit.rows is not None else "this fit was loaded without its data"


def _no_decoder(fit: Any) -> str:
    if fit.model is None:
        return "this fit was loaded without its model"
    return "" if decodes(fit) else f"a {type(fit.model).__name__} has no decoder and prior to draw from"


def _no_check(fit: Any) -> str:
    if fit.model is None:
        return "this fit was loaded without its model"
    if decodes(fit):
        return _no_rows(fit)
    return "" if generates_sites(fit) else f"a {type(fit.model).__name__} is a density: it cannot generate data"


def _marginals_size(fit: Any) -> tuple[float, float]:
    n = min(marginals.MARGINALS, marginals.Draws(fit).size)
    return max(6.0, min(n, 4) * 2.4), 1.1 + 1.7 * -(-n // 4)


def _pairs_size(fit: Any) -> tuple[float, float]:
    n = min(marginals.PAIRS, marginals.Draws(fit).size)
    return 1.5 + 1.7 * n, 1.4 + 1.6 * n


def _predictive_size(fit: Any) -> tuple[float, float]:
    if not decodes(fit):
        return 9.5, 0.5 + 3 * predictive.predictive_rows(fit)
    shape = image_shape(fit.model.likelihood.shape)
    return (9.5, 0.6 + 0.8 * 4 * shape[0] / shape[1]) if shape else (9.5, 4.6)


def _samples_size(fit: Any) -> tuple[float, float]:
    shape = image_shape(fit.model.likelihood.shape)
    return (9.5, 0.5 + 0.8 * 5 * shape[0] / shape[1]) if shape else (9.5, 3.6)


KINDS = {
    "ladder": Kind(ladder.draw_ladder, ladder.ladder_size, _no_ladder),
    "search": Kind(search.draw_search, lambda fit: (9.5, 5.2), _no_search),
    "coordinates": Kind(coordinates.draw_coordinates, coordinates.coordinates_size, _no_coordinates),
    "walls": Kind(coordinates.draw_walls, coordinates.walls_size, _no_walls),
    "trace": Kind(trace.draw_trace, lambda fit: (9.5, 3.4), _no_history),
    "weights": Kind(weights.draw_weights, lambda fit: (9.5, 3.5), _no_weights),
    "marginals": Kind(marginals.draw_marginals, _marginals_size, _no_draws),
    "pairs": Kind(marginals.draw_pairs, _pairs_size, _no_pairs),
    "predictive": Kind(predictive.draw_predictive, _predictive_size, _no_check),
    "samples": Kind(decoder.draw_samples, _samples_size, _no_decoder),
    "latent": Kind(decoder.draw_latent, lambda fit: (9.5, 6.0), _no_rows),
    "usage": Kind(decoder.draw_usage, lambda fit: (9.5, 3.0), _no_rows),
}
PANELS = (
    "ladder",
    "trace",
    "weights",
    "marginals",
    "predictive",
    "pairs",
    "samples",
    "usage",
    "latent",
    "search",
    "coordinates",
    "walls",
)


def missing(fit: Any, kind: str) -> str:
    """Why this fit has no figure of this kind; "" if it has one."""
    return KINDS[kind].missing(fit)


def available(fit: Any) -> list[str]:
    """The kinds this fit has a figure of."""
    return ["overview"] + [k for k in KINDS if not missing(fit, k)]


def plot(fit: Any, kind: str = "overview") -> Figure:
    """A Matplotlib figure of its own (no pyplot state).

    Arguments:  kind: "overview", "ladder", "search", "coordinates", "walls" (of stochastic gradients: "trace"), "weights",
                "marginals", "pairs", "predictive"; with a latent for each row also "samples", "latent", "usage".
    Raises:     OptionError for a kind that is unknown, or that this fit cannot have; it lists those it has.
    """
    if kind != "overview" and (kind not in KINDS or missing(fit, kind)):
        wrong = missing(fit, kind) if kind in KINDS else "there is no such kind"
        because = "a figure is made from what the fit holds"
        raise OptionError(explain(f"plot({kind!r})", wrong, because, f"one of {', '.join(map(repr, available(fit)))}"))
    with styled(), np.errstate(all="ignore"):
        if kind == "overview":
            return _overview(fit)
        figure = new_figure(*KINDS[kind].size(fit))
        KINDS[kind].draw(figure, fit)
        return figure


def _overview(fit: Any) -> Figure:
    """Up to six panels, under the verdict."""
    have = [k for k in PANELS if not missing(fit, k)]
    kinds = have[:6] if len(have) >= 6 else have[:4]
    columns = 3 if len(kinds) > 4 else min(2, max(1, len(kinds)))
    rows = max(1, -(-len(kinds) // columns))
    figure = new_figure(5.2 * columns, 0.5 + 3.7 * rows)
    how = fit.options.get("method", fit.options.get("family"))
    title = text(f"{model_name(fit)}, {how}: {fit.verdict}", 90)
    figure.suptitle(title, x=0.01, ha="left", size=13)
    cells = figure.subfigures(rows, columns, squeeze=False, wspace=0.04, hspace=0.05).ravel()
    for cell, kind in zip(cells, kinds, strict=False):
        KINDS[kind].draw(cell, fit, compact=True)
    return figure
