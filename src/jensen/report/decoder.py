"""Models with a latent for each row: samples, a map of the latents, and how many of them are used."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy.special import digamma

from ..facts import Fact
from ..tree import length
from .observed import drawn_part, image_shape, spread_rows
from .style import FAINT, GREEN, INK, Q, clean_y, legend_below_title

ROWS, DRAWS_A_ROW, SAMPLES, ACTIVE = 2000, 64, 60, 0.01


def image_grid(figure: Any, lines: list[np.ndarray], low: float, high: float, names: Sequence[str] = ()) -> None:
    """Lines of images as one picture, dark on light; `names` stand left of the lines."""
    h, w = lines[0].shape[1:3]
    colour = lines[0].ndim == 4
    gap = max(1, h // 10)
    columns = max(len(line) for line in lines)
    size = (len(lines) * (h + gap) - gap, columns * (w + gap) - gap)
    canvas = np.full((*size, *lines[0].shape[3:]), 1.0 if colour else np.nan)
    ax = figure.subplots()
    for i, line in enumerate(lines):
        for j, image in enumerate(line):
            y, x = i * (h + gap), j * (w + gap)
            canvas[y : y + h, x : x + w] = np.clip((image - low) / (high - low), 0, 1) if colour else image
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), w, h, fill=False, ec=FAINT, lw=0.5))
    ax.imshow(canvas, cmap="gray_r", vmin=low, vmax=high, interpolation="nearest")
    ax.set(xlim=(-1, size[1]), ylim=(size[0], -1))
    ax.axis("off")
    for i, name in enumerate(names):
        ax.text(-1 - w / 8, i * (h + gap) + h / 2, name, ha="right", va="center", fontsize=9, color=INK)


def value_range(x: np.ndarray) -> tuple[float, float]:
    """White and black of an image."""
    x = np.asarray(x, np.float64)
    low, high = float(x.min()), float(x.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high if high > low else low + 1)


def posterior(fit: Any) -> tuple[Any, Any]:
    """(rows, draws of their latents): up to 2,000 rows, the same for all pictures, so that one program serves them."""
    rows = spread_rows(fit, ROWS)[1]
    return rows, fit.sample(DRAWS_A_ROW, fit.seed, data=rows)


def reconstructions(fit: Any, limit: int) -> tuple[np.ndarray | None, np.ndarray]:
    """(rows, means over the draws of their latents of E[x | z]) of up to `limit` rows, spread over the data. Of rows that are
    several arrays the one that the model draws; None where that cannot be told."""
    rows, z = posterior(fit)
    x, n = drawn_part(fit, rows), length(rows)
    index = np.unique(np.linspace(0, n - 1, min(n, limit)).astype(int))
    few = jax.tree.map(lambda a: a[:, index], z)
    return None if x is None else x[index], np.asarray(_decoded(fit.model, few), np.float64)


@eqx.filter_jit
def _decoded(model: Any, z: Any) -> Array:
    """Mean over draws (n, rows) of E[x | z]."""
    return jax.vmap(jax.vmap(model.decode))(z).mean(0)


@eqx.filter_jit
def _imagined(model: Any, keys: Array) -> Array:
    """E[x | z], z from the prior."""
    prior = model._prior
    return jax.vmap(lambda key: model.decode(prior.latent(prior.sample(key))))(keys)


def flat(z: Any) -> np.ndarray:
    """(n, rows, D)."""
    leaves = [np.asarray(a, np.float64) for a in jax.tree.leaves(z)]
    return np.concatenate([a.reshape(*a.shape[:2], -1) for a in leaves], -1)


def draw_samples(figure: Any, fit: Any, compact: bool = False) -> None:
    """E[x | z] for z from the prior."""
    n, columns = (24, 6) if compact else (SAMPLES, 12)
    model = fit.model
    means = np.asarray(_imagined(model, jr.split(jr.key(fit.seed), SAMPLES)), np.float64)[:n]
    shape = image_shape(model.likelihood.shape)
    if shape is not None:
        known = None if fit.rows is None else drawn_part(fit, spread_rows(fit, 100)[1])
        limits = value_range(means if known is None else known)
        image_grid(figure, list(means.reshape(n // columns, columns, *shape)), *limits)
        figure.suptitle("Samples: E[x | z] for z drawn from the prior", x=0.01, ha="left")
        return
    ax = figure.subplots()
    lines = means.reshape(n, -1)
    ax.plot(np.arange(lines.shape[1]), lines.T, color=Q, alpha=0.25, lw=0.9)
    x = None if fit.rows is None else drawn_part(fit, spread_rows(fit, 500)[1])
    if x is not None:
        ax.plot(x.reshape(len(x), -1).mean(0), color=INK, lw=1.8, label="mean of the data")
        legend_below_title(ax)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set(title="Samples: E[x | z] for z drawn from the prior", xlabel="feature", ylabel="value")


def draw_latent(figure: Any, fit: Any, compact: bool = False) -> None:
    """A two-dimensional map of the rows' posterior means."""
    rows, z = posterior(fit)
    means = flat(z).mean(0)
    ax = figure.subplots()
    d = means.shape[1]
    if d == 1:
        clean_y(ax)
        ax.hist(means[:, 0], 40, color=Q, alpha=0.6)
        ax.set(title=f"Posterior means of {len(means):,} rows", xlabel="latent 0")
        return
    if d == 2:
        at, labels, title = means, ["latent 0", "latent 1"], " by their latents"
    else:
        at, share = _principal(means)
        labels = [f"principal component {i + 1} ({s:.0%} of the variance)" for i, s in enumerate(share)]
        title = f" by their latents (2 of {d} components)"
    images = drawn_part(fit, rows)
    shape = None if images is None else image_shape(images.shape[1:])
    ax.scatter(at[:, 0], at[:, 1], 8, color=Q, alpha=0.25 if shape else 0.5, lw=0, rasterized=True)
    if images is not None and shape is not None:
        _thumbnails(ax, at, images.reshape(-1, *shape), (8, 8) if compact else (18, 13))
    ax.set(title=f"Map of {len(means):,} rows{title}", xlabel=labels[0], ylabel=labels[1])


