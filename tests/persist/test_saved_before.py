"""Fits saved by the first format, which named parts by the files they were in: they load, and give the same bits."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jensen as jn
from jensen.fit.names import RENAMED, class_named, classes, name_of

SAVED = Path(__file__).parent / "saved_by_format_1"
ROWS = (np.random.default_rng(0).normal(size=(40, 2)) > 0)[:2].astype(np.float32)  # of the decoder's fit
SAMPLES = json.loads((SAVED / "samples.json").read_text())


@pytest.mark.parametrize("name", SAMPLES)
def test_it_loads_and_samples_the_same(name, tmp_path):
    meta = json.loads((SAVED / name / "fit.json").read_text())
    assert meta["format"] == "jensen-fit-1"
    data = ROWS if name == "decoder" else None
    fit = jn.load(SAVED / name, data=data)
    for again in (fit, jn.load(fit.save(tmp_path / "fit"), data=data)):
        for saved, drawn in zip(SAMPLES[name], jax.tree.leaves(again.sample(3, seed=1)), strict=True):
            np.testing.assert_array_equal(np.asarray(drawn, float), saved)
    written = (tmp_path / "fit" / "fit.json").read_text()
    assert '"jensen-fit-2"' in written
    assert '"jensen.' not in written  # no part is named by the file it is in
    assert '"equinox.nn._' not in written


def test_names_are_one_to_one_and_old_ones_lead_to_them():
    for name, kind in classes().items():
        assert name_of(kind) == name
        assert class_named(name) is kind
    assert all(new in classes() for new in RENAMED.values())
    assert class_named("jensen.families.mean_field:MeanField") is jn.families.MeanField
    assert class_named("jensen.families.anywhere_else:MeanField") is jn.families.MeanField
    assert class_named("jensen.objectives.mean_field:MeanField") is None
