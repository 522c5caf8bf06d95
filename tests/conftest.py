"""What every test shares: slow tests on request, and double precision where numbers are compared with exact ones."""

import gc

import jax
import pytest

_DOUBLE = {"conformance", "laws", "exact", "refusals"}


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--all") or "slow" in config.getoption("-m", ""):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)


@pytest.fixture(autouse=True)
def _double_precision(request):
    if request.path.parent.name not in _DOUBLE:
        yield
        return
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def _bounded_memory():
    """Every executable holds memory mappings, of which a process may have only so many: those of a file go with it."""
    yield
    jax.clear_caches()
    gc.collect()
