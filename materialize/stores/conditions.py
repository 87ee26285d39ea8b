"""Filters of the store port: what a point's payload must be like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import BadInputError


@dataclass(frozen=True)
class Match:
    """The payload value at ``key`` (nested: ``f.lang``) equals ``value``, or any of ``any_of``."""

    key: str
    value: str | int | bool | float | None = None
    any_of: Sequence[str | int | bool | float] | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.any_of is None):
            raise BadInputError(f"Match({self.key!r}) takes either value or any_of.")


@dataclass(frozen=True)
class Range:
    """The number at ``key`` lies within the given bounds (those that are None do not count)."""

    key: str
    gte: float | None = None
    gt: float | None = None
    lte: float | None = None
    lt: float | None = None


@dataclass(frozen=True)
class And:
    """All conditions hold."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """At least one condition holds."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """The condition does not hold."""

    condition: Condition


Condition = Match | Range | And | Or | Not


def filter_keys(condition: Condition) -> set[str]:
    """The payload paths that a condition looks at.

    :raises BadInputError: if it is no condition.
    """
    match condition:
        case And(conditions) | Or(conditions):
            return set().union(*map(filter_keys, conditions))
        case Not(inner):
            return filter_keys(inner)
        case Match() | Range():
            return {condition.key}
        case _:
            raise BadInputError(f"A filter is made of Match, Range, And, Or and Not, not of {condition!r}.")
