"""The request bodies: one model for each method of the client, with bounds, descriptions and examples."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StrictBool,
    StrictStr,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from feature_repo.board_text import Board
from serving_client.filters import MOST_CHARACTERS, MOST_VALUES
from serving_client.http.settings import Settings
from serving_client.methods import Method

Number = Annotated[float, Strict(), AllowInfNan(False)]
Integer = Annotated[int, Strict()]
_PINS = ["1f0c", "9ab2"]
MOST_KEYS = 100
"""Keys of an object: more than any has. A body of 1 MB holds 100,000 unknown ones, each of which would be described."""


def _few_keys(data: Any) -> Any:
    if isinstance(data, dict) and len(data) > MOST_KEYS:
        raise PydanticCustomError("too_many_keys", "an object has at most {most} keys here", {"most": MOST_KEYS})
    return data


class BoardBody(BaseModel):
    """A board by its parts."""

    model_config = ConfigDict(extra="forbid", title="Board")
    few_keys = model_validator(mode="before")(_few_keys)

    title: StrictStr = Field("", description="Its title.")
    pin_titles: list[StrictStr] = Field([], description="Titles of pins on it.")


@cache
def board_body(titles: int) -> type[BoardBody]:
    """The model of a board of at most so many titles of pins; one class, so that the document has one schema."""
    return create_model(
        "Board", __base__=BoardBody, pin_titles=(_list_of(StrictStr, titles, "Titles of pins on it."), [])
    )


def _list_of(kind: Any, most: int, description: str | None = None) -> Any:
    # A body of 1 MB holds half a million wrong items: pydantic would describe each, seconds in which nothing answers.
    return Annotated[list[kind], Field(max_length=most, fail_fast=True, description=description)]


def _text(description: str, example: str, **bounds: Any) -> Any:
    return Annotated[StrictStr, Field(description=description, examples=[example], **bounds)]


def _texts(description: str, examples: list[str], most: int) -> Any:
    return Annotated[
        list[StrictStr], Field(description=description, examples=[examples], max_length=most, fail_fast=True)
    ]


def _number(description: str, example: float, **bounds: Any) -> Any:
    return Annotated[Number, Field(description=description, examples=[example], **bounds)]


def _wanted(description: str, example: str) -> Any:
    value = Annotated[StrictStr, Field(max_length=MOST_CHARACTERS)]
    kind = value | _list_of(value, MOST_VALUES) | None
    return Annotated[kind, Field(description=description, examples=[example])]


def parameter_types(settings: Settings) -> Mapping[str, Any]:
    """Name of a parameter to its type in a body; a name means the same in every method."""
    pins, queries = settings.max_candidates, settings.max_queries
    board: Any = StrictStr | _list_of(StrictStr, pins) | board_body(pins)
    times = _list_of(StrictStr, pins)
    return {
        "query": _text("What is searched for; one text in any spelling.", "green velvet sofa"),
        "queries": _texts("Queries.", ["green velvet sofa", "fern"], queries),
        "pin_id": _text("A pin.", _PINS[0]),
        "pin_ids": _texts("Pins to score; unknown ones are not found.", _PINS, pins),
        "ids": _texts("Pins; unknown ones are not found.", _PINS, pins),
        "recent_pins": _texts("Pins that somebody looked at, the most recent first.", _PINS, pins),
        "pins": _texts("Pins of the board.", _PINS, pins),
        "seen": _texts("Pins not to show.", _PINS[1:], 10 * pins),
        "board": Annotated[
            board, Field(description="A title, a title with titles of pins, or a board.", examples=["Sofas"])
        ],
        "boards": Annotated[
            list[board],
            Field(description="Boards, each as `board`.", examples=[["Sofas"]], max_length=queries, fail_fast=True),
        ],
        "space": _text("A space: live, a public or a physical name.", "live", max_length=200),
        "service": _text("A feature service.", "pin_content_v1", max_length=200),
        "limit": Annotated[Integer, Field(description="How many to show.", examples=[10], ge=1, le=1000)],
        "candidates": Annotated[Integer, Field(description="How many to score.", examples=[200], ge=1, le=pins)],
        "diversity": _number("0 ranks by cosine alone, 1 by unlikeness.", 0.3, ge=0, le=1),
        "exploration": _number("Share of pins of lesser interests.", 0.1, ge=0, le=1),
        "engagement_weight": _number("Levels that the most engaging pin gains; 0 is none.", 0.0, ge=0),
        "floor": Annotated[
            Number | None, Field(description="Expected level below which engagement does not help.", examples=[2.5])
        ],
        "lang": _wanted("Language, or any of several.", "en"),
        "country": _wanted("Country, or any of several.", "US"),
        "created_after": Annotated[
            StrictStr | None, Field(description="ISO 8601 time; UTC without a zone.", examples=["2026-01-01"])
        ],
        "saved_at": Annotated[
            times | None, Field(description="Times of recent_pins, ISO 8601.", examples=[["2026-01-02", "2026-01-01"]])
        ],
        "seed": Annotated[
            Integer | StrictStr | None, Field(description="Another one explores other pins.", examples=["2026-11-22"])
        ],
        "safe": Annotated[StrictBool | None, Field(description="Only pins so marked.", examples=[True])],
        "explain": Annotated[StrictBool, Field(description="Say what each feature added.", examples=[True])],
        "content": Annotated[StrictBool, Field(description="Give each hit its features.", examples=[False])],
        "scorer": Annotated[
            Literal["student", "zero-shot", "bm25"], Field(description="Who scores.", examples=["student"])
        ],
        "retrieval": Annotated[
            Literal["hybrid", "vector", "lexical"], Field(description="How candidates are found.", examples=["hybrid"])
        ],
        "cursor": Annotated[
            StrictStr | None, Field(description="next_cursor of the page before.", examples=[None], max_length=4000)
        ],
    }


def body_of(method: Method, settings: Settings) -> type[BaseModel]:
    """The model of the method's arguments: every one is a key, and no other key is allowed.

    :raises LookupError: if a parameter has no type here.
    """
    types = parameter_types(settings)
    keys: dict[str, Any] = {}
    example: dict[str, Any] = {}
    for name, parameter in method.parameters.items():
        if name not in types:
            raise LookupError(f"{method.name} takes {name!r}, which serving_client.http.models does not know.")
        needed = parameter.default is inspect.Parameter.empty
        keys[name] = (types[name], Field(...) if needed else Field(_plain(parameter.default)))
        if needed or name == "limit":
            example[name] = types[name].__metadata__[-1].examples[0]
    title = method.name.title().replace("_", "") + "Request"
    config = ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})
    few: dict[str, Any] = {"few_keys": model_validator(mode="before")(_few_keys)}
    return create_model(title, __config__=config, __doc__=method.summary, __validators__=few, **keys)


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


_TEXT = frozenset({str})


def arguments(body: BaseModel) -> dict[str, Any]:
    """What was given, as the client takes it; what was not has the client's defaults."""
    return {name: _argument(getattr(body, name)) for name in body.model_fields_set}


def _argument(value: Any) -> Any:
    if isinstance(value, BoardBody):
        return Board(value.title, tuple(value.pin_titles))
    if isinstance(value, list) and not _TEXT.issuperset(map(type, value)):
        return [_argument(each) for each in value]
    return value
