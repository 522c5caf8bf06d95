"""From what a user passes to a model: an `AbstractModel`, a PyMC model, or a NumPyro function and its arguments."""

import sys
from typing import Any

from ..errors import ModelError, explain
from .base import AbstractModel


def as_model(model: Any, data: Any) -> tuple[AbstractModel, Any]:
    """(model, rows): for a NumPyro function `data` are its arguments (tuple: positional, dict: keywords, else the one).

    Raises: ModelError where `model` is not a model, or data are given to a model that already holds them or takes none,
            or not given to one that takes them.
    """
    if isinstance(model, AbstractModel):
        own = getattr(model, "rows", None)
        holds = hasattr(model, "rows")
        if data is not None and holds:
            raise _holds_data(model, "they are the arguments it was made with", "fit(model), or fit(function, data)")
        wants = getattr(model, "wants_data", None)
        if wants is False and data is not None:
            because, instead = "they would have no effect", f"fn(z, data) for `{type(model).__name__}`; or fit(model)"
            raise _data(
                model, "the model's function takes none (arguments with defaults are its own)", because, instead
            )
        if wants is True and data is None and not model.plated:  # these say it themselves
            raise _data(model, "data is None", "the model's function takes data", "fit(model, data)")
        return model, own if holds else data
    pymc = sys.modules.get("pymc")  # whoever has one of its models has imported it
    if pymc is not None and isinstance(model, getattr(pymc, "Model", ())):
        if data is not None:
            raise _holds_data(model, "they are its observed variables", "fit(model); pymc.set_data for other data")
        from .adapters.pymc import from_pymc

        return from_pymc(model), None
    if isinstance(model, type) or not callable(model):
        what = f"a {type(model).__name__}" if not isinstance(model, type) else f"the class {model.__name__}"
        raise ModelError(
            explain(
                f"`fit({what})`",
                "it is not a model",
                "fit needs a log joint density of latents and data",
                "a NumPyro model function, a pymc.Model, jensen.models.LogDensity(fn, shape), or "
                "jensen.models.LatentVariable(...)",
            )
        )
    from .adapters.numpyro import from_numpyro

    args, kwargs = ((), {})
    if isinstance(data, dict):
        kwargs = data
    elif isinstance(data, tuple):
        args = data
    elif data is not None:
        args = (data,)
    made = from_numpyro(model, *args, **kwargs)
    return made, made.rows


def _holds_data(model: Any, because: str, instead: str) -> ModelError:
    return _data(model, "the model already holds its data", because, instead)


def _data(model: Any, wrong: str, because: str, instead: str) -> ModelError:
    return ModelError(explain(f"`fit(model, data)` with a {type(model).__name__}", wrong, because, instead))
