"""What the client reads from: the newest publication, followed while requests go on over the one they began with."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics
from feature_repo.paths import RepoPaths
from materialize.definitions import RepoDefinitions, load_definitions
from materialize.places import place_of
from materialize.releases import LIVE_EMBEDDING, Release
from materialize.spaces import Space, load_space
from materialize.stores.errors import NoPublicationError, StoreError
from materialize.stores.layout import entity_collection, point_ids
from materialize.stores.port import DEFAULT_VECTOR, CollectionSpec, Point
from materialize.stores.reader import Snapshot
from materialize.stores.session import StoreView, session

if TYPE_CHECKING:
    from embedders.bundle import StudentBundle

logger = logging.getLogger(__name__)

LIVE = "live"
"""Name under which a caller means the space behind :data:`materialize.releases.LIVE_EMBEDDING`."""


class Publication:
    """One publication with its release; everything a request reads comes from one of these.

    The manifests of its spaces are read at once: one of that name may be dropped and made anew while this still serves.

    :param reader: the publication in the store; closed with this.
    :raises PinfeatherError: if the repository is not applied.
    """

    def __init__(self, paths: RepoPaths, reader: StoreView) -> None:
        self.paths = paths
        self.reader = reader
        self.project = load_definitions(paths).project
        manifest = reader.release
        self.release = Release.from_json(manifest) if manifest else Release(0)
        self._spaces: dict[str, Space] = {}
        for name, spec in reader.collections().items():
            with suppress(PinfeatherError):  # one that cannot be read stops nobody else; who asks for it is told
                if (paths.spaces / f"{name}.json").is_file():
                    self._spaces[name] = self._load_space(name, spec)

    @property
    def number(self) -> int:
        """The number of the publication."""
        return self.reader.number

    @cached_property
    def definitions(self) -> RepoDefinitions:
        """Views and services, as they were when this publication was first asked for features."""
        return load_definitions(self.paths)

    @cached_property
    def bundle(self) -> StudentBundle | None:
        """The student bundle that the release names.

        :raises PinfeatherError: if it is not there or damaged.
        """
        if not self.release.bundle:
            return None
        from embedders.bundle import StudentBundle

        return StudentBundle.load(self.paths.bundles / self.release.bundle)

    @cached_property
    def statistics(self) -> LexicalStatistics | None:
        """The statistics snapshot that the release names; without one, the bundle's copy.

        :raises PinfeatherError: if it is not there, damaged or of another lexical version.
        """
        if self.release.lexical:
            return LexicalStatistics.load(self.paths.lexical / f"{self.release.lexical}.json")
        return self.bundle.statistics if self.bundle else None

    def space(self, name: str = LIVE) -> Space:
        """The space called ``name``: ``live``, a public name of the release, or a physical name.

        :raises PinfeatherError: if there is none (the message lists those there are), or its manifest does not fit.
        """
        physical = self._physical(name)
        if physical not in self._spaces:
            self._spaces[physical] = self._load_space(physical, self.reader.collections().get(physical))
        return self._spaces[physical]

    def _load_space(self, name: str, spec: CollectionSpec | None) -> Space:
        space = load_space(self.paths, name)
        vector = spec.vectors.get(DEFAULT_VECTOR) if spec else None
        if vector is not None and vector.size != space.dimension:
            raise PinfeatherError(
                f"Space {name} has {vector.size} dimensions in publication {self.number}, and its manifest says "
                f"{space.dimension}: it was made anew meanwhile, so ask again once that is published; if it stays so, "
                f"`pinfeather spaces drop {name}` and create it again."
            )
        return space

    def _physical(self, name: str) -> str:
        public = LIVE_EMBEDDING if name == LIVE else name
        if public in self.release.names:
            return self.release.names[public]
        spaces = self.spaces()
        if name in spaces:
            return name
        if name == LIVE:
            raise PinfeatherError(
                f"No space is live in {self.paths.root}: run `pinfeather materialize --repo {self.paths.root}`."
            )
        known = [LIVE, *sorted(self.release.names), *spaces] if self.release.names else spaces
        raise UsageError(f"There is no space {name!r}; there are: {', '.join(known) or 'none yet'}.")

    def spaces(self) -> list[str]:
        """Physical names of the spaces that can be read."""
        there = self.reader.collections()
        return [name for name in there if name in self._spaces or (self.paths.spaces / f"{name}.json").is_file()]

    def opened(self, names: Iterable[str]) -> list[Space]:
        """Of the spaces ``names``, by their physical names, those whose manifests this has read."""
        return [self._spaces[name] for name in names if name in self._spaces]

    def view_of(self, space: Space) -> str:
        """The embedding view under which the space's points have their ids."""
        return next((view for view, name in self.release.names.items() if name == space.name), LIVE_EMBEDDING)

    def vector_points(
        self, space: Space, pin_ids: Sequence[str], payload: Sequence[str] | bool = False
    ) -> list[Point | None]:
        """Points of ``space`` with their vectors, in the order of ``pin_ids``; None for an unknown pin."""
        ids = point_ids(self.project, self.view_of(space), "pin_id", pin_ids)
        return self.reader.get_many(space.name, ids, payload, True)

    def rows(self, views: Sequence[str], pin_ids: Sequence[str], payload: Sequence[str] | bool = True) -> Any:
        """View to its rows of ``pin_ids``, all read at once; None where there is no row."""
        collection = entity_collection(self.project, ["pin_id"])
        if collection not in self.reader.collections():
            return {view: [None] * len(pin_ids) for view in views}
        ids = [each for view in views for each in point_ids(self.project, view, "pin_id", pin_ids)]
        points = self.reader.get_many(collection, ids, payload)
        n = len(pin_ids)
        return {view: points[place * n : (place + 1) * n] for place, view in enumerate(views)}


