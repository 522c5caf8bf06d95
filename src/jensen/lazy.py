"""Public names that are loaded when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazily(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list], list[str]]:
    """(`__getattr__`, `__dir__`, `__all__`) of a package that exports these names.

    names:  {module, relative to the package: its public names}; a name that is itself the module's: `{"zoo": ["zoo"]}`.
    """
    home = {name: module for module, own in names.items() for name in own}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(home[name] if home[name].startswith(".") else f".{home[name]}", package)
        value = module if home[name] == name else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *home}), list(home)
