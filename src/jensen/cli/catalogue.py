"""The parts that are exported, read off the packages: nothing here is a list by hand."""

import inspect
from typing import Any

from ..errors import OptionError, explain


def parts(axis: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """{axis: [{name, about, facts, needs}]}. Raises: OptionError for an unknown axis."""
    from .. import families, gradients, models, objectives
    from ..fit.defaults import exported
    from ..gradients import plans

    packages = {"model": models, "family": families, "objective": objectives, "gradient": gradients, "plan": plans}
    if axis is not None and axis not in (*packages, "method"):
        because, instead = "parts are listed by axis", f"one of {', '.join([*packages, 'method'])}"
        raise OptionError(explain(f"`jensen list {axis}`", "there is no such axis", because, instead))
    wanted = {n: p for n, p in packages.items() if axis in (None, n)}
    found = {n: {k: c for k, c in exported(p).items() if not k.startswith("Abstract")} for n, p in wanted.items()}
    rows = {n: [_row(name, cls) for name, cls in sorted(classes.items())] for n, classes in found.items()}
    return rows | ({"method": _methods()} if axis in (None, "method") else {})


def _methods() -> list[dict[str, Any]]:
    """What `fit(method=...)` takes; they have no facts to compare."""
    from ..methods.lookup import sentences

    return [{"name": name, "about": about, "facts": [], "needs": []} for name, about in sentences().items()]


def _row(name: str, cls: type) -> dict[str, Any]:
    about = (inspect.getdoc(cls) or "").partition("\n")[0]
    facts = sorted(f.name for f in _stated(cls, "facts"))
    needs = sorted({f"{r.axis}: {r.fact.name}" for r in _stated(cls, "requires")})
    return {"name": name, "about": about, "facts": facts, "needs": needs}


def _stated(cls: type, attribute: str) -> Any:
    """A class constant; or what an object with its defaults says; nothing where it depends on other parts."""
    value = getattr(cls, attribute, ())
    if isinstance(value, (frozenset, tuple)):
        return value
    try:
        return getattr(cls(), attribute)
    except Exception:
        return ()
