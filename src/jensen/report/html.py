"""`Fit.report`: one self-contained HTML file, for a reader who knows neither the library nor the method."""

import base64
import datetime
import io
import math
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import OptionError, explain
from ..fit.checkpoint import write_atomically
from . import words
from .observed import decodes, model_name
from .plots import missing, plot
from .style import number, to_png

SUMMARY_ROWS, DPI = 50, 200
PACKAGES = ("jax", "equinox", "optax", "numpyro", "numpy")
PIXELS = ("predictive", "samples")


class Section(NamedTuple):
    """A picture, how to read it, or why there is none."""

    kind: str
    title: str
    lead: str
    image: str
    alt: str
    width: int
    absent: str
    pixels: bool


def write_report(fit: Any, path: str | Path = "report.html") -> Path:
    """Writes the report, all or nothing; returns its path.

    Raises:  OptionError if the path is a folder, CheckpointError if the file cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        because = "the report is one HTML file"
        raise OptionError(explain(f"report({str(path)!r})", "it is a folder", because, repr(str(path / "report.html"))))
    write_atomically(path, render(fit).encode())
    return path


def render(fit: Any) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jensen.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made = datetime.datetime.now().astimezone()
    return environment.get_template("template.html").render(
        title=f"{model_name(fit)} fitted with {fit.options.get('family', 'q')}",
        verdict=str(fit.verdict),
        meaning=words.MEANING[str(fit.verdict)],
        reasons=fit.reasons,
        numbers=key_numbers(fit),
        trail=trail(fit),
        options=options(fit),
        sections=[section(fit, kind) for kind in kinds(fit)],
        summary=summary(fit),
        summary_lead=words.HOW_TO_READ["summary"] + (words.ROWS_FIRST if fit.plated else ""),
        versions=versions(),
        date=made.strftime("%d %B %Y, %H:%M %Z"),
    )


def kinds(fit: Any) -> list[str]:
    """The pictures, in reading order; a decoder's own come first, as they are what its user looks at."""
    own = ["predictive", "samples", "latent", "usage"] if fit.plated and (fit.model is None or decodes(fit)) else []
    own = own or (["predictive", "latent", "usage"] if fit.plated else [])
    common = ["trace", "weights", "marginals", "pairs"]
    return common + (own or ["predictive"])


def section(fit: Any, kind: str) -> Section:
    """Never raises: what cannot be drawn is said."""
    title, lead = words.TITLES[kind], words.HOW_TO_READ[kind]
    pixels = kind in PIXELS and decodes(fit)
    if pixels and kind == "predictive":
        title, lead = words.TITLES["reconstructions"], words.HOW_TO_READ["reconstructions"]
    absent = missing(fit, kind)
    if absent:
        return Section(kind, title, "", "", "", 0, absent, False)
    try:
        figure = plot(fit, kind)
        image, width = _embed(to_png(figure, DPI)), round(100 * figure.get_size_inches()[0])
    except Exception as error:  # a user's model may fail on new draws; the rest of the report still stands
        return Section(kind, title, "", "", "", 0, f"it could not be drawn: {type(error).__name__}: {error}", False)
    return Section(kind, title, lead, image, words.ALT[kind], width, "", pixels)


def _embed(png: bytes) -> str:
    """A data URL, the picture cut to 256 colours: a third of the size."""
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def plus_minus(value: float, error: float) -> str:
    """value ± error, with as many digits as the error warrants."""
    if not math.isfinite(value):
        return number(value)
    if not math.isfinite(error):
        return f"{number(value)} ± {number(error)}"
    digits = 2 if error <= 0 else min(4, max(0, 1 - math.floor(math.log10(error))))
    return f"{number(value, digits)} ± {number(error, digits)}"


def key_numbers(fit: Any) -> list[dict[str, str]]:
    """What a reader wants to know first: name, value, what it means."""
    d = fit.diagnosis
    ess = "not available" if not math.isfinite(d.ess) else f"{d.ess:.0%}"
    per_row = d.details.get("elbo_per_datum")
    elbo_note = "" if per_row is None else f"; {number(per_row)} a row"
    density = fit.options.get("model") == "LogDensity"
    meant = "log p(data), or the log of the density's integral" if density else "log p(data)"
    a_row, over_rows = (" a row", "; 95th percentile over rows") if fit.plated else ("", "")
    good = "tail of the importance weights; below 0.5 is good, above 0.7 is not usable" + over_rows
    worth = f"how much the draws are worth after reweighting, of {d.n_draws:,}{a_row}"
    elbo, evidence = plus_minus(d.elbo, d.elbo_se), plus_minus(d.log_evidence, d.log_evidence_se)
    rows = [
        ("ELBO", elbo + " nats", "lower bound on the log evidence; higher is better" + elbo_note),
        ("Log evidence", evidence + " nats", f"importance-sampled estimate of {meant}"),
        ("k-hat", number(d.khat), good),
        ("Effective share", ess, worth),
        ("Steps", f"{len(fit.history):,}", words.ENDINGS.get(fit.why) or f"ended: {fit.why}"),
        ("Time", _duration(fit.seconds), f"step size {fit.step_size:g}" if fit.step_size else "wall clock"),
    ]
    return [{"name": name, "value": value, "note": note} for name, value, note in rows]


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "not available"
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def trail(fit: Any) -> list[dict[str, str]]:
    """What was tried, in order."""
    return [
        {"family": a.family, "verdict": str(a.verdict), "khat": number(a.khat), "elbo": number(a.elbo),
         "seconds": _duration(a.seconds), "why": words.ENDINGS.get(a.why) or str(a.why)}
        for a in fit.trail
    ]  # fmt: skip


def options(fit: Any) -> list[tuple[str, str]]:
    """What was fitted, with names in words."""
    show = lambda v: "yes" if v is True else "no" if v is False else f"{v:,}" if isinstance(v, int) else str(v)
    every = {k: show(v) for k, v in fit.options.items()}
    if fit.options.get("batch_size", 0) is None:
        every["batch_size"] = "all rows"
    return [(words.OPTIONS.get(k) or k.replace("_", " "), v) for k, v in every.items()]


def summary(fit: Any) -> dict[str, Any]:
    """The first rows of the summary table, as strings, and how many are left out."""
    try:
        table = fit.summary()
    except Exception as error:
        return {"absent": f"{type(error).__name__}: {error}", "columns": [], "rows": [], "left": 0}
    shown = table.head(SUMMARY_ROWS)
    rows = [(str(n), [_significant(v) for v in row]) for n, row in zip(shown.index, shown.to_numpy(), strict=True)]
    return {"absent": "", "columns": list(table.columns), "rows": rows, "left": len(table) - len(shown)}


def _significant(value: float) -> str:
    if not math.isfinite(value) or value == 0:
        return number(value)
    size = math.floor(math.log10(abs(value)))
    return number(value, min(6, max(0, 2 - size))) if -5 < size < 7 else f"{value:.2e}"


def versions() -> str:
    """One line."""
    from .. import __version__

    found = [f"jensen {__version__}", f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
