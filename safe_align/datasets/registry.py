"""Raw data sets: rows of the world as `RawSample`s, known by name."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from typing_extensions import NotRequired, TypedDict

from safe_align import plugins
from safe_align.config import UserError, nearest

RAW = 'safe_align.datasets.raw'
LARGEST = 3.4e38  # number of a sample that float32 holds


class RawSample(TypedDict, total=False):
    """One row. What a stage needs of it: see the README's table of stages."""

    input: NotRequired[str | Sequence[str]]
    """The user's text, or the turns user, assistant, ..., user."""
    answer: NotRequired[str]
    """The assistant's answer."""
    other_answer: NotRequired[str]
    """Another answer to the same input."""
    weak_answer: NotRequired[str]
    """The better of two further answers, which are less far apart than `answer` and `other_answer`."""
    weak_other_answer: NotRequired[str]
    """The worse of the two."""
    dialogue: NotRequired[list[str]]
    """A whole conversation, user first, in place of `input` and `answer`."""
    better: NotRequired[bool]
    """Whether `answer` is better than `other_answer`; of an answer alone, whether it is desirable."""
    safer: NotRequired[bool]
    """Whether `answer` is safer than `other_answer`."""
    is_safe: NotRequired[bool]
    """Whether `answer` is safe."""
    is_other_safe: NotRequired[bool]
    """Whether `other_answer` is safe."""
    score: NotRequired[float]
    """A number that says how good `answer` is."""
    other_score: NotRequired[float]
    """The same of `other_answer`."""
    weight: NotRequired[float]
    """How much the row counts; 1 where it is absent."""
    margin: NotRequired[float]
    """By how much the better answer is better."""
    tokenizer: NotRequired[str]
    """`templates.fingerprint_of` the tokenizer that the ids below are of."""
    answer_ids: NotRequired[Sequence[int]]
    """`answer` as it was sampled, with the token that ended it, if one did."""
    other_answer_ids: NotRequired[Sequence[int]]
    """The same of `other_answer`."""
    log_prob: NotRequired[float]
    """Of `answer_ids`, all of them, under the law that they were sampled from."""
    other_log_prob: NotRequired[float]
    """The same of `other_answer_ids`."""


class RawDataset(ABC):
    """A sequence of `RawSample`s. A subclass that sets `NAME` is known by it, and by its `ALIASES`."""

    NAME: ClassVar[str]
    ALIASES: ClassVar[Sequence[str]] = ()
    _registry: ClassVar[dict[str, type[RawDataset]]] = {}

    def __init__(self, path: str | None = None) -> None:
        """`path` is what stands behind the second colon of `--datasets`, if anything does."""
        self.path = path

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if 'NAME' not in cls.__dict__:
            return
        names = (cls.NAME, *cls.__dict__.get('ALIASES', ()))
        for name in names:
            if not isinstance(name, str) or not name or ':' in name:
                raise UserError(f'{cls.__name__}: the name {name!r} of a data set must be a text without a colon')
            known = RawDataset._registry.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise UserError(
                    f'{cls.__name__} of {cls.__module__}: the data set name {name!r} is taken by '
                    f'{known.__name__} of {known.__module__}'
                )
        RawDataset._registry.update(dict.fromkeys(names, cls))

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> RawSample: ...

    def __iter__(self) -> Iterator[RawSample]:
        return (self[index] for index in range(len(self)))

    def fingerprint(self) -> str:
        """A hash of the content; data sets that know a cheaper one than reading every row say so."""
        digest = hashlib.blake2b(digest_size=16)
        for sample in self:
            digest.update(json.dumps(sample, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    @classmethod
    def names(cls) -> list[str]:
        """The names of all data sets that are known, without their aliases."""
        for module in plugins.names(RAW):
            plugins.load(RAW, module)
        return sorted({raw.NAME for raw in RawDataset._registry.values()})

    @classmethod
    def find(cls, name: str) -> type[RawDataset]:
        """The class of that name or alias.

        Raises:
            UserError: there is none; the nearest is named.
        """
        known = cls.names()
        if name not in cls._registry:
            raise UserError(
                f'unknown data set {name!r}{nearest(name, cls._registry)}; known: {", ".join(known)}; '
                'one of your own is made known by --plugin'
            )
        return cls._registry[name]

    @classmethod
    def load(cls, name: str, **attributes: Any) -> RawDataset:
        """The data set of that name or alias; `attributes` go to its constructor."""
        return cls.find(name)(**attributes)
