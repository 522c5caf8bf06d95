"""Algorithms: the compiled loop knows only `init` and `step`."""

import abc
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, PyTree

from ..batch import Batch


class AbstractAlgorithm(eqx.Module):
    """Iterative. Every array it holds is an argument of the compiled functions; every static field keys the cache.

    thorough: a longer compilation makes its steps faster.
    """

    thorough: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, key: Array, batch: Batch) -> PyTree:
        """The state: arrays only. `batch` is a first minibatch, for shapes."""

    @abc.abstractmethod
    def noise(self, key: Array, batch: Batch) -> PyTree:
        """Everything random in one step, from shapes alone: the loop may draw it for many steps in one call. An
        algorithm that cannot tell beforehand returns the key."""

    @abc.abstractmethod
    def step(self, noise: PyTree, state: PyTree, batch: Batch, scale: Array) -> tuple[PyTree, Array]:
        """(new state, value). `scale` multiplies the step size: the loop lowers it when progress stalls or steps fail.
        `value` is larger-is-better, in nats."""

    @abc.abstractmethod
    def parameters(self, state: PyTree) -> PyTree:
        """What iterate averaging averages."""

    @abc.abstractmethod
    def with_parameters(self, state: PyTree, parameters: PyTree) -> PyTree:
        """The state with those parameters in it."""
