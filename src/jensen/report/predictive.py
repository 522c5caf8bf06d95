"""Posterior predictive check: data drawn from the fitted model next to the data it was fitted to."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .decoder import image_grid, reconstructions, value_range
from .observed import decodes, drawn_part, image_shape, observed_sites, spread_rows
from .style import FAINT, INK, TRUTH, Q, blank, clean_y, legend_below_title, text

REPLICATES, SITES, LINES = 200, 3, 40
UNTOLD = "Rows are several arrays, and `likelihood.observed` does not tell which one is drawn: none is shown."


def draw_predictive(figure: Any, fit: Any, compact: bool = False) -> None:
    """Observed sites of a NumPyro model, or reconstructions of a decoder."""
    if decodes(fit):
        _decoder(figure, fit, compact)
        return
    observed = observed_sites(fit)
    replicated = fit.predict(REPLICATES, fit.seed)
    names = [n for n in observed if n in replicated and np.size(observed[n])][: 1 if compact else SITES]
    if not names:
        blank(figure.subplots(), "the model has no observed sites to draw anew")
        return
    axes = figure.subplots(len(names), 1 if compact else 2, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        y = np.asarray(observed[name], np.float64).reshape(-1)
        rep = np.asarray(replicated[name], np.float64).reshape(REPLICATES, -1)
        keep = np.isfinite(y)
        _site(row, name, y[keep], rep[:, keep] if rep.shape[1] == y.size else rep)
    hidden = len([n for n in observed if n in replicated]) - len(names)
    title = "Does data drawn from the fit look like the data?" + (f" ({hidden} more sites left out)" if hidden else "")
    figure.suptitle(title, x=0.01, ha="left")


def predictive_rows(fit: Any) -> int:
    """How many rows of panels the figure has."""
    return 1 if decodes(fit) else max(1, min(SITES, len(getattr(fit.model, "observed", ()))))


def _site(row: np.ndarray, name: str, y: np.ndarray, rep: np.ndarray) -> None:
    whole = np.all(y == np.round(y)) and np.all(rep == np.round(rep))
    if whole and np.isin(y, (0, 1)).all() and np.isin(rep, (0, 1)).all():
        _statistic(row[-1], rep.mean(1), y.mean(), f"{text(name)}: share of ones", "share of ones")
        if len(row) > 1:
            _calibration(row[0], y, rep)
    elif whole and np.unique(y).size <= 60:
        _counts(row[0], name, y, rep)
        if len(row) > 1:
            _statistic(row[1], rep.mean(1), y.mean(), f"{text(name)}: mean count", "mean of a data set")
    else:
        _densities(row[0], name, y, rep)
        if len(row) > 1:
            _moments(row[1], y, rep)


def _statistic(ax: Axes, rep: np.ndarray, observed: float, title: str, label: str) -> None:
    """One number a data set: replicated histogram, observed line."""
    clean_y(ax)
    ax.hist(rep, 20, color=Q, alpha=0.35, label=f"{rep.size} data sets drawn from the fit")
    ax.axvline(observed, ymax=0.72, color=TRUTH, lw=1.8, label="observed")
    above = float((rep >= observed).mean() - 0.5 * (rep == observed).mean())
    ax.set_title(f"{title} ({above:.0%} of draws are above)")
    ax.set_xlabel(label)
    ax.margins(y=0.45)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    legend_below_title(ax, loc="upper left")


def _calibration(ax: Axes, y: np.ndarray, rep: np.ndarray) -> None:
    """Binary data: of the rows given probability p, a share p should be ones."""
    p = rep.mean(0) if rep.shape[1] == y.size else np.full(y.size, rep.mean())
    groups = [g for g in np.array_split(np.argsort(p, kind="stable"), min(10, max(1, y.size // 10))) if g.size]
    mean, rate = np.array([p[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])
    low, high = zip(*(np.quantile(rep[:, g].mean(1), [0.05, 0.95]) for g in groups), strict=True)
    ax.plot([0, 1], [0, 1], color=FAINT, lw=0.9, ls=":")
    ax.vlines(mean, low, high, color=Q, alpha=0.35, lw=5, label="90% of draws from the fit")
    ax.plot(mean, rate, "o", color=TRUTH, ms=4.5, label="observed")
    ax.set_title("Calibration: dots should lie in the bars")
    ax.set_xlabel("predicted probability of a one (rows in ten groups)")
    ax.set_ylabel("share of ones")
    legend_below_title(ax, loc="upper left")


def _counts(ax: Axes, name: str, y: np.ndarray, rep: np.ndarray) -> None:
    values = np.arange(int(y.min()), int(max(y.max(), np.quantile(rep, 0.999))) + 1)
    share = lambda a: np.stack([(a == v).mean(-1) for v in values], -1)
    low, high = np.quantile(share(rep), [0.05, 0.95], axis=0)
    ax.bar(values, share(y), color=FAINT, alpha=0.55, width=0.8, label="observed")
    ax.vlines(values, low, high, color=Q, lw=2.4, label="90% of draws from the fit")
    ax.plot(values, share(rep).mean(0), "o", color=Q, ms=3.5)
    ax.set_title(f"{text(name)}: counts")
    ax.set_xlabel("count")
    ax.set_ylabel("share of rows")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend_below_title(ax, loc="upper right")


def _densities(ax: Axes, name: str, y: np.ndarray, rep: np.ndarray) -> None:
    """Continuous data: one thin line a replicated data set, a thick one for the data."""
    clean_y(ax)
    finite = rep[np.isfinite(rep)]
    if not finite.size or not y.size:
        blank(ax, "the draws from the fit are not finite")
        return
    low, high = np.quantile(finite, [0.002, 0.998])
    low, high = min(low, y.min()), max(high, y.max())
    edges = np.linspace(low, high if high > low else low + 1, int(np.clip(2 * np.sqrt(y.size), 12, 60)))
    height = lambda a: np.histogram(a, edges)[0] / max(a.size, 1)
    centres = (edges[1:] + edges[:-1]) / 2
    for i, one in enumerate(rep[:LINES]):
        label = "data sets drawn from the fit" if i == 0 else None
        ax.plot(centres, height(one), color=Q, alpha=0.18, lw=0.8, label=label)
    ax.plot(centres, height(y), color=INK, lw=2, label="observed")
    ax.set_title(f"{text(name)}: distribution")
    ax.set_xlabel(text(name))
    ax.set_ylim(0, None)
    handles = legend_handles(ax)
    ax.legend(*handles, loc="best")


def legend_handles(ax: Axes) -> tuple[list, list[str]]:
    """The legend's lines, opaque."""
    import copy

    handles, labels = ax.get_legend_handles_labels()
    handles = [copy.copy(h) for h in handles]
    for h in handles:
        h.set_alpha(1)
    return handles, labels