def _thumbnails(ax: Axes, at: np.ndarray, images: np.ndarray, cells: tuple[int, int]) -> None:
    """The row nearest to the centre of each cell of a grid, drawn in its place."""
    low, high, shape = at.min(0), at.max(0), np.array(cells)
    where = (at - low) / np.maximum(high - low, 1e-300) * shape
    cell = np.minimum(where.astype(int), shape - 1)
    distance = np.linalg.norm(where - cell - 0.5, axis=1)
    low_value, high_value = value_range(images)
    half = 0.42 * (high - low) / shape
    for key in np.unique(cell, axis=0):
        here = np.flatnonzero((cell == key).all(1))
        i = here[np.argmin(distance[here])]
        centre = low + (key + 0.5) * (high - low) / shape
        box = (centre[0] - half[0], centre[0] + half[0], centre[1] - half[1], centre[1] + half[1])
        ax.imshow(images[i], cmap="gray_r", vmin=low_value, vmax=high_value, extent=box, aspect="auto", zorder=3)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scores on the first two principal components, their shares of the variance)."""
    centred = x - x.mean(0)
    u, s, _ = np.linalg.svd(np.nan_to_num(centred), full_matrices=False)
    return u[:, :2] * s[:2], s[:2] ** 2 / max((s**2).sum(), 1e-300)


def draw_usage(figure: Any, fit: Any, compact: bool = False) -> None:
    """Information each latent carries about its row; unused ones have collapsed to the prior."""
    z = flat(posterior(fit)[1])
    spread = z.mean(0).var(0) - z.var(0, ddof=1).mean(0) / len(z)  # less the noise of the means
    active = spread > ACTIVE
    kl = kl_by_latent(fit, z)
    height = spread if kl is None else kl
    order = np.argsort(-height)[:200]
    ax = figure.subplots()
    for state, colour, label in ((True, GREEN, "active"), (False, FAINT, "unused: the same for every row")):
        picked = np.flatnonzero(active[order] == state)
        if picked.size:
            ax.bar(picked, height[order][picked], color=colour, width=0.8, label=label)
    n = len(order)
    if n <= 24:
        ax.set_xticks(range(n), [str(i) for i in order])
    ax.set_title(f"{int(active.sum())} of {spread.size} latents are active")
    ax.set_xlabel("latent, most used first" if n <= 24 else "latents, most used first")
    ax.set_ylabel("variance of posterior means" if kl is None else "KL from the prior (nats a row)")
    ax.set_xlim(-0.7, max(n, 6) - 0.3)
    legend_below_title(ax, loc="upper right")


def kl_by_latent(fit: Any, z: np.ndarray) -> np.ndarray | None:
    """Mean over rows of KL(q(z_d | x) || p(z_d)), from the draws' moments: exact for Gaussians and Bernoullis."""
    prior = getattr(fit.model, "_prior", None)
    if prior is None or Fact.MOMENTS not in prior.facts:
        return None
    ravel = lambda tree: np.concatenate([np.asarray(a, np.float64).ravel() for a in jax.tree.leaves(tree)])
    m0, v0 = (ravel(t) for t in jax.device_get(prior.moments()))
    if m0.size != z.shape[-1]:
        return None
    m, v = z.mean(0), z.var(0, ddof=1)
    if np.isin(z, (0, 1)).all():
        entropy = lambda p, r: -p * np.log(np.clip(r, 1e-12, 1)) - (1 - p) * np.log(np.clip(1 - r, 1e-12, 1))
        return (entropy(m, m0) - entropy(m, m)).mean(0)
    n, v = len(z), np.maximum(v, 1e-300)
    log_v = np.log(v) - digamma((n - 1) / 2) + np.log((n - 1) / 2)  # without the bias of n draws, as in the next line
    return 0.5 * (((m - m0) ** 2 - v / n + v) / v0 - 1 - log_v + np.log(v0)).mean(0)
