"""posteriordb from disk: the layout of its repository, and that of a flat folder."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jensen.data.posteriordb import load_posteriordb
from jensen.errors import DataError

RNG = np.random.default_rng(0)
MU, THETA, COVARIANCE = RNG.normal(size=(2, 5)), RNG.normal(size=(2, 5, 3)), RNG.normal(size=(2, 5, 2, 2))
DATA = {"J": 3, "y": [28, 8, -3], "sigma": [15.0, 10.0, 16.5], "x": [[1, 2], [3, 4]], "none": []}
CODE = "data { int J; } parameters { real mu; vector[3] theta; matrix[2, 2] S; }"
NAME = "schools-schools_centered"


def write(path, content, zipped):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    if not zipped:
        path.write_text(text)
        return
    with zipfile.ZipFile(path.with_name(path.name + ".zip"), "w") as archive:
        archive.writestr(path.name, text)


@pytest.fixture(params=[True, False], ids=["zipped", "plain"])
def checkout(request, tmp_path):
    root, zipped = tmp_path / "posterior_database", request.param
    entry = {
        "name": NAME, "data_name": "schools", "model_name": "schools_centered",
        "reference_posterior_name": "schools-reference", "dimensions": {"mu": 1, "theta": 3, "S": 4},
    }  # fmt: skip
    write(root / "posteriors" / f"{NAME}.json", entry, False)
    alone = entry | {"name": "schools-alone", "reference_posterior_name": None}
    write(root / "posteriors" / "schools-alone.json", alone, False)
    write(root / "data" / "info" / "schools.info.json", {"data_file": "data/data/schools.json"}, False)
    write(root / "data" / "data" / "schools.json", DATA, zipped)
    implementations = {"stan": {"model_code": "models/stan/schools_centered.stan"}}
    write(root / "models/info/schools_centered.info.json", {"model_implementations": implementations}, False)
    write(root / "models" / "stan" / "schools_centered.stan", CODE, False)
    chains = [
        {"mu": MU[c].tolist()}
        | {f"theta[{i + 1}]": THETA[c, :, i].tolist() for i in range(3)}
        | {f"S[{i + 1},{j + 1}]": COVARIANCE[c, :, i, j].tolist() for j in range(2) for i in range(2)}
        for c in range(2)
    ]
    write(root / "reference_posteriors" / "draws" / "draws" / "schools-reference.json", chains, zipped)
    return tmp_path


@pytest.fixture
def flat(tmp_path):
    entry = {
        "name": NAME, "dimensions": {"mu": 1, "theta": 3, "S": 4}, "data_file": "data/schools.json",
        "stan_file": "stan/schools_centered.stan", "draws_file": "draws/schools.npz",
    }  # fmt: skip
    without = {k: v for k, v in entry.items() if k != "draws_file"} | {"name": "schools-alone"}
    write(tmp_path / "posteriors.json", [entry, without], False)
    write(tmp_path / "data" / "schools.json", DATA, False)
    write(tmp_path / "stan" / "schools_centered.stan", CODE, False)
    (tmp_path / "draws").mkdir()
    np.savez(tmp_path / "draws" / "schools.npz", mu=MU, theta=THETA, S=COVARIANCE)
    return tmp_path


def check(path):
    posterior = load_posteriordb(NAME, path)
    assert posterior.name == NAME and posterior.stan_code == CODE and posterior.n_chains == 2
    assert posterior.dimensions == {"mu": 1, "theta": 3, "S": 4}
    np.testing.assert_array_equal(posterior.draws["mu"], MU.reshape(10))
    np.testing.assert_array_equal(posterior.draws["theta"], THETA.reshape(10, 3))
    np.testing.assert_array_equal(posterior.draws["S"], COVARIANCE.reshape(10, 2, 2))
    assert posterior.data["J"] == 3 and posterior.data["y"].dtype.kind == "i" and posterior.data["none"].shape == (0,)
    np.testing.assert_array_equal(posterior.data["x"], [[1, 2], [3, 4]])
    alone = load_posteriordb("schools-alone", path)
    assert alone.draws == {} and alone.n_chains == 0 and alone.stan_code == CODE


def test_checkout(checkout):
    check(checkout)
    check(checkout / "posterior_database")


def test_early_versions_named_the_program_otherwise(checkout):
    info = checkout / "posterior_database" / "models" / "info" / "schools_centered.info.json"
    info.write_text(json.dumps({"model_code": {"stan": "models/stan/schools_centered.stan"}}))
    check(checkout)
    info.write_text(json.dumps({"model_implementations": {"pymc": {"model_code": "models/pymc/schools.py"}}}))
    refused("no Stan program", NAME, checkout)


def test_flat(flat):
    check(flat)


def refused(match, *arguments):
    with pytest.raises(DataError, match=match) as error:
        load_posteriordb(*arguments)
    assert all(f"{p}:" in str(error.value) for p in ("wrong", "because", "instead"))


def test_refused(checkout):
    root = checkout / "posterior_database"
    refused(NAME, "schools_centered", checkout)
    refused("none of that name", "../posteriors/" + NAME, checkout)
    refused("neither", NAME, checkout / "nothing")
    (root / "models" / "stan" / "schools_centered.stan").unlink()
    refused(r"schools_centered.stan.*\n.*FileNotFoundError", NAME, checkout)
    info = root / "data" / "info" / "schools.info.json"
    info.write_text("{")
    write(root / "models" / "stan" / "schools_centered.stan", CODE, False)
    refused("JSONDecodeError", NAME, checkout)
    info.write_text('{"data_file": "../../outside.json"}')
    refused("outside of", NAME, checkout)


def test_a_damaged_archive_is_refused(flat):
    (flat / "draws" / "schools.npz").write_bytes(b"not an archive")
    refused("cannot be read", NAME, flat)


def test_every_posterior_of_the_data_folder():
    """Shapes, names and data of all of them; means of one against its published ones."""
    if not os.environ.get("JENSEN_DATA"):
        pytest.skip("JENSEN_DATA is not set")
    folder = Path(os.environ["JENSEN_DATA"]) / "posteriordb"
    entries = json.loads((folder / "posteriors.json").read_text())
    for entry in entries:
        posterior = load_posteriordb(entry["name"], folder)
        assert "parameters" in posterior.stan_code and posterior.data
        for name, draws in posterior.draws.items():
            assert np.isfinite(draws).all() and len(draws) % posterior.n_chains == 0
            if name in posterior.dimensions:
                assert draws[0].size == posterior.dimensions[name]
    schools = load_posteriordb("eight_schools-eight_schools_noncentered", folder)
    assert len(schools.draws["mu"]) == 10_000 and abs(schools.draws["mu"].mean() - 4.4) < 0.2
