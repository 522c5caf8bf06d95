"""Methods by name: `"pathfinder"`, `"wake-wake"`, `"Pathfinder"`, as `jensen.methods` exports them."""

import functools
from typing import Any

from .. import methods
from ..algorithms.method import AbstractMethod, sentences_of
from ..errors import OptionError, explain


@functools.cache
def exported() -> dict[str, type[AbstractMethod]]:
    """{class name: class}."""
    found = {n: getattr(methods, n) for n in methods.__all__ if not n.startswith("Abstract")}
    return {n: c for n, c in found.items() if issubclass(c, AbstractMethod)}


def method_names() -> list[str]:
    """All names that `fit(method=...)` takes: of the classes, and of their variants."""
    return list(sentences())


def sentences() -> dict[str, str]:
    """{name: what the method does}, for someone who knows none."""
    return {name: said for cls in exported().values() for name, said in sentences_of(cls).items()}


def method_named(asked: Any, **options: Any) -> AbstractMethod:
    """The method from an object, a class or a name, the latter with options.   Raises: OptionError."""
    if isinstance(asked, AbstractMethod):
        return asked
    classes = [asked] if isinstance(asked, type) and issubclass(asked, AbstractMethod) else exported().values()
    name = asked if isinstance(asked, str) else getattr(asked, "__name__", "")
    for cls in classes:
        try:
            found = cls.called(name, **options)
        except TypeError as error:
            because, instead = f"{cls.__name__} is made with these arguments", f"jn.methods.{cls.__name__}(...)"
            raise OptionError(explain(f"method={asked!r}", str(error), because, instead)) from error
        if found is not None:
            return found
    instead = f"one of {method_names()}, or an object of jensen.methods"
    raise OptionError(explain(f"method={asked!r}", "there is no such method", "it is looked up by name", instead))
