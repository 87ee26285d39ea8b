"""Two spaces beside each other, and a space beside its source: coverage, neighbours, cosine.

Points have the same ids in every space, and ids are spread evenly: the points that follow a random id are a random
sample, the same pins in both spaces.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.definitions import load_definitions
from materialize.ledger import Ledger
from materialize.places import read_store
from materialize.plan import Kind, open_pin_scan, pin_changes
from materialize.releases import current_release
from materialize.scan import connect, held_pins
from materialize.spaces import Space, load_space
from materialize.stores.layout import stack_vectors
from materialize.stores.port import Point, VectorStore

NEIGHBOURS = 10
SAMPLE = 200
"""Pins whose neighbours are compared, unless told otherwise."""
_TIE = 1e-6
_PAGE = 1000


@dataclass(frozen=True)
class Freshness:
    """A space beside its source, as of now."""

    wanted: int
    """Pins with text under the space's template, without those in quarantine."""
    current: int
    """Those that the space holds a vector of their present text of."""
    behind: int
    """Pins that the next run would write or delete."""
    quarantined: int
    """Pins whose text the encoder cannot take."""

    @property
    def coverage(self) -> float:
        """Share of the wanted pins that are current; 1 where none is wanted."""
        return self.current / self.wanted if self.wanted else 1.0


def freshness(paths: RepoPaths, space: Space, ledger: Ledger, store: VectorStore) -> Freshness:
    """Scan the source against the ledger of ``space`` and count its points in ``store``.

    :raises PinfeatherError: if the repository is not applied, or a source cannot be read.
    """
    set_aside = ledger.quarantined(space.name)
    with connect(paths.ledger) as con:
        scan = open_pin_scan(con, load_definitions(paths), space, ledger, held_pins(paths))
        wanted, behind = scan.unchanged - scan.still_empty, len(scan.gone)
        current, quarantined = wanted, 0
        for batch in pin_changes(scan, space):
            for change in batch:
                if change.kind is Kind.REJECTED:
                    behind += change.had_vector
                elif change.text_fp in set_aside and change.kind in (Kind.NEW, Kind.CHANGED):
                    quarantined += 1
                else:
                    wanted += 1
                    current += change.kind in (Kind.TOUCHED, Kind.PAYLOAD_ONLY)
                    behind += change.kind is not Kind.TOUCHED
    stored = store.count(space.name) if space.name in store.collections() else 0
    lost = min(current, max(0, ledger.summary(space.name).vectors - stored))  # pins in quarantine have points too
    return Freshness(wanted, current - lost, behind + lost, quarantined)


@dataclass(frozen=True)
class Comparison:
    """Two spaces beside each other; NaN where there is nothing to compare."""

    a: str
    b: str
    points_a: int
    points_b: int
    common: int
    """Pins with a vector in both."""
    sample: int
    """Pins, drawn from ``a``, that the two figures below are means over."""
    overlap: float
    """Share of a pin's ten nearest pins in ``a`` that are among its ten nearest in ``b`` too; searches are exact."""
    mean_cosine: float
    """Between the two vectors of a pin; only where the dimensions agree."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        data = asdict(self)
        data["overlap@10"] = data.pop("overlap")
        return data


def compare_spaces(
    a: Space, b: Space, store: VectorStore, sample: int = SAMPLE, seed: int = 0, *, count_common: bool = True
) -> Comparison:
    """Counts of both spaces in ``store``, overlap of neighbours and mean cosine over a sample.

    :param count_common: go through the ids of both; without it ``common`` is 0.
    :raises PinfeatherError: if one of them has no collection.
    """
    for space in (a, b):
        if space.name not in store.collections():
            raise PinfeatherError(
                f"Space {space.name} has no collection in the store: run `pinfeather restore --space {space.name}`."
            )
    ours = _sample(store, a.name, sample, seed)
    theirs = store.get_many(b.name, [point.id for point in ours], False, True)
    both = [(one, other) for one, other in zip(ours, theirs, strict=True) if other is not None]
    overlaps = [_overlap(store, a.name, b.name, one, other) for one, other in both]
    cosines = [_vector(one) @ _vector(other) for one, other in both if a.dimension == b.dimension]
    return Comparison(
        a=a.name,
        b=b.name,
        points_a=store.count(a.name),
        points_b=store.count(b.name),
        common=_common(store, a.name, b.name) if count_common else 0,
        sample=len(both),
        overlap=float(np.mean(overlaps)) if overlaps else float("nan"),
        mean_cosine=float(np.mean(cosines)) if cosines else float("nan"),
    )


def diff_spaces(paths: RepoPaths, a: str, b: str, sample: int = SAMPLE, seed: int = 0) -> dict[str, Any]:
    """:func:`compare_spaces` as readers see both, with the coverage of their manifests; ``live`` names a space too.

    :raises UsageError: if there is no such space.
    """
    release = current_release(paths)
    live = (release.live_space if release else None) or "live"
    one, other = (load_space(paths, live if name == "live" else name) for name in (a, b))
    with read_store(paths) as store:
        found = compare_spaces(one, other, store, sample, seed).to_json()
    return {**found, "coverage_a": one.coverage, "coverage_b": other.coverage, "seed": seed}


def _sample(store: VectorStore, name: str, size: int, seed: int) -> list[Point]:
    """The points after a random id, from the beginning again where there are too few."""
    start = str(uuid.UUID(int=random.Random(seed).getrandbits(128), version=5))
    points, _ = store.scroll(name, limit=size, after=start, with_payload=False, with_vectors=True)
    if len(points) < size:
        known = {point.id for point in points}
        more, _ = store.scroll(name, limit=size, with_payload=False, with_vectors=True)
        points = [*points, *(point for point in more if point.id not in known)][:size]
    return points


def _overlap(store: VectorStore, a: str, b: str, one: Point, other: Point) -> float:
    """Neighbours of one pin in ``a`` that are at least as near in ``b`` as the last of its neighbours there.

    By nearness and not by name: pins of one text are equally near, and which of them are found is chance.
    """
    near = [hit.id for hit in store.search(a, _vector(one), NEIGHBOURS + 1, with_payload=False, exact=True)]
    near = [each for each in near if each != one.id][:NEIGHBOURS]
    scores = [
        hit.score
        for hit in store.search(b, _vector(other), NEIGHBOURS + 1, with_payload=False, exact=True)
        if hit.id != other.id
    ][:NEIGHBOURS]
    if not near or not scores:
        return 1.0 if not near and not scores else 0.0
    size = len(_vector(other))
    similar = stack_vectors(store.get_many(b, near, False, True), size) @ _vector(other)
    return float(np.mean(similar >= min(scores) - _TIE))  # NaN, a pin that b lacks, is no neighbour


def _vector(point: Point) -> np.ndarray:
    return np.asarray(next(iter(point.vectors.values())), np.float32)


def _common(store: VectorStore, a: str, b: str) -> int:
    """Ids in both, page by page."""
    common, after = 0, None
    while True:
        points, after = store.scroll(a, limit=_PAGE, after=after, with_payload=False)
        common += sum(found is not None for found in store.get_many(b, [point.id for point in points], False))
        if after is None:
            return common