def _moments(ax: Axes, y: np.ndarray, rep: np.ndarray) -> None:
    ax.plot(rep.mean(1), rep.std(1), ".", color=Q, alpha=0.4, label="data sets drawn from the fit")
    ax.plot(y.mean(), y.std(), "D", color=TRUTH, ms=7, label="observed")
    ax.margins(y=0.3)
    ax.set_title("Mean and spread: the diamond should lie in the cloud")
    ax.set_xlabel("mean of a data set")
    ax.set_ylabel("sd of a data set")
    legend_below_title(ax, loc="upper right")


def _decoder(figure: Any, fit: Any, compact: bool) -> None:
    shape = image_shape(fit.model.likelihood.shape)
    if shape is None:
        _features(figure, fit, compact)
        return
    columns = 6 if compact else 12
    x, means = reconstructions(fit, 2 * columns)
    shown = {"fit": means} if x is None else {"data": x, "fit": means}
    blocks = [a[i : i + columns] for i in range(0, len(means), columns) for a in shown.values()]
    images = [b.reshape(len(b), *shape) for b in blocks]
    image_grid(figure, images, *value_range(next(iter(shown.values()))), list(shown) * (len(blocks) // len(shown)))
    title = "Reconstructions: the data, and below them the fit" if x is not None else f"Reconstructions. {UNTOLD}"
    figure.suptitle(title, x=0.01, ha="left")


def _features(figure: Any, fit: Any, compact: bool) -> None:
    """Rows that are no images: new rows drawn through q(z | x) against the data, feature by feature."""
    _, rows = spread_rows(fit, 500)
    x = drawn_part(fit, rows)
    if x is None:
        blank(figure.subplots(), UNTOLD)
        return
    x = x.reshape(len(x), -1).astype(np.float64)
    rep = np.asarray(fit.predict(1, fit.seed, data=rows)).reshape(len(x), -1)
    n = min(x.shape[1], 4 if compact else 8)
    axes = figure.subplots(-(-n // (2 if compact else 4)), min(n, 2 if compact else 4), squeeze=False).ravel()
    for j, ax in enumerate(axes):
        if j >= n:
            ax.axis("off")
            continue
        _densities(ax, f"feature {j}", x[:, j], rep[None, :, j])
        ax.get_lines()[0].set(alpha=1, lw=1.6)
        if j:
            ax.get_legend().remove()
    left = x.shape[1] - n
    figure.suptitle("Rows drawn from the fit against the data" + (f" ({left} features left out)" if left else ""),
                    x=0.01, ha="left")  # fmt: skip
