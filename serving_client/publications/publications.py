"""What the client reads from: the newest publication, followed while requests go on over the one they began with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.definitions import load_definitions
from materialize.places import place_of
from materialize.stores.deadline import deadline, seconds_left
from materialize.stores.errors import NoPublicationError
from materialize.stores.reader import Snapshot
from materialize.stores.session import StoreView, session
from serving_client.degraded import Code, UnavailableError, note
from serving_client.publications.guard import LIST, Guard
from serving_client.publications.parts import RETRY_SECONDS
from serving_client.publications.publication import LIVE, Publication
from serving_client.publications.trouble import Trouble

__all__ = ["LIVE", "Publication", "Publications"]

LOOK_SECONDS = 1.0
"""So long a request waits at most for a server that is asked for a newer release."""


class Publications:
    """Hands out the newest publication; looks for a newer one at most every ``interval`` seconds.

    A request keeps the publication it began with. While one thread loads a newer one, the others go on over the old
    one, which is closed when its last request is done. Where a newer one cannot be loaded the last one goes on serving,
    every answer says ``stale``, and the newest is tried again every few seconds.

    :param on_switch: called with each publication before it serves.
    :param on_look: called at each look for a newer one, before it.
    :param on_retired: called with the publication that serves, once after a switch when the last request over a former
        one is done: at the switch if there was none, else at the next look. None of the three runs beside another.
    """

    def __init__(
        self,
        paths: RepoPaths,
        on_switch: Callable[[Publication], None],
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        on_look: Callable[[], None] = lambda: None,
        on_retired: Callable[[Publication], None] = lambda publication: None,
    ) -> None:
        self.paths = paths
        self.interval = interval
        self._on_switch = on_switch
        self._on_look = on_look
        self._on_retired = on_retired
        self._retired = False
        """Whether a former publication was let go and nobody was told yet."""
        self._clock = clock
        self._checked = clock()
        self._lock = threading.Lock()
        self._switching = threading.Lock()
        self._newest: Publication | None = None
        self._guard = Guard(clock)
        self._trouble = Trouble(clock)
        self._users: dict[Publication, int] = {}
        self._closed = False

    @contextmanager
    def current(self) -> Iterator[Publication]:
        """The publication for one request."""
        publication = self._enter()
        try:
            stale = self.stale(publication)
            if stale is not None:
                note(stale)
            yield publication
        finally:
            self._leave(publication)

    def refresh(self) -> bool:
        """Switch to the newest publication now; whether there was a newer one."""
        with self._switching:
            return self._look()

    def stale(self, publication: Publication) -> str | None:
        """The reason why a newer publication than ``publication`` may be there and not serve; None where all is well.

        How it failed is in the log, as that names files of this machine.
        """
        if self._trouble.error is None:
            return None
        return self._trouble.stale(publication.number, publication.created_at)

    def unreadable(self, publication: Publication) -> dict[str, Code]:
        """Collection to what is the matter with it, of those whose last read failed.

        One that ``publication`` does not have is left out: on a server it may have been dropped since.
        """
        failing = self._guard.failing()
        try:
            there = publication.reader.collections()
        except UnavailableError:
            return failing
        return {name: code for name, code in failing.items() if name in there or name == LIST}

    def close(self) -> None:
        """Let everything go; requests that are under way finish first."""
        with self._lock:
            self._closed = True
            newest, self._newest = self._newest, None
            idle = newest is not None and not self._users.get(newest)
        if newest is not None and idle:
            newest.view.close()

    def _enter(self) -> Publication:
        if self._newest is None:
            self._first()
        elif self._due() and self._switching.acquire(blocking=False):
            try:
                with deadline(LOOK_SECONDS):
                    self._look()
            except PinfeatherError:  # logged, and noted in the answer
                pass
            finally:
                self._switching.release()
        with self._lock:
            publication = self._newest
            if publication is None:
                raise PinfeatherError("This client was closed; open another one.")
            self._users[publication] = self._users.get(publication, 0) + 1
            return publication

    def _due(self) -> bool:
        wait = self.interval if self._trouble.error is None else max(self.interval, RETRY_SECONDS)
        return self._clock() - self._checked >= wait

    def _first(self) -> None:
        """Load the first publication: one thread does, the others wait for it as long as they may."""
        left = seconds_left()
        if not self._switching.acquire(timeout=-1 if left is None else left):
            raise UnavailableError("The first publication is still being loaded: try again soon.")
        try:
            if self._newest is None:
                known = self._trouble.error
                if isinstance(known, UnavailableError) and not self._due():
                    raise UnavailableError(str(known), known.code)
                self._look()
        finally:
            self._switching.release()

    def _look(self) -> bool:
        """:meth:`_follow`, what goes wrong being remembered; the caller holds ``_switching``."""
        try:
            switched = self._follow()
        except Exception as error:  # a damaged publication must not end what serves
            self._checked = self._clock()
            seen = self._trouble.has(error, None if self._newest is None else self._newest.number)
            if seen is error:
                raise
            raise seen from error
        self._trouble.over()
        return switched

    def _leave(self, publication: Publication) -> None:
        with self._lock:
            self._users[publication] -= 1
            idle = not self._users[publication]
            if idle:
                del self._users[publication]
            retired = idle and publication is not self._newest
        if retired:
            publication.view.close()
            self._retired = True

    def _follow(self) -> bool:
        """Load and switch to the newest publication; the caller holds ``_switching``."""
        if self._closed:
            raise PinfeatherError("This client was closed; open another one.")
        self._checked = self._clock()
        self._on_look()
        self._tell_retired()
        before = self._newest
        view = self._newer(None if before is None else before.view)
        if view is None:
            return False
        try:
            publication = Publication(self.paths, view, self._guard)
            self._on_switch(publication)
        except BaseException:
            view.close()
            raise
        with self._lock:
            # Closed meanwhile: the new one goes at once, the old one is let go by close() or its last request.
            self._newest = None if self._closed else publication
            idle = before is not None and not self._closed and not self._users.get(before)
        self._guard.keep_only(publication.reader.collections())
        if self._newest is None:
            publication.view.close()
        if before is not None and idle:
            before.view.close()
            self._retired = True
            self._tell_retired()
        return True

    def _tell_retired(self) -> None:
        if self._retired and self._newest is not None:
            self._retired = False
            self._on_retired(self._newest)

    def _newer(self, before: StoreView | None) -> StoreView | None:
        """The newest publication, what ``before`` has loaded of it being loaded; None if ``before`` is it."""
        if isinstance(before, Snapshot):
            return before.newer()
        place, root = place_of(self.paths), self.paths.root
        if place.path and place.embedded:
            try:
                return Snapshot.newest(Path(place.path).resolve(), place.cache_bytes)
            except NoPublicationError as error:
                load_definitions(self.paths)  # a repository that is not applied says that first
                raise PinfeatherError(
                    f"{root} has nothing to serve yet: run `pinfeather materialize --repo {root}`."
                ) from error
        server = session(place)
        if before is not None and server.number() == before.number:
            return None
        with server.reading() as view:
            return view
