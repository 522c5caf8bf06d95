"""Options of the command line, as objects: `LowRank(rank=3)`, `adam:1e-3`."""

import ast
import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..errors import OptionError, explain

OPTIMIZERS = (
    "adam", "adamw", "sgd", "rmsprop", "adagrad", "adabelief", "adamax", "lamb", "lion", "nadam", "radam", "yogi",
)  # fmt: skip

NONE: Mapping[str, type] = MappingProxyType({})


def part(axis: str, text: str | None, own: Mapping[str, type] = NONE) -> Any:
    """A part by its name, with literal arguments if any: `full-rank`, `Renyi(alpha=0.5)`. None and gradient "auto" stay as
    they are. own: further classes, of the model's file."""
    from .. import families, gradients, objectives
    from ..fit.defaults import BASES, exported, named
    from ..gradients import plans

    if text is None or (axis == "gradient" and text.lower() == "auto"):
        return text
    choices = exported({"family": families, "objective": objectives, "gradient": gradients, "plan": plans}[axis])
    base = BASES[axis]
    choices |= {n: c for n, c in own.items() if issubclass(c, base) and c is not base}
    choices = {n: c for n, c in choices.items() if not n.startswith("Abstract")}
    name, bracket, _ = text.partition("(")
    if not bracket:
        return named(axis, text, choices)
    arguments = _arguments(axis, text)
    lookup = {n: (lambda c=c: c(**arguments)) for n, c in choices.items()}
    try:
        return named(axis, name.strip(), lookup)
    except TypeError as error:
        asked, because = f"--{axis} {text!r}", "the arguments go to the class"
        raise OptionError(explain(asked, str(error), because, f"see `jensen list {axis}`")) from error


def method(text: str | None, own: Mapping[str, type] = NONE) -> Any:
    """A method by its name, with literal arguments if any: `VCD(n_steps=4)`; one of the model's file (`own`); or of a
    module: `my_module:MyMethod(n=3)`."""
    from ..methods.lookup import method_named

    if text is None:
        return None
    name, bracket, _ = text.partition("(")
    where, colon, name = name.strip().rpartition(":")
    arguments = _arguments("method", text[len(where) + len(colon) :]) if bracket else {}
    found = _of_module(where, name) if colon else own.get(name, name)
    return method_named(found, **arguments)


def of_module(text: str | None) -> bool:
    """Is this the name of a method in a module: code that the text chooses?"""
    return text is not None and ":" in text.partition("(")[0]


def _of_module(where: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(where), name)
    except (ImportError, AttributeError) as error:
        asked, because = f"--method {where}:{name}", "the name after the colon is looked up in the module before it"
        instead = "a module that can be imported; or a class in the model's file, by its name alone"
        raise OptionError(explain(asked, str(error), because, instead)) from error


def _arguments(axis: str, text: str) -> dict[str, Any]:
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("it is not a name with keyword arguments")
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError) as error:
        because, instead = "arguments are literal numbers, strings and tuples", "LowRank(rank=3), in quotes"
        raise OptionError(explain(f"--{axis} {text!r}", str(error), because, instead)) from error


def optimizer(text: str | None) -> Any:
    """A step size (for Adam), or `name:step_size` of an Optax optimiser; None: chosen by trial."""
    if text is None:
        return None
    name, colon, size = text.rpartition(":")
    try:
        step_size = float(size)
        known = not colon or name.lower() in OPTIMIZERS
    except ValueError:
        step_size, known = float("nan"), False
    if not known or not 0 < step_size < float("inf"):
        wrong = "it is not a positive step size, or an optimiser's name and one"
        instead = f"1e-3, or adam:1e-3 (one of {', '.join(OPTIMIZERS)}); left out, the step size is chosen by trial"
        raise OptionError(explain(f"--optimizer {text!r}", wrong, "steps go downhill", instead))
    if not colon:
        return step_size
    import optax

    return getattr(optax, name.lower())(step_size)