class Publications:
    """Hands out the newest publication; looks for a newer one at most every ``interval`` seconds.

    A request keeps the publication it began with. While one thread loads a newer one, the others go on over the old
    one, which is closed when its last request is done.

    :param on_switch: called with each publication before it serves.
    """

    def __init__(
        self,
        paths: RepoPaths,
        on_switch: Callable[[Publication], None],
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.paths = paths
        self.interval = interval
        self._on_switch = on_switch
        self._clock = clock
        self._checked = clock()
        self._lock = threading.Lock()
        self._switching = threading.Lock()
        self._newest: Publication | None = None
        self._users: dict[Publication, int] = {}
        self._closed = False

    @contextmanager
    def current(self) -> Iterator[Publication]:
        """The publication for one request."""
        publication = self._enter()
        try:
            yield publication
        finally:
            self._leave(publication)

    def refresh(self) -> bool:
        """Switch to the newest publication now; whether there was a newer one."""
        with self._switching:
            return self._follow()

    def close(self) -> None:
        """Let everything go; requests that are under way finish first."""
        with self._lock:
            self._closed = True
            newest, self._newest = self._newest, None
            idle = newest is not None and not self._users.get(newest)
        if newest is not None and idle:
            newest.reader.close()

    def _enter(self) -> Publication:
        if self._newest is None:
            with self._switching:
                self._follow()
        elif self._clock() - self._checked >= self.interval and self._switching.acquire(blocking=False):
            try:
                self._follow()
            except (StoreError, PinfeatherError) as error:
                logger.warning("publication %d goes on serving: %s", self._newest.number, error)
            finally:
                self._switching.release()
        with self._lock:
            publication = self._newest
            if publication is None:
                raise PinfeatherError("This client was closed; open another one.")
            self._users[publication] = self._users.get(publication, 0) + 1
            return publication

    def _leave(self, publication: Publication) -> None:
        with self._lock:
            self._users[publication] -= 1
            idle = not self._users[publication]
            if idle:
                del self._users[publication]
            retired = idle and publication is not self._newest
        if retired:
            publication.reader.close()

    def _follow(self) -> bool:
        """Load and switch to the newest publication; the caller holds ``_switching``."""
        if self._closed:
            raise PinfeatherError("This client was closed; open another one.")
        self._checked = self._clock()
        before = self._newest
        reader = self._newer(None if before is None else before.reader)
        if reader is None:
            return False
        try:
            publication = Publication(self.paths, reader)
            self._on_switch(publication)
        except BaseException:
            reader.close()
            raise
        with self._lock:
            # Closed meanwhile: the new one goes at once, the old one is let go by close() or its last request.
            self._newest = None if self._closed else publication
            idle = before is not None and not self._closed and not self._users.get(before)
        if self._newest is None:
            publication.reader.close()
        if before is not None and idle:
            before.reader.close()
        return True

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
