"""The house: what is public loads, files stay short, and what hides circles does not grow."""

import ast
import importlib
from pathlib import Path

import pytest

import jensen as jn

SOURCE = Path(jn.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
LAZY = sorted(p for p in FILES if p.name == "__init__.py" and "lazily(__name__)" in p.read_text())
MOST_LINES = 400
INNER_IMPORTS = 80  # of the package, inside functions: to become ten; none may be added
PROBES = 250  # hasattr and getattr: to become ten; none may be added


@pytest.mark.parametrize("path", LAZY, ids=lambda p: p.parent.name)
def test_every_public_name_loads(path):
    package = importlib.import_module(".".join(("jensen", *path.parent.relative_to(SOURCE).parts)))
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(AttributeError, match="no attribute"):
        package.nothing_of_the_kind  # noqa: B018


def test_the_front_door_shows_what_is_public():
    assert {"fit", "em", "load", "compare", "zoo", "methods", "testing", "from_numpyro"} <= set(dir(jn))
    assert not {"annotations", "lazily", "TYPE_CHECKING", "importlib"} & set(dir(jn))
    assert callable(jn.fit)
    importlib.import_module("jensen.fit.persist")
    assert callable(jn.fit)  # the package of that name has not taken its place


def test_files_stay_short():
    long = {str(p.relative_to(SOURCE)): n for p in FILES if (n := p.read_text().count("\n")) > MOST_LINES}
    assert not long


def test_what_hides_circles_and_undeclared_members_does_not_grow():
    inner = probes = 0
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                inner += sum(isinstance(x, ast.ImportFrom) and x.level > 0 for x in ast.walk(node))
            called = node.func if isinstance(node, ast.Call) else None
            probes += isinstance(called, ast.Name) and called.id in ("hasattr", "getattr")
    assert inner <= INNER_IMPORTS
    assert probes <= PROBES
