"""Rows read before anybody asks for them, so that a request for pins that nobody saw yet is as fast as any other.

A thread reads what scores and related pins need of every pin of the live space, its vector and its row of
``pin_relevance``, into the arrays that the store's reader keeps between requests (:mod:`materialize.stores.columns`).
It reads a few pins at a time, as the engine lets no other thread run meanwhile, and rests in between. Of a new
publication it reads first what the one before had kept, what was asked for last before all.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from time import perf_counter

from feature_repo.errors import PinfeatherError
from materialize.spaces import Space
from materialize.stores.columns import Columns, Kind
from materialize.stores.errors import StoreError
from materialize.stores.layout import decode_key, entity_collection
from materialize.stores.reader import Snapshot
from serving_client.lists.neighbours import PIN_BY_POINT
from serving_client.publications.publications import Publication, Publications
from serving_client.relevance.candidates import relevance_kind

logger = logging.getLogger(__name__)

CHUNK = 64
"""Pins of one step: each of its reads keeps other threads waiting for a millisecond or two."""
RESTING = 0.5
"""Pause after a step, as a share of the time that it took."""
IDLE_SECONDS = 1.0
"""Between two looks whether there is something to read again."""
_LEAST_ROW_BYTES = 512


class ReadAhead:
    """Reads ahead of the requests of one client. Its thread ends with it, also where nobody closes it.

    :param max_bytes: once the kept arrays take so many bytes, no more is read. Rows that requests asked for stay when
        there is no room for all; those that were read ahead go first.
    """

    def __init__(self, publications: Publications, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.pins = 0
        """Pins of the publication that serves, whose rows were gone through."""
        self.resting = False
        """Whether nothing more can be read at the moment."""
        self._publications = publications
        self._seen: Callable[[], Publication | None] = lambda: None
        self._kept: list[Columns] = []
        self._by_pin: list[Columns] = []
        """Those of them whose keys are pins."""
        self._first: list[str] = []
        """Pins that the publication before had kept, the next one last."""
        self._after: str | None = None
        self._scrolled = False
        self._left: list[str] = []
        """Pins that are to be read next: there was no room for them, or their read failed."""
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read in a thread from now on; only the first call does something."""
        if self._thread is None and self.max_bytes > 0:
            self._thread = threading.Thread(
                target=_run, args=(weakref.ref(self), self._ended), name="pinfeather-ahead", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def step(self) -> bool:
        """Read some pins of the publication that serves; whether there is more to read now.

        :raises PinfeatherError: if there is no publication.
        :raises StoreError: if it cannot be read.
        """
        with self._publications.current() as publication:
            live = publication.release.live_space
            if live is None or not isinstance(publication.view, Snapshot):  # of a server nothing is kept
                return False
            space = publication.space(live)
            wanted = _wanted(publication, space)
            if publication is not self._seen():
                self._begin(publication, space, wanted)
            self._left = pins = self._left or self._next(publication, space)
            points = publication.point_ids(space, pins)
            fitting = [
                publication.view.read_ahead(
                    each.collection, each.kind, points if each.by_point else pins, self.max_bytes
                )
                for each in wanted
            ]
        self._left = [] if all(fitting) else pins
        self.pins += 0 if self._left else len(pins)
        return not self._left and not (self._scrolled and not self._first)

    def _begin(self, publication: Publication, space: Space, wanted: Sequence[_Wanted]) -> None:
        """Turn to another publication than before."""
        reader: Snapshot = publication.view  # type: ignore[assignment]
        kept = [columns for each in wanted if (columns := reader.kept(each.collection, each.kind)) is not None]
        self._seen = weakref.ref(publication)  # not before: one that cannot be loaded yet is begun another time
        if [*map(id, kept)] == [*map(id, self._kept)]:
            return  # no row has changed
        former = list(dict.fromkeys(chain.from_iterable(columns.keys() for columns in self._by_pin)))
        self._kept, self._first, self._left = kept, former[::-1], []
        self._by_pin = [columns for each, columns in zip(wanted, kept, strict=False) if not each.by_point]
        self._after, self._scrolled, self.pins = None, False, 0
        expected = min(reader.size(space.name), self.max_bytes // _LEAST_ROW_BYTES)
        for columns in kept:
            columns.expect(expected)

    def _next(self, publication: Publication, space: Space) -> list[str]:
        """The pins to read next; none where all were."""
        if self._first:
            self._first, pins = self._first[:-CHUNK], self._first[-CHUNK:]
            return pins[::-1]
        if self._scrolled:
            return []
        points, self._after = publication.reader.scroll(
            space.name, limit=CHUNK, after=self._after, with_payload=["key"]
        )
        self._scrolled = self._after is None
        return [str(decode_key(point.payload["key"])["pin_id"]) for point in points]

    def step_and_rest(self) -> float:
        """:meth:`step`, whatever comes of it; the seconds to rest afterwards."""
        began = perf_counter()
        try:
            more = self.step()
        except (PinfeatherError, StoreError):  # requests that need what is missing say so
            more = False
        except Exception as error:  # without these pins, else it would be the same for ever
            logger.warning("%d pins cannot be read ahead (%s)", len(self._left), type(error).__name__)
            self._left, more = [], False
        self.resting = not more
        return RESTING * (perf_counter() - began) if more else IDLE_SECONDS


def _run(reference: weakref.ref[ReadAhead], ended: threading.Event) -> None:
    """Read until ``ended`` is set or nobody has the object any more."""
    rest = 0.0
    while not ended.wait(rest):
        ahead = reference()
        if ahead is None:
            return
        rest = ahead.step_and_rest()
        del ahead


@dataclass(frozen=True)
class _Wanted:
    """What is read of each pin."""

    collection: str
    kind: Kind
    by_point: bool = False
    """Whether it is kept by the ids of points, not of pins."""


def _wanted(publication: Publication, space: Space) -> list[_Wanted]:
    wanted = [
        _Wanted(space.name, publication.vector_kind(space)),
        _Wanted(space.name, PIN_BY_POINT, by_point=True),
    ]
    rows = entity_collection(publication.project, ["pin_id"])
    if rows in publication.view.collections():
        wanted.append(_Wanted(rows, relevance_kind(publication.project)))
    return wanted
