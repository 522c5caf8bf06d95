"""What `fit(method=...)` takes: a class whose fields are its options, which says what it cannot do, and runs.

How to write one of your own: subclass `AbstractSolver` (an algorithm on one latent vector: `_solve` gives a `Solution`,
which is weighed, judged, budgeted and saved like ours), or `AbstractMethod` for everything else; then
`fit(model, method=Mine())`.
"""

import abc
import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from ..methods.task import Task


class Problem(NamedTuple):
    """A reason to refuse: what is wrong, why, and what to write instead."""

    wrong: str
    because: str
    instead: str


class Variant(NamedTuple):
    """A further name of a method: what it does, and the options that it stands for."""

    about: str
    options: Mapping[str, Any]


class AbstractMethod(abc.ABC):
    """A way from a model and data to a result.

    name:      what `fit(method=...)`, the trail and the command line call it.   variants: further names.
    about:     a sentence for someone who knows no methods.
    fits:      what it learns: the "posterior" of a model, the parameters of one with an E-step of its own ("em"), or an
               "energy"; a model says the same of itself.
    takes:     the options of `fit` that it has use for; any other is refused, with `why_not`.
    by_steps:  whether it goes step by step: with checkpoints, and the same bits after it was stopped.
    """

    name: ClassVar[str]
    about: ClassVar[str] = ""
    variants: ClassVar[Mapping[str, Variant]] = {}
    fits: ClassVar[str] = "posterior"
    takes: ClassVar[frozenset[str]] = frozenset({"n_draws"})
    why_not: ClassVar[str] = "the method has no use for it"
    by_steps: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls) and not inspect.isabstract(cls):
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    def options(self) -> dict[str, Any]:
        """What was chosen, by name."""
        known = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return {f.name: getattr(self, f.name) for f in known}

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that are not the defaults."""
        known = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        usual = {f.name: f.default for f in known}
        return {name: value for name, value in self.options().items() if value != usual.get(name)}

    @classmethod
    def called(cls, name: str, **options: Any) -> "AbstractMethod | None":
        """The method by its name, its class's name or a variant's, with options; None if none of these is it."""
        if plain(name) in (plain(cls.name), plain(cls.__name__)):
            return cls(**options)
        stands_for = (v.options for variant, v in cls.variants.items() if plain(variant) == plain(name))
        found = next(stands_for, None)
        return None if found is None else cls(**{**found, **options})

    @property
    def label(self) -> str:
        """Its name, or that of the variant it is."""
        mine = self.options()
        same = (n for n, v in self.variants.items() if type(self)(**v.options).options() == mine)
        return next(same, self.name)

    def problems(self, task: "Task") -> list[Problem]:
        """Why it cannot do what is asked; empty where it can."""
        return []

    @abc.abstractmethod
    def run(self, task: "Task") -> Any:
        """The result, with its verdict. A method of one's own gives what a service of the task does: `task.solved(solver)`."""


def single_vector(task: "Task") -> list[Problem]:
    """What keeps a model from being one latent vector, with a density that a solver may ask for anywhere."""
    because = "this method works on one latent vector of real numbers, with all the data at hand"
    return [] if task.obstacle is None else [Problem(task.obstacle, because, 'method="gradient"')]


def sentences_of(cls: type[AbstractMethod]) -> dict[str, str]:
    """{name: `about`, or the first line of its docstring}, of the class and its variants."""
    own = cls.about or (inspect.getdoc(cls) or f"A method named {cls.name}.").partition("\n")[0]
    return {cls.name: own} | {name: v.about for name, v in cls.variants.items()}


def plain(name: str) -> str:
    """A name as it is looked up: case, dashes, underscores and spaces do not matter."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
