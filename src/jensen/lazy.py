"""Public names that are loaded when they are first used (PEP 562)."""

import ast
import importlib
import sys
from collections.abc import Callable
from typing import Any


def lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """(`__getattr__`, `__dir__`, `__all__`) of a package, for the names that its `if TYPE_CHECKING:` block imports.

    That block is the one list of what is public: type checkers read it, and so does this.
    """
    home = dict(_imported(package))

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = home[name]
        found = importlib.import_module(f".{attribute}" if module == "." else module, package)
        value = found if module == "." else getattr(found, attribute)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *home}), list(home)


def _imported(package: str) -> list[tuple[str, tuple[str, str]]]:
    """[(public name, (module relative to the package, name there))]; a module itself is imported from "."."""
    spec = sys.modules[package].__spec__
    source = getattr(getattr(spec, "loader", None), "get_source", lambda _: None)(package)
    if source is None:
        raise ImportError(f"the source of {package} is needed for its public names, and is not there")
    tree = ast.parse(source)
    blocks = [n.body for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    lines = [n for body in blocks for n in body if isinstance(n, ast.ImportFrom)]
    return [(a.asname or a.name, ("." * n.level + (n.module or ""), a.name)) for n in lines for a in n.names]
