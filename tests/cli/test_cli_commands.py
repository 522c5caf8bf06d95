"""Each command does its work, and says so in the form that was asked for."""

import json

import numpy as np
import pytest
from calls import QUICK, call

import jensen as jn


def strict_json(text):
    return json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))


def test_fit_json(finished):
    result, folder = finished
    found = strict_json(result.stdout)  # one object and nothing else, though the model file prints
    assert "a model file that prints" in result.stderr
    assert found["verdict"] in ("RELIABLE", "DOUBTFUL", "UNRELIABLE")
    assert found["reasons"]
    assert set(found["summary"]) == {"slope", "scale"}
    assert found["n_steps"] == 40
    assert found["saved"] == str(folder)
    assert {p.name for p in folder.iterdir()} == {"arrays.jensen", "checkpoint", "fit.json", "run.json"}


def test_show(finished):
    fitted, folder = finished
    shown = call("show", folder, "--json")
    assert strict_json(shown.stdout) == strict_json(fitted.stdout) | {"saved": str(folder)} | {
        "options": strict_json(shown.stdout)["options"]
    }
    text = call("show", folder).stdout
    assert text.splitlines()[0].split()[0] in ("RELIABLE", "DOUBTFUL", "UNRELIABLE")
    assert "slope" in text
    assert "\x1b" not in text  # plain when not a terminal


def test_resume_of_a_finished_run(finished):
    before = jn.load(finished[1])
    result = call("resume", finished[1], "--json")
    assert result.exit_code == 0, result.output
    after = jn.load(finished[1])
    np.testing.assert_array_equal(before.history, after.history)
    np.testing.assert_equal(before.sample(3), after.sample(3))


def test_loads_in_python(finished):
    fit = jn.load(finished[1])
    assert set(fit.sample(2)) == {"slope", "scale"}


def test_double_precision(place, tmp_path):
    """`show` and `resume` need no option to read it; the precision of this process is put back."""
    import jax

    run = ["fit", f"{place}/models.py:density", "--out", tmp_path / "run", "--x64", *QUICK]
    try:
        assert call(*run).exit_code == 0
        assert jn.load(tmp_path / "run").log_p.dtype == np.float64
        for command in ("show", "resume"):
            jax.config.update("jax_enable_x64", False)
            assert call(command, tmp_path / "run").exit_code == 0
    finally:
        jax.config.update("jax_enable_x64", False)


def test_report(finished, tmp_path):
    pytest.importorskip("jensen.report.html")
    result = call("report", finished[1], "--out", tmp_path / "r.html")
    assert result.exit_code == 0, result.output
    assert "<html" in (tmp_path / "r.html").read_text()
    assert str(tmp_path / "r.html") in result.stdout
    assert "predictive check:" not in result.stderr


@pytest.mark.parametrize(
    ("name", "data", "parameters"),
    [("closed", None, {"mu"}), ("rows", "rows.npy", {"z[0]", "z[1]"}), ("factory", None, {"z[0]", "z[1]"})],
)
def test_kinds_of_model(place, name, data, parameters):
    given = [] if data is None else ["--data", place / data]
    result = call("fit", f"{place}/models.py:{name}", *given, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    assert set(strict_json(result.stdout)["summary"]) == parameters


def test_plain_output_and_strict(place):
    """Zero steps from a narrow start: UNRELIABLE, exit code 3 only with --strict."""
    bad = ["--n-steps", "1", "--optimizer", "1e-6", "--family", "MeanField(scale=1e-3)", "--n-draws", "512"]
    result = call("fit", f"{place}/models.py:density", *bad, "--strict")
    assert result.stdout.splitlines()[1].startswith("UNRELIABLE")
    assert result.exit_code == 3
    assert call("fit", f"{place}/models.py:density", *bad).exit_code == 0


def test_list():
    result = call("list")
    assert result.exit_code == 0
    for name in ("MeanField", "IWAE", "LeaveOneOut", "Antithetic", "LatentVariable"):
        assert name in result.stdout
    found = strict_json(call("list", "family", "--json").stdout)
    assert list(found) == ["family"]
    row = next(r for r in found["family"] if r["name"] == "FullRank")
    assert "REPARAMETERISED" in row["facts"]
    assert all(r["about"] for r in found["family"])
    assert not any(r["name"].startswith("Abstract") for r in strict_json(call("list", "plan", "--json").stdout)["plan"])


def test_validity(monkeypatch):
    from jensen import cells

    monkeypatch.setattr(cells, "validity_table", lambda: [{"valid": True}])
    monkeypatch.setattr(cells, "markdown", lambda: "# a page")
    assert strict_json(call("list", "--validity", "--json").stdout) == [{"valid": True}]
    assert call("list", "--validity").stdout == "# a page\n"


def test_help_says_how_data_are_passed():
    text = " ".join(call("fit", "--help").stdout.split())
    assert "named like columns" in text
    assert "Exit codes" in text
    assert call("--help").exit_code == 0


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ("full-rank", "FullRank()"),
        ("LowRank(rank=3)", "LowRank(rank=3)"),
        ("MeanField(scale=0.5)", "MeanField(scale=0.5)"),
    ],
)
def test_parts_by_name(asked, made):
    from jensen.cli.choices import part

    assert part("family", asked) == eval(f"jn.families.{made}")


def test_optimizers():
    from jensen.cli.choices import OPTIMIZERS, optimizer

    assert optimizer(None) is None
    assert optimizer("1e-3") == 1e-3
    for name in OPTIMIZERS:
        assert hasattr(optimizer(f"{name}:1e-3"), "update")
