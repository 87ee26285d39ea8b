"""The features of ``pin_content_v1`` with each hit of a list."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from serving_client.answers import BoardPins, HomeFeed, RelatedPins, SearchResults
from serving_client.degraded import UnavailableError, note, reason
from serving_client.lookups.features import CONTENT, read_features
from serving_client.publications.publication import Publication

_List = TypeVar("_List", RelatedPins, HomeFeed, BoardPins, SearchResults)


def with_content(publication: Publication, answer: _List) -> _List:
    """``answer`` with the features of each of its hits; without, and with a reason, where they cannot be read."""
    try:
        table = read_features(publication, [hit.pin_id for hit in answer.hits], CONTENT)
    except UnavailableError as error:
        note(reason(error.code, "the features of the hits cannot be read; given without"))
        return answer
    return replace(answer, hits=tuple(replace(hit, content=table.row(row)) for row, hit in enumerate(answer.hits)))
