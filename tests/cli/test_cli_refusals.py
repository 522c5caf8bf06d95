"""What is wrong in a call is told in four parts, without a traceback, with exit code 2."""

import json

import numpy as np
import pytest
from calls import QUICK, call


def refused(*arguments, match):
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout in ("", "a model file that prints\n")
    for part in ("wrong:", "because:", "instead:", match):
        assert part in result.stderr
    assert "Traceback" not in result.stderr
    return result


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("nowhere.py", "there is no such file"),
        ("xy.csv", "it is not a Python file"),
        ("models.py", "regression, closed"),
        ("models.py:nope", "there is no `nope` in it; it defines density, rows, regression, closed"),
        ("models.py:number", "it is a int"),
        ("models.py:broken", "ZeroDivisionError"),
        ("syntax.py", "SyntaxError"),
        ("raises.py", "RuntimeError: no luck"),
        ("empty.py", "it defines no model"),
        ("models.py:regression", "it raised"),
    ],
)
def test_models(place, model, match):
    (place / "syntax.py").write_text("def model(:\n")
    (place / "raises.py").write_text("raise RuntimeError('no luck')\n")
    (place / "empty.py").write_text("x = 1\n")
    refused("fit", place / model, match=match)


def test_only_model_needs_no_name(place):
    refused("fit", place / "one.py", match="anything")  # found, and run without data


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("regression", "nowhere.csv", "there is no such file"),
        ("regression", "models.py", ".csv, .npy, .npz, .parquet"),
        ("regression", "other.npz", "no column for the parameters x; the file has y, z"),
        ("rows", "text.csv", "columns that are not numbers: b"),
        ("rows", "nan.npy", "not finite"),
    ],
)
def test_data(place, name, data, match):
    np.savez(place / "other.npz", y=np.ones(3), z=np.ones(3))
    (place / "text.csv").write_text("a,b\n1,x\n2,y\n")
    np.save(place / "nan.npy", np.full((3, 2), np.nan))
    refused("fit", f"{place}/models.py:{name}", "--data", place / data, match=match)


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("--family", "nope", "there is no such part"),
        ("--family", "LowRank(rank=", "--family"),
        ("--family", "LowRank(nope=1)", "unexpected keyword argument 'nope'"),
        ("--family", "LowRank(rank=0)", "the rank is below 1"),
        ("--objective", "__import__('os')", "--objective"),
        ("--gradient", "enumerate", "support can be listed"),
        ("--plan", "iidd", "there is no such part"),
        ("--optimizer", "adam", "it is not a positive step size"),
        ("--optimizer", "adam:-1", "it is not a positive step size"),
        ("--optimizer", "nadir:0.1", "it is not a positive step size"),
        ("--n-steps", "0", "it is not a positive whole number"),
        ("--batch-size", "3", "there are no rows to divide"),
    ],
)
def test_options(place, option, value, match):
    result = call("fit", f"{place}/models.py:density", option, value)
    assert result.exit_code == 2, result.output
    assert match in result.stderr
    assert "Traceback" not in result.stderr


def test_unknown_option_and_command():
    assert call("fit", "m.py", "--nope").exit_code == 2
    assert call("nope").exit_code == 2
    refused("list", "colour", match="there is no such axis")


def test_folders(place, finished, tmp_path):
    refused("show", tmp_path, match="fit.json")
    refused("report", tmp_path / "x", match="no such folder")
    refused("resume", tmp_path, match="run.json")
    (tmp_path / "run.json").write_text("{")
    refused("resume", tmp_path, match="run.json")
    out = ["--out", finished[1]]
    refused("fit", f"{place}/models.py:density", *out, *QUICK, match="holds another run")
    assert json.loads((finished[1] / "run.json").read_text())["model"].endswith(":regression")


def test_data_that_changed(place, tmp_path):
    """A checkpoint of other data is not gone on from."""
    np.save(tmp_path / "d.npy", np.ones((5, 2)))
    arguments = ["fit", f"{place}/models.py:rows", "--data", tmp_path / "d.npy", "--out", tmp_path / "run", *QUICK]
    assert call(*arguments).exit_code == 0
    np.save(tmp_path / "d.npy", np.zeros((5, 2)))
    refused("resume", tmp_path / "run", match="another model, data, seed")


def test_debug_shows_the_traceback(place):
    result = call("fit", place / "nowhere.py", "--debug")
    assert result.exception is not None
    assert type(result.exception).__name__ == "ModelError"


def test_fit_is_shown_if_it_cannot_be_saved(place, tmp_path, monkeypatch):
    from jensen.errors import CheckpointError
    from jensen.fit import persist

    def full(fit, folder):
        raise CheckpointError("writing:\n  - wrong: No space left\n    because: x\n    instead: y")

    monkeypatch.setattr(persist, "save", full)
    result = call("fit", f"{place}/models.py:density", "--out", tmp_path / "r", *QUICK, "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["saved"] is None
    assert "No space left" in result.stderr
