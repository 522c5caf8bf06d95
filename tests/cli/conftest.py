"""A folder with models and data, and one finished run in it."""

import numpy as np
import pandas as pd
import pytest
from calls import MODELS, ONE, QUICK, call


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "models.py").write_text(MODELS)
    (folder / "one.py").write_text(ONE)
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    pd.DataFrame({"x": x, "y": 2 * x + 0.1 * rng.normal(size=20), "extra": 1.0}).to_csv(folder / "xy.csv", index=False)
    np.save(folder / "rows.npy", rng.normal(1, 1, (30, 2)))
    return folder


@pytest.fixture(scope="session")
def finished(place):
    """(result, folder) of a fit of a NumPyro function to columns of a .csv."""
    result = call(
        "fit", f"{place}/models.py:regression", "--data", place / "xy.csv", "--out", place / "run", "--json", *QUICK
    )
    assert result.exit_code == 0, result.output
    return result, place / "run"
