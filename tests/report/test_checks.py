"""A verdict as data: codes, levels, values within limits; the same in a table, in JSON, and after loading."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jensen as jn
from jensen.diagnostics.checks import CODES, LEVELS, Check
from jensen.diagnostics.checks import page as checks_page
from jensen.methods.page import page as methods_page

SOURCE = Path(jn.__file__).parent
ROWS = np.random.default_rng(0).normal(size=(60, 2))
BITS = (ROWS > 0).astype(np.float32)


def normal(z):
    return -0.5 * jnp.sum(z**2)


def funnel(z):
    return -0.5 * (z[0] / 3) ** 2 - 0.5 * jnp.sum(z[1:] ** 2) * jnp.exp(-z[0]) - 0.5 * z[1:].size * z[0]


def improper(z):
    return -0.5 * z[0] ** 2


def decoder():
    return jn.models.LatentVariable.mlp(jax.random.key(0), 1, (2,), hidden=(3,))


FITS = {
    "ladder": lambda: jn.fit(jn.models.LogDensity(normal, 2)),
    "pathfinder of a funnel": lambda: jn.fit(jn.models.LogDensity(funnel, 5), method="pathfinder"),
    "few chains": lambda: jn.fit(jn.models.LogDensity(funnel, 5), method="hmc", budget="evaluations:6000"),
    "improper": lambda: jn.fit(jn.models.LogDensity(improper, 2), method="laplace"),
    "gradients": lambda: jn.fit(jn.models.LogDensity(normal, 2), family="full-rank", n_steps=300),
    "few steps": lambda: jn.fit(jn.models.LogDensity(funnel, 5), family="mean-field", n_steps=20, n_draws=60),
    "rows": lambda: jn.fit(decoder(), BITS, n_steps=20),
    "without a density": lambda: jn.fit(jn.models.LogDensity(normal, 2), family=jn.families.Implicit(), n_steps=30),
    "em": lambda: jn.em(jn.models.GaussianMixture(2), ROWS, n_iter=5, n_starts=1),
    "machine": lambda: jn.fit(jn.models.RBM(2, 3), BITS, n_steps=20),
}


@pytest.fixture(scope="module", params=FITS)
def fit(request):
    return FITS[request.param]()


def test_the_verdict_is_the_worst_level(fit):
    checks = fit.diagnosis.checks
    assert fit.verdict is LEVELS[max(c.level for c in checks)]
    assert all(c.code in CODES for c in checks)
    assert fit.reasons == [c.sentence for c in checks]
    passed = [c.level == 0 for c in checks]
    assert passed == sorted(passed)  # those that were not passed come first


def test_levels_are_what_values_and_limits_say(fit):
    """Where there is a number and its limits: smaller is better where the first limit is the smaller one."""
    for c in fit.diagnosis.checks:
        if np.isfinite([c.value, c.good]).all() and not np.isnan(c.usable) and c.code != "divergences":
            sign = 1 if c.good <= c.usable else -1
            assert (c.level == 0) == (sign * c.value <= sign * c.good), c


def test_the_table_and_the_dictionary_say_the_same(fit):
    table = fit.checks
    assert list(table.columns) == ["code", "level", "value", "good", "usable", "where", "sentence"]
    assert list(table.sentence) == fit.reasons
    assert set(table.level) <= set(map(str, LEVELS))
    assert all(table[name].dtype == float for name in ("value", "good", "usable"))
    found = json.loads(json.dumps(fit.to_dict(), allow_nan=False))
    assert found["verdict"] == str(fit.verdict)
    pd.testing.assert_frame_equal(pd.DataFrame(found["checks"]).astype(table.dtypes), table)


def test_they_are_kept(fit, tmp_path):
    again = jn.load(fit.save(tmp_path / "fit"))
    pd.testing.assert_frame_equal(again.checks, fit.checks)
    assert again.verdict is fit.verdict


def test_what_is_at_fault_is_named():
    table = FITS["improper"]().checks.set_index("code")
    assert table.loc["improper", "where"] == "z[1]"
    assert table.loc["improper", "level"] == "UNRELIABLE"
    table = FITS["pathfinder of a funnel"]().checks.set_index("code")
    assert table.loc["khat", "value"] > table.loc["khat", "good"]


def test_every_code_is_given_somewhere_and_every_one_that_is_given_is_known():
    """In the source: a code that nothing gives, or one without its line, is a mistake."""
    text = "".join(p.read_text() for p in SOURCE.rglob("*.py") if p.name != "checks.py")
    given = set(re.findall(r'(?:judge|judge\.notes|Check)\(\s*"(\w+)"', text))
    given |= set(re.findall(r'noted\([^"]*"(\w+)"', text)) | {"mean_error", "sd_error"}
    given |= {"few_draws", "model_parameters", "estimator", "step_size"}  # of `fit.driver`, by name
    assert given == set(CODES)
    for code, about in CODES.items():
        assert not about.endswith(".")
        assert re.fullmatch(r"[a-z_]+", code)


def test_a_check_is_a_row():
    row = Check("khat", 1, "Said.", 0.6, 0.5, float("inf"), "z").row()
    assert row == {
        "code": "khat", "level": "DOUBTFUL", "value": 0.6, "good": 0.5, "usable": None, "where": "z", "sentence": "Said.",
    }  # fmt: skip


# ---- pages ----------------------------------------------------------------------------------------------------------
DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("name", "page"), [("methods", methods_page), ("checks", checks_page)], ids=["methods", "checks"]
)
def test_a_generated_page_is_up_to_date(name, page):
    path = DOCS / f"{name}.md"
    if not path.exists():
        pytest.skip("the documentation is not part of this installation")
    assert path.read_text() == page(), "run: make docs"


def test_the_pages_method_of_ones_own_runs():
    code = methods_page().split("```python\n")[1].split("```")[0]
    names = {"__name__": "own_method"}
    exec(code, names)
    assert str(names["fit"].verdict) == "RELIABLE"
    np.testing.assert_allclose(names["fit"].family.loc, 1.0, atol=1e-6)
