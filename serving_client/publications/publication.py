"""One publication with its release: everything that a request reads comes from one of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics
from feature_repo.paths import RepoPaths
from materialize.definitions import RepoDefinitions, load_definitions
from materialize.releases import LIVE_EMBEDDING, Release
from materialize.spaces import Space, load_space
from materialize.stores.columns import Arrays, Kind, read_columns, vector_kind
from materialize.stores.layout import entity_collection, point_ids
from materialize.stores.port import DEFAULT_VECTOR, CollectionSpec, Point
from materialize.stores.reader import Snapshot
from materialize.stores.session import StoreView
from serving_client.publications.guard import Guard
from serving_client.publications.parts import Part

if TYPE_CHECKING:
    from embedders.bundle import StudentBundle

LIVE = "live"
"""Name under which a caller means the space behind :data:`materialize.releases.LIVE_EMBEDDING`."""


class Publication:
    """One publication with its release; everything a request reads comes from one of these.

    The manifests of its spaces are read at once: one of that name may be dropped and made anew while this still serves.

    :param view: the publication in the store; closed with this.
    :param guard: through which :attr:`reader` reads it.
    :raises PinfeatherError: if the repository is not applied.
    """

    def __init__(self, paths: RepoPaths, view: StoreView, guard: Guard | None = None) -> None:
        guard = guard or Guard()
        self.paths = paths
        self.view = view
        """The publication as the store gives it."""
        self.reader = reader = guard.view(view, remote=not isinstance(view, Snapshot))
        """The same, for reading: fails fast, see :mod:`serving_client.publications.guard`."""
        self.project = load_definitions(paths).project
        manifest = reader.release
        self.release = Release.from_json(manifest) if manifest else Release(0)
        # No method of this one: the cycle would keep what a former publication holds until the collector comes by.
        load_bundle = partial(_load_bundle, paths, self.release)
        self._bundle = Part(f"The bundle {self.release.bundle}", load_bundle, guard.clock)
        load_statistics = partial(_load_statistics, paths, self.release, self._bundle)
        self._statistics = Part(f"The statistics {self.release.lexical}", load_statistics, guard.clock)
        self._spaces: dict[str, Space] = {}
        for name, spec in reader.collections().items():
            with suppress(PinfeatherError):  # one that cannot be read stops nobody else; who asks for it is told
                if (paths.spaces / f"{name}.json").is_file():
                    self._spaces[name] = self._load_space(name, spec)

    @property
    def number(self) -> int:
        """The number of the publication."""
        return self.reader.number

    @property
    def created_at(self) -> datetime | None:
        """When it was made, in UTC; of a server the release, as there are no publications. None if nobody says."""
        text = self.view.created_at if isinstance(self.view, Snapshot) else self.release.created_at
        return datetime.fromisoformat(text).astimezone(UTC) if text else None

    @property
    def keeps_rows(self) -> bool:
        """Whether what was read once costs next to nothing the next time: so of a folder, not of a server."""
        return isinstance(self.view, Snapshot)

    @cached_property
    def definitions(self) -> RepoDefinitions:
        """Views and services, as they were when this publication was first asked for features."""
        return load_definitions(self.paths)

    @property
    def bundle(self) -> StudentBundle | None:
        """The student bundle that the release names; one that failed to load is tried again, see :class:`Part`.

        :raises PinfeatherError: if it is not there or damaged.
        """
        return self._bundle.get() if self.release.bundle else None

    @property
    def statistics(self) -> LexicalStatistics | None:
        """The statistics snapshot that the release names; without one, the bundle's copy.

        :raises PinfeatherError: if it is not there, damaged or of another lexical version.
        """
        return self._statistics.get() if self.release.lexical or self.release.bundle else None

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
        return self.reader.get_many(space.name, self.point_ids(space, pin_ids), payload, True)

    def point_ids(self, space: Space, pin_ids: Sequence[str]) -> list[str]:
        """Ids of the points that hold the vectors of pins."""
        return point_ids(self.project, self.view_of(space), "pin_id", pin_ids)

    def vectors(self, space: Space, pin_ids: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of pins, float32 [n, d], the caller's own; a row of NaN where there is none."""
        return self.vector_columns(space, pin_ids)[DEFAULT_VECTOR]

    def vector_columns(self, space: Space, pin_ids: Sequence[str]) -> Arrays:
        """``vector`` as in :meth:`vectors`, and ``event_ts`` datetime64[us] [n], NaT where unknown.

        What was read before is kept as arrays: several times as fast as :meth:`vector_points`.
        """
        return read_columns(self.reader, space.name, self.vector_kind(space), pin_ids)

    def vector_kind(self, space: Space) -> Kind:
        """How :meth:`vector_columns` are read."""
        return vector_kind(self.project, self.view_of(space), "pin_id", space.dimension)

    def pin_columns(self, kind: Kind, pin_ids: Sequence[str]) -> Arrays:
        """Arrays of the rows of a view, kept as :meth:`vectors` are."""
        collection = entity_collection(self.project, ["pin_id"])
        if collection not in self.reader.collections():
            return kind.arrays([None] * len(pin_ids))
        return read_columns(self.reader, collection, kind, pin_ids)

    def rows(self, views: Sequence[str], pin_ids: Sequence[str], payload: Sequence[str] | bool = True) -> Any:
        """View to its rows of ``pin_ids``, all read at once; None where there is no row."""
        collection = entity_collection(self.project, ["pin_id"])
        if collection not in self.reader.collections():
            return {view: [None] * len(pin_ids) for view in views}
        ids = [each for view in views for each in point_ids(self.project, view, "pin_id", pin_ids)]
        points = self.reader.get_many(collection, ids, payload)
        n = len(pin_ids)
        return {view: points[place * n : (place + 1) * n] for place, view in enumerate(views)}


def _load_bundle(paths: RepoPaths, release: Release) -> StudentBundle:
    from embedders.bundle import StudentBundle

    return StudentBundle.load(paths.bundles / str(release.bundle))


def _load_statistics(paths: RepoPaths, release: Release, bundle: Part[StudentBundle]) -> LexicalStatistics | None:
    if release.lexical:
        return LexicalStatistics.load(paths.lexical / f"{release.lexical}.json")
    return bundle.get().statistics if release.bundle else None
