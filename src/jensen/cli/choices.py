"""Options of the command line, as objects: `LowRank(rank=3)`, `adam:1e-3`."""

import ast
from typing import Any

from ..errors import OptionError, explain

OPTIMIZERS = (
    "adam", "adamw", "sgd", "rmsprop", "adagrad", "adabelief", "adamax", "lamb", "lion", "nadam", "radam", "yogi",
)  # fmt: skip


def part(axis: str, text: str | None) -> Any:
    """A part by its name, with literal arguments if any: `full-rank`, `Renyi(alpha=0.5)`. None and
    gradient "auto" stay as they are."""
    from .. import families, gradients, objectives
    from ..fit.defaults import exported, named
    from ..gradients import plans

    if text is None or (axis == "gradient" and text.lower() == "auto"):
        return text
    choices = exported({"family": families, "objective": objectives, "gradient": gradients, "plan": plans}[axis])
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


def method(text: str | None) -> Any:
    """A method by its name, or with options as an object of `jensen.methods`: `VCD(n_steps=4)`."""
    if text is None or "(" not in text:
        return text
    from .. import methods

    choices = {n: c for n, c in vars(methods).items() if isinstance(c, type) and issubclass(c, methods.AbstractMethod)}
    choices = {n.lower(): c for n, c in choices.items() if not n.startswith("Abstract")}
    name = text.partition("(")[0].strip().lower().replace("-", "").replace("_", "")
    if name not in choices:
        because, instead = "these take options", f"one of {[c.__name__ for c in choices.values()]}"
        raise OptionError(explain(f"--method {text!r}", "there is no such method with options", because, instead))
    try:
        return choices[name](**_arguments("method", text))
    except TypeError as error:
        raise OptionError(
            explain(f"--method {text!r}", str(error), "the arguments go to the class", "VCD(n_steps=4)")
        ) from error


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
