"""Adapters: models written for other libraries. The other library is imported when its adapter is called."""

from collections.abc import Callable


def from_numpyro(model: Callable, /, *args, **kwargs):
    """Any NumPyro model as a jensen model; see `jensen.models.adapters.numpyro.from_numpyro`."""
    from .numpyro import from_numpyro as build

    return build(model, *args, **kwargs)
