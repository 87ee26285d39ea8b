"""The whole vocabulary assembled, with the index arrays that the vectorised parts need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from pinfeather.generate.attributes_look import COLORS, INGREDIENTS, MATERIALS, STYLES
from pinfeather.generate.attributes_use import AUDIENCES, BUDGETS, DIETS, METHODS, OCCASIONS, PLACES, SEASONS, SPACES
from pinfeather.generate.phrases_en import ENGLISH, GENERIC_EN, SITES_EN
from pinfeather.generate.phrases_more import FRENCH, GENERIC_MORE, GERMAN, JAPANESE, SITES_MORE, SPANISH
from pinfeather.generate.topics_food_travel import RECIPES, TRAVEL
from pinfeather.generate.topics_home import DECOR, GARDEN
from pinfeather.generate.topics_style import BEAUTY, CRAFTS, FASHION, PARTY
from pinfeather.generate.vocabulary import Phrases, Topic, Value

# The order in which English adjectives pile up before a noun.
DIMENSIONS: tuple[str, ...] = (
    "budget", "season", "occasion", "place", "audience", "diet", "method", "space", "style", "color", "material",
    "ingredient",
)  # fmt: skip

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lexicon:
    """Topics, values and phrases; ``allowed[t, d]`` are the value numbers of topic ``t`` in dimension ``d``."""

    topics: tuple[Topic, ...]
    values: tuple[Value, ...]
    phrases: Mapping[tuple[str, str], Phrases]
    generic_boards: Mapping[str, tuple[str, ...]]
    sites: Mapping[str, tuple[str, ...]]
    allowed: tuple[tuple[tuple[int, ...], ...], ...]
    family: Ints
    dimension: Ints
    group: Ints
    domain: Ints


def _numbers(names: list[str]) -> Ints:
    order = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([order[name] for name in names], dtype=np.int64)


@cache
def lexicon() -> Lexicon:
    """The hand-written vocabulary.

    :raises KeyError: if a topic names a value that no attribute table has.
    """
    values = (
        *COLORS, *MATERIALS, *STYLES, *INGREDIENTS, *SEASONS, *AUDIENCES, *BUDGETS, *SPACES, *DIETS, *METHODS,
        *OCCASIONS, *PLACES,
    )  # fmt: skip
    topics = (*DECOR, *GARDEN, *RECIPES, *TRAVEL, *FASHION, *BEAUTY, *CRAFTS, *PARTY)
    number = {value.key: index for index, value in enumerate(values)}
    allowed = tuple(
        tuple(tuple(number[f"{d}.{name}"] for name in topic.dimensions.get(d, ())) for d in DIMENSIONS)
        for topic in topics
    )
    tables = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH, "es": SPANISH, "ja": JAPANESE}
    return Lexicon(
        topics=topics,
        values=values,
        phrases={(domain, lang): phrases for lang, table in tables.items() for domain, phrases in table.items()},
        generic_boards={"en": GENERIC_EN, **GENERIC_MORE},
        sites={"en": SITES_EN, **SITES_MORE},
        allowed=allowed,
        family=_numbers([value.family for value in values]),
        dimension=np.array([DIMENSIONS.index(value.dimension) for value in values], dtype=np.int64),
        group=_numbers([topic.group for topic in topics]),
        domain=_numbers([topic.domain for topic in topics]),
    )
