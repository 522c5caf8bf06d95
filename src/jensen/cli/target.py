"""MODEL.py:NAME: a Python file, and the model in it."""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import JensenError, ModelError, explain


class Target(NamedTuple):
    """What MODEL.py:NAME stands for. `data`: those of a factory; `is_function`: it takes data as its arguments."""

    model: Any
    data: Any
    is_function: bool


def split(text: str) -> tuple[Path, str | None]:
    """(file, name or None)."""
    if ":" not in text or Path(text).is_file():
        return Path(text), None
    file, _, name = text.rpartition(":")
    return Path(file), name or None


def load_target(text: str) -> Target:
    """Imports the file and resolves the name.

    Raises:  ModelError if the file or name is missing, the file fails, or nothing says which of several is meant.
    """
    path, name = split(text)
    module = import_file(path)
    found = _by_name(module, path, name) if name else _only(module, path)
    return _resolve(found, f"{path}:{name or getattr(found, '__name__', type(found).__name__)}")


def classes_in(text: str) -> dict[str, type]:
    """The classes that the model's file defines or imports, which `load_target` has run."""
    module = sys.modules[_module_name(split(text)[0])]
    return {name: value for name, value in _public(module).items() if isinstance(value, type)}


def _module_name(path: Path) -> str:
    return f"_jensen_model_{path.stem}"


def _refuse(asked: str, wrong: str, because: str, instead: str) -> ModelError:
    return ModelError(explain(asked, wrong, because, instead))


def import_file(path: Path) -> ModuleType:
    asked = f"the model `{path}`"
    if not path.is_file():
        raise _refuse(asked, "there is no such file", "the model is read from it", "jensen fit path/to/model.py:name")
    if path.suffix != ".py":
        raise _refuse(asked, "it is not a Python file", "a model is Python code", "a file that ends in .py")
    name = _module_name(path)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python model.py` has it, for modules beside the model
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except JensenError:
        raise
    except Exception as error:
        wrong = f"importing it raised {type(error).__name__}: {error}"
        raise _refuse(asked, wrong, "the model is what the file defines", f"make `python {path}` run") from error
    return module


def is_model(value: Any) -> bool:
    """A jensen model, of those with a q or of those fitted in a way of their own."""
    return not isinstance(value, type) and getattr(type(value), "default_method", None) is not None


def _public(module: ModuleType) -> dict[str, Any]:
    return {n: v for n, v in vars(module).items() if not n.startswith("_")}


def _own_functions(module: ModuleType) -> dict[str, Any]:
    """Those that the file itself defines."""
    own = lambda v: inspect.isfunction(v) and v.__module__ == module.__name__
    return {n: v for n, v in _public(module).items() if own(v)}


def _candidates(module: ModuleType) -> dict[str, Any]:
    """jensen models, and functions that sample; if there are none, any function (it may return a model)."""
    functions = _own_functions(module)
    samples = {n: f for n, f in functions.items() if {"sample", "factor"} & set(f.__code__.co_names)}
    models = {n: v for n, v in _public(module).items() if is_model(v)}
    return models | samples or functions


def _by_name(module: ModuleType, path: Path, name: str) -> Any:
    public = vars(module)
    if name not in public:
        known = list(_candidates(module) | _own_functions(module))
        wrong = f"there is no `{name}` in it; it defines {', '.join(known) or 'no model'}"
        because, instead = (
            "the name after the colon is looked up in the file",
            f"jensen fit {path}:{(*known, 'model')[0]}",
        )
        raise _refuse(f"the model `{path}:{name}`", wrong, because, instead)
    return public[name]


def _only(module: ModuleType, path: Path) -> Any:
    found = _candidates(module)
    if len(found) == 1 or "model" in found:
        return found.get("model", next(iter(found.values())))
    wrong = f"it defines {len(found)}: {', '.join(found)}" if found else "it defines no model and no function"
    example = next(iter(found), "model")
    raise _refuse(f"the model in `{path}`", wrong, "exactly one can be fitted", f"jensen fit {path}:{example}")


def _resolve(found: Any, label: str) -> Target:
    """A model; a factory's model; a NumPyro function."""
    if is_model(found):
        return Target(found, None, False)
    if not callable(found) or isinstance(found, type):
        what = f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
        instead = "a NumPyro function, a jensen model, or a function without arguments that returns a model"
        raise _refuse(f"the model `{label}`", f"it is {what}", "it cannot be fitted", instead)
    parameters = inspect.signature(found).parameters.values()
    if any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return Target(found, None, True)
    return _call(found, label, required=not parameters)


def _call(found: Any, label: str, *, required: bool) -> Target:
    """A function without required arguments: if it samples it is a NumPyro model, else what it returns is the model."""
    from numpyro import handlers

    try:
        with handlers.trace() as trace, handlers.seed(rng_seed=0):
            made = found()
    except Exception as error:
        if isinstance(error, JensenError) or not required:
            if required:
                raise
            return Target(found, None, True)  # a NumPyro function whose data have defaults, such as None
        wrong = f"calling it raised {type(error).__name__}: {error}"
        raise _refuse(f"the model `{label}`", wrong, "it is called to get the model", "make that call work") from error
    if trace:
        return Target(found, None, True)
    model, data = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not (is_model(model) or callable(model)):
        wrong = f"it has no numpyro.sample site and returns {'nothing' if made is None else f'a {type(made).__name__}'}"
        raise _refuse(f"the model `{label}`", wrong, "nothing can be fitted", "return model, or return model, data")
    return Target(model, data, not is_model(model))
