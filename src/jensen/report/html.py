"""`Fit.report`: one self-contained HTML file, for a reader who knows neither the library nor the method."""

import base64
import datetime
import io
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import OptionError, explain
from ..fit.checkpoint import write_atomically
from . import words
from .observed import decodes, model_name
from .plots import missing, plot
from .rungs import has_rungs, origin
from .style import to_png
from .tables import key_numbers, options, summary, trail

DPI = 200
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
        title=f"{model_name(fit)} fitted with {fit.options.get('method') or fit.options.get('family', 'q')}",
        verdict=str(fit.verdict),
        meaning=words.MEANING[str(fit.verdict)],
        reasons=fit.reasons,
        numbers=key_numbers(fit),
        trail=trail(fit),
        options=options(fit),
        sections=[section(fit, kind) for kind in kinds(fit)],
        summary=summary(fit),
        summary_lead=words.lead("summary", origin(fit)) + (words.ROWS_FIRST if fit.plated else ""),
        versions=versions(),
        date=made.strftime("%d %B %Y, %H:%M %Z"),
    )


def kinds(fit: Any) -> list[str]:
    """The pictures, in reading order; a decoder's own come first, as they are what its user looks at."""
    own = ["predictive", "samples", "latent", "usage"] if fit.plated and (fit.model is None or decodes(fit)) else []
    own = own or (["predictive", "latent", "usage"] if fit.plated else [])
    found = ["ladder", *(k for k in ("search", "coordinates", "walls") if not missing(fit, k))]
    common = [*(found if has_rungs(fit) else ["trace"]), "weights", "marginals", "pairs"]
    return common + (own or ["predictive"])


def section(fit: Any, kind: str) -> Section:
    """Never raises: what cannot be drawn is said."""
    title, lead = words.title(kind, origin(fit)), words.lead(kind, origin(fit))
    if kind == "ladder" and fit.options.get("asked", "auto") != "auto":
        lead = words.NAMED
    if kind == "weights" and fit.proposals is not None and fit.corrected == "none":
        lead += words.TAILS
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
