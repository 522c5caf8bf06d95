"""Every cell is refused with its reasons, or its value and gradient have the exact expectation.

By default the cells of a pairwise cover; with `--all` every one (about an hour on two cores).
"""

import equinox as eqx
import jax
import pytest
from cover import COVER, composed, everything, pairwise, valid
from estimate import THRESHOLD, compare, estimates, sampler
from reference import exact

import jensen as jn
from jensen import cells
from jensen.batch import Batch
from jensen.errors import IncompatibleComposition, ModelError
from jensen.judge import Composition, check

all_cells = pytest.mark.xdist_group("judge")  # one worker makes them all


def pytest_generate_tests(metafunc):
    if "cell" in metafunc.fixturenames:
        chosen = valid() if metafunc.config.getoption("--all") else COVER
        metafunc.parametrize("cell", chosen, ids=str)


class Latest(dict):
    """What was made last, a key: neighbours share it."""

    def of(self, key, make):
        if key not in self:
            self.clear()
            self[key] = make()
        return self[key]


REFERENCES, SAMPLERS = Latest(), Latest()


def test_value_and_gradient_are_unbiased(cell, request):
    c, rows = composed(cell)
    every = request.config.getoption("--all")  # then one compilation serves all plans
    reference = REFERENCES.of((*cell[:3], c.n_samples), lambda: exact(c, rows))
    key = (*cell[: 4 if every else 5], c.n_samples)
    sample = SAMPLERS.of(key, lambda: sampler(c, rows, shared=every))
    for samples in estimates(c, rows, str(cell), n=10_000, sample=sample):
        comparison = compare(samples, reference)
        assert comparison.within(THRESHOLD), f"{cell}: {comparison}, threshold {THRESHOLD:.2f}"


@all_cells
def test_the_refused_cells_say_why():
    told = {}
    for cell, made, _, why in everything():  # one cell of each set of reasons
        told.setdefault(tuple(why), (cell, made))
    told.pop(())
    for cell, made in told.values():
        if isinstance(made, Composition):
            with pytest.raises(IncompatibleComposition) as caught:
                check(made)
            message = str(caught.value)
            assert all(part in message for part in ("cannot estimate", "needs: ", "because: ", "instead: ")), cell
        else:
            assert isinstance(made, ModelError)
            assert all(part in str(made) for part in ("wrong: ", "because: ", "instead: ")), cell


@all_cells
def test_the_noise_law_of_every_valid_family_reads_only_shapes():
    seen = set()
    for cell, made, setting, why in everything():
        if not why and cell[:2] not in seen and not made.model.plated:
            seen.add(cell[:2])
            spec = eqx.filter_eval_shape(made.family, Batch(setting.rows))
            assert jax.tree.leaves(spec.noise(jax.random.key(0), (3,)))


def test_every_exported_class_has_an_example():
    missing = cells.missing()
    assert not missing, f"add an example in jensen/cell_examples.py: {missing}"


def test_a_class_without_an_example_is_noticed(monkeypatch):
    class New(type(cells.examples("objective")["ELBO()"].part)):
        pass

    monkeypatch.setattr("jensen.objectives.New", New, raising=False)
    monkeypatch.setattr("jensen.objectives.__all__", [*jn.objectives.__all__, "New"])
    assert cells.missing() == ["objective: New"]


@all_cells
def test_the_default_run_covers_all_pairs():
    assert pairwise(valid()) == COVER, "run: python tests/conformance/cover.py"
    for axis in range(5):
        assert {c[axis] for c in COVER} == {c[axis] for c in valid()}
