"""docs/validity.md is what the judge says today."""

from pathlib import Path

import jax
import pytest

from jensen import cells


def test_the_page_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "validity.md"
    if not page.exists():
        pytest.skip("the documentation is not part of this installation")
    with jax.enable_x64(False):
        assert page.read_text() == cells.markdown(), "run: python -m jensen.cells > docs/validity.md"
