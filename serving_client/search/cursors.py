"""Where a page of a search ended, as opaque text, so that the next one goes on there.

A search orders its candidates by (score, similarity, pin id), which is the same on every call over one publication: so
pages never repeat or skip a pin. A cursor holds the last pin's place in that order, the number of the publication of
the first page, the scorer, and a digest of everything that was asked but the length of a page. Over a newer publication
the next page begins below the last pin's score: pins that moved past it meanwhile may be missed or come twice, and the
answer says so (``stale``). Where another scorer must do, whose scores cannot be compared, it goes on by count.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from feature_repo.errors import UsageError

_VERSION = 1
_MOST_CHARACTERS = 4_096

Place = tuple[float, float, str]
"""(-score, -similarity, pin id): ascending from the best pin to the worst; a similarity that is not known is last."""


def place_of(score: float, similarity: float, pin_id: str) -> Place:
    """The place of a pin in the order of a search."""
    return -score, math.inf if math.isnan(similarity) else -similarity, pin_id


@dataclass(frozen=True)
class Cursor:
    """The end of a page."""

    publication: int
    """Of the first page."""
    request: str
    """Digest of what was asked."""
    scorer: str
    """Who scored."""
    shown: int
    """Pins of all pages so far."""
    last: Place
    """Of the last pin shown."""

    def encode(self) -> str:
        """The text for the caller, without the query."""
        negated, similarity, pin_id = self.last
        known = None if math.isinf(similarity) else similarity
        body = [_VERSION, self.publication, self.request, self.scorer, self.shown, negated, known, pin_id]
        content = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(_check(content) + content).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, request: str) -> Cursor:
        """The cursor that :meth:`encode` wrote for the same ``request``.

        :raises UsageError: if it is damaged, or was given for another search.
        """
        try:
            if not isinstance(text, str) or len(text) > _MOST_CHARACTERS:
                raise ValueError("no cursor is so long")
            raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if _check(raw[8:]) != raw[:8]:
                raise ValueError("its parts do not belong together")
            version, *parts, similarity, pin_id = json.loads(raw[8:])
            if version != _VERSION:
                raise ValueError(f"it is of version {version}")
            publication, asked, scorer, shown, negated = parts
            last = (float(negated), math.inf if similarity is None else float(similarity), str(pin_id))
            cursor = cls(int(publication), str(asked), str(scorer), int(shown), last)
            if cursor.shown < 0:
                raise ValueError("it shows less than nothing")
        except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
            raise UsageError(
                f"This cursor cannot be read ({error}): give the next_cursor of an answer as it is, or None for the "
                "first page."
            ) from error
        if cursor.request != request:
            raise UsageError(
                "This cursor is of another search: ask for the next page with the same query, filters and options as "
                "for the first, or give None."
            )
        return cursor

    def start(self, places: Sequence[Place], scorer: str, publication: int) -> int:
        """The row at which the next page begins among ``places``, which ascend and were scored by ``scorer``.

        Over one publication it is after the last pin, whatever its score: a query that was encoded again, beside
        others or on another machine, has a vector that differs in its last bits.
        """
        if scorer != self.scorer:
            return min(self.shown, len(places))
        if publication == self.publication:
            for row, (*_, pin_id) in enumerate(places, 1):
                if pin_id == self.last[2]:
                    return row
        return sum(place <= self.last for place in places)


def digest_of(asked: Sequence[Any]) -> str:
    """The digest of a request's parts, which have a stable ``repr``."""
    return xxhash.xxh3_64_hexdigest(repr(asked).encode("utf-8", "surrogatepass"))


def _check(content: bytes) -> bytes:
    return xxhash.xxh3_64_digest(content)
