"""Every cell is refused with its reasons, or its value and gradient have the exact expectation.

By default the cells of a pairwise cover; with `--all` every one (about an hour on two cores).
"""

import functools

import equinox as eqx
import jax
import pytest
from cover import CELLS, REFUSALS, VALID, pairwise
from estimate import compare, estimates, sampler, threshold
from reference import exact

from jensen import cells
from jensen.batch import Batch
from jensen.errors import IncompatibleComposition, ModelError
from jensen.judge import Composition, check
from jensen.tree import split_trainable

COVER = pairwise(VALID)


def _n_numbers(cell) -> int:
    c = CELLS[cell][0]
    n = 1 + sum(a.size for a in jax.tree.leaves(split_trainable((c.model, c.family))[0]))
    return 2 * n  # a gradient with state is tested twice


THRESHOLD = threshold(sum(map(_n_numbers, VALID)))


@functools.lru_cache(maxsize=4)
def _reference(model, family, objective, n_samples):
    c, rows = next(
        CELLS[v] for v in VALID if v[:3] == (model, family, objective) and CELLS[v][0].n_samples == n_samples
    )
    return exact(c, rows)


@functools.lru_cache(maxsize=2)
def _sampler(cell_without_plan, n_samples):
    """One compilation serves all plans."""
    c, rows = next(CELLS[v] for v in VALID if v[:4] == cell_without_plan and CELLS[v][0].n_samples == n_samples)
    return sampler(c, rows)


def _marked(cell):
    return pytest.param(cell, id=str(cell), marks=() if cell in set(COVER) else pytest.mark.slow)


@pytest.mark.parametrize("cell", [_marked(c) for c in VALID])
def test_value_and_gradient_are_unbiased(cell):
    c, rows = CELLS[cell]
    reference = _reference(*cell[:3], c.n_samples)
    for samples in estimates(c, rows, str(cell), n=10_000, sample=_sampler(cell[:4], c.n_samples)):
        comparison = compare(samples, reference)
        assert comparison.within(THRESHOLD), f"{cell}: {comparison}, threshold {THRESHOLD:.2f}"


def test_the_refused_cells_say_why():
    told = {}
    for cell, why in REFUSALS.items():  # one cell of each set of reasons
        told.setdefault(tuple(why), cell)
    for cell in told.values():
        made = CELLS[cell][0]
        if isinstance(made, Composition):
            with pytest.raises(IncompatibleComposition) as caught:
                check(made)
            message = str(caught.value)
            assert all(part in message for part in ("cannot estimate", "needs: ", "because: ", "instead: ")), cell
        else:
            assert isinstance(made, ModelError)
            assert all(part in str(made) for part in ("wrong: ", "because: ", "instead: ")), cell


def test_the_noise_law_of_every_valid_family_reads_only_shapes():
    seen = set()
    for cell in VALID:
        made, rows = CELLS[cell]
        if cell[:2] not in seen and not made.model.plated:
            seen.add(cell[:2])
            spec = eqx.filter_eval_shape(made.family, Batch(rows))
            assert jax.tree.leaves(spec.noise(jax.random.key(0), (3,)))


def test_every_exported_class_has_an_example():
    missing = cells.missing()
    assert not missing, f"add an example in jensen/cell_examples.py: {missing}"


def test_a_class_without_an_example_is_noticed(monkeypatch):
    class New(type(cells.examples("objective")["ELBO()"].part)):
        pass

    monkeypatch.setattr("jensen.objectives.New", New, raising=False)
    assert cells.missing() == ["objective: New"]


def test_every_value_of_every_axis_is_in_the_default_run():
    for axis in range(5):
        assert {c[axis] for c in COVER} == {c[axis] for c in VALID}
