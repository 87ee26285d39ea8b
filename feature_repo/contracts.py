"""Row contracts of the raw tables: the agreement with whoever delivers them, held by :mod:`feature_repo.validation`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_ID_CHARACTERS = 256
MAX_TEXT_CHARACTERS = 20_000
MAX_LIST_ITEMS = 1_000
EARLIEST_YEAR = 1990
FUTURE_DAYS = 1
"""Clocks of the outside may run ahead by this much; events in the log later than that are rejected."""


class Kind(StrEnum):
    """What a column holds; :func:`arrow_type` gives the type it is stored with."""

    ID = "id"
    TEXT = "text"
    TEXTS = "list of texts"
    TIME = "timestamp"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "true or false"


@dataclass(frozen=True)
class Column:
    """One column of a raw table.

    ``required``: the file must have it. ``nullable``: a row may leave it out. A column that is neither in the file nor
    required is filled with ``default``.
    """

    name: str
    kind: Kind
    required: bool = False
    nullable: bool = True
    default: Any = None
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableContract:
    """The columns of one raw table.

    ``unique`` names the id of a snapshot table, ``latest_by`` the time that decides among copies of one id.
    """

    name: str
    columns: tuple[Column, ...]
    required: bool = False
    unique: str | None = None
    latest_by: str = "event_timestamp"

    def column(self, name: str) -> Column:
        """The column called ``name``."""
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in the order in which they are stored."""
        return tuple(column.name for column in self.columns)


def _key(name: str) -> Column:
    return Column(name, Kind.ID, required=True, nullable=False)


def _time(name: str) -> Column:
    return Column(name, Kind.TIME, required=True, nullable=False)


def _texts(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, Kind.TEXT) for name in names)


_PIN_COLUMNS = (
    _key("pin_id"),
    *_texts("title", "description", "link_url", "link_title", "link_description", "image_uri"),
    Column("image_sha256", Kind.ID),
    *_texts("lang", "country"),
    Column("created_at", Kind.TIME),
    _time("event_timestamp"),
    Column("deleted_at", Kind.TIME),
    Column("link_fetched_at", Kind.TIME),
)

ACTIONS = ("impression", "click", "long_click", "save")

_CONTRACTS = (
    TableContract(
        "pins",
        # Whether anybody may be shown it; nobody said where it is null.
        (*_PIN_COLUMNS, Column("safe", Kind.BOOLEAN)),
        required=True,
        unique="pin_id",
    ),
    TableContract(
        "board_saves",
        (
            _key("board_id"),
            Column("board_title", Kind.TEXT, required=True),
            _key("pin_id"),
            _key("user_id"),
            _time("saved_at"),
            Column("removed_at", Kind.TIME),
            # Absent means that the platform has no secret boards; a null in a column that is there is refused,
            # because guessing wrong would publish somebody's secret.
            Column("secret", Kind.BOOLEAN, nullable=False, default=False),
        ),
        latest_by="saved_at",
    ),
    TableContract(
        "search_log",
        (
            _key("request_id"),
            Column("query", Kind.TEXT, required=True, nullable=False),
            *_texts("lang", "country"),
            _key("user_id"),
            _key("pin_id"),
            Column("position", Kind.INTEGER, low=0),
            Column("action", Kind.TEXT, required=True, nullable=False, allowed=ACTIONS),
            Column("dwell_s", Kind.NUMBER, low=0),
            _time("event_timestamp"),
        ),
    ),
    TableContract(
        "judgments",
        (
            Column("query", Kind.TEXT, required=True, nullable=False),
            _key("pin_id"),
            Column("level", Kind.INTEGER, required=True, nullable=False, low=1, high=5),
            # What several raters said, where it was kept: their mean and variance on the scale of levels.
            Column("level_mean", Kind.NUMBER, low=1, high=5),
            Column("level_variance", Kind.NUMBER, low=0),
            Column("annotator", Kind.ID),
            *_texts("lang", "guideline_version"),
            _time("event_timestamp"),
        ),
    ),
    TableContract(
        "products",
        (
            *_PIN_COLUMNS,
            *_texts("brand", "product_type", "color", "material"),
            Column("price", Kind.NUMBER, low=0),
            Column("image_uris", Kind.TEXTS),
        ),
        unique="pin_id",
    ),
    TableContract(
        "captions",
        (
            _key("image_sha256"),
            _key("captioner"),
            Column("caption", Kind.TEXT, required=True, nullable=False),
            _time("event_timestamp"),
        ),
    ),
    TableContract(
        "pin_topics",
        (
            _key("pin_id"),
            _key("topic"),
            # A null in a column that is there is refused: it may mean nothing or all of the topic.
            Column("weight", Kind.NUMBER, nullable=False, default=1.0, low=0),
            _time("event_timestamp"),
        ),
    ),
)

CONTRACTS: dict[str, TableContract] = {contract.name: contract for contract in _CONTRACTS}
"""Every raw table by name. Only ``pins`` must be there; the others count as empty where they are not."""
