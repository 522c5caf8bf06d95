"""Methods and families of one's own on the command line, and what a verdict is asked for."""

import json

import pytest
from calls import call, call_json

OWN = '''
import dataclasses
import jax.numpy as jnp
import numpy as np
import jensen as jn
from jensen.algorithms.gaussian import Gaussian


@dataclasses.dataclass
class Guess(jn.methods.AbstractSolver):
    """A Gaussian of a given width."""

    width: float = 1.0

    def _solve(self, target, start, seed):
        return jn.methods.Solution(Gaussian(np.zeros(target.dim), self.width * np.eye(target.dim)))


class Narrow(jn.families.MeanField):
    """A mean field that starts narrow."""

    def __init__(self, shape=None, scale=0.01):
        super().__init__(shape, scale=scale)


def density(z):
    return -0.5 * jnp.sum(z**2)


model = jn.models.LogDensity(density, 2)
'''


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "own_methods.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["Guess", "Guess(width=1.0)", "own_methods:Guess", "own_methods:Guess(width=1.0)"])
def test_a_method_of_ones_own(place, name):
    found, _ = call_json("fit", place / "mine.py:model", "--method", name)
    assert found["method"] == "guess"
    assert found["verdict"] == "RELIABLE"
    assert {c["code"] for c in found["checks"]} >= {"khat", "ess", "shift"}


def test_a_family_of_ones_own(place):
    found, _ = call_json(
        "fit", place / "mine.py:model", "--family", "Narrow(scale=0.5)", "--n-steps", "20", "--n-draws", "64"
    )
    assert found["options"]["family"] == "Narrow"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("Nothing", "there is no such method"),
        ("own_methods:Nothing", "has no attribute"),
        ("no_such_module:Guess", "No module named"),
        ("own_methods:density", "there is no such method"),
        ("Guess(breadth=1)", "unexpected keyword"),
        ("Guess(width=-1.0)", "no positive number"),
    ],
)
def test_what_is_no_method(place, name, match):
    result = call("fit", place / "mine.py:model", "--method", name)
    assert result.exit_code == 2
    assert match in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_chooses_no_code(place):
    """A run's method of a module is code that the folder names: it is not run again by that name alone."""
    call_json("fit", place / "mine.py:model", "--method", "own_methods:Guess", "--out", place / "run")
    result = call("resume", place / "run")
    assert result.exit_code == 2
    assert "it is code, and the folder chose it" in result.stderr
    call_json("fit", place / "mine.py:model", "--method", "Guess", "--out", place / "other")
    assert call("resume", place / "other").exit_code == 0  # it is in the file that the run was begun with


@pytest.mark.parametrize(
    ("width", "options", "code"),
    [
        ("1.0", ["--require", "RELIABLE"], 0),
        ("0.3", ["--require", "reliable"], 3),
        ("0.3", ["--require", "UNRELIABLE"], 0),
        ("0.3", ["--strict"], 3),
        ("0.3", [], 0),
        ("1.0", ["--require", "GOOD"], 2),
    ],
)
def test_exit_codes_ask_for_a_verdict(place, width, options, code):
    result = call("fit", place / "mine.py:model", "--method", f"Guess(width={width})", *options)
    assert result.exit_code == code, result.output


def test_show_has_the_checks(place):
    found, _ = call_json("fit", place / "mine.py:model", "--method", "Guess", "--out", place / "run")
    shown = json.loads(call("show", place / "run", "--json").stdout)
    assert shown["checks"] == found["checks"]
