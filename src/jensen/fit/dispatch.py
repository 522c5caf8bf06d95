"""Models with a way of fitting of their own: what `fit` hands on before anything else."""

from typing import Any

from ..errors import OptionError, explain
from ..models.boltzmann import AbstractBoltzmann
from ..models.em import AbstractEM

OWN = (AbstractBoltzmann, AbstractEM)
OF_ALL = "batch_size", "seed", "budget", "progress", "checkpoint", "checkpoint_seconds", "on_chunk"
OF_ENERGIES = "method", "optimizer", "n_steps", *OF_ALL
OF_EM = {"n_steps": "n_iter", "n_restarts": "n_starts"} | {name: name for name in OF_ALL}
"""`fit`'s name of an option -> `jensen.em`'s."""


def dispatched(model: Any, data: Any, given: dict[str, Any]) -> Any:
    """The result, for a model that is fitted in a way of its own; None for the rest.

    given: the options that the user set.   Raises: OptionError for one that this way does not know.
    """
    if isinstance(model, AbstractBoltzmann):
        because = "a Boltzmann machine is learned by contrastive divergence, without q"
        _refuse(model, [n for n in given if n not in OF_ENERGIES], because, f"any of {OF_ENERGIES}")
        from .energy import fit_energy

        return fit_energy(model, data, **given)
    if isinstance(model, AbstractEM):
        if given.get("method") in ("auto", "em"):
            given = {n: v for n, v in given.items() if n != "method"}
        because = "expectation maximisation has its own E-step: there is no q to choose"
        instead = f"any of {tuple(OF_EM)}, or jensen.em(model, data, ...)"
        _refuse(model, [n for n in given if n not in OF_EM], because, instead)
        from .em import em

        return em(model, data, **{OF_EM[n]: v for n, v in given.items() if n in OF_EM})
    return None


def _refuse(model: Any, unknown: list[str], because: str, instead: str) -> None:
    if unknown:
        asked, wrong = f"fit({type(model).__name__}, ...) with {unknown}", "these belong to variational inference"
        raise OptionError(explain(asked, wrong, because, instead))
