"""What interests are worth in a home feed: made-up people with several interests, on real products.

Run from the checkout's root (two minutes on 2 cores; ``--people 20`` for a quick look):

    .venv/bin/python -m benchmarks.home_feed --data PATH

PATH is what ``pinfeather import crowdflower`` takes; the default is the copy in ``../shared/data`` if it is there. The
products of ``--queries`` queries are materialized with the packaged model. A person has 2, 3 or 5 of the queries as
interests, and for each 1 to 8 of the products that were judged perfect for it as recent pins, shuffled. Of 20 pins that
a feed shows,

* ``fitting`` is the share that were judged perfect for one of the person's queries (what nobody judged does not fit),
* ``served`` the share of the interests from which at least one fitting pin is there.

Ways: ``mean``, the pins near the unit mean of all recent pins; ``each``, turns among the ten newest pins with
weights of 0.8 to the power of their place; ``interests``, the client's home feed. None explores; all fold
near-duplicates, leave out recent pins and diversify alike. 95 % intervals by bootstrap over people. A second table is
by the distance at which clusters are cut: how well they recover the queries behind recent pins (adjusted Rand index,
clusters per interest), and what the feed is then worth.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.crowdflower import DATA
from benchmarks.machine import machine, save
from feature_repo.aggregates import aggregate
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from materialize.run import RunOptions, materialize
from pinfeather.apply import apply_definitions
from pinfeather.importers.crowdflower import import_crowdflower
from pinfeather.init import init_repository
from serving_client import PinClient
from serving_client.lists import interests
from serving_client.lists.clusters import ward_clusters
from serving_client.lists.diversity import Diversifier, Pool
from serving_client.lists.interests import SmoothTurns

LIMIT, DIVERSITY, NEAREST = 20, 0.3, 200
CUTS = (1.2, 1.4, 1.5, 1.6, 1.75, 2.0, 2.5)
CUT = interests.JOIN_DISTANCE
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Person:
    """Recent pins, the newest first, and for each the interest that it belongs to."""

    recent: list[str]
    interests: list[str]


@dataclass(frozen=True)
class Shop:
    """The products with their vectors, and what is perfect for which query."""

    ids: list[str]
    vectors: Vectors
    perfect: dict[str, list[str]]

    def rows(self, pins: Sequence[str]) -> list[int]:
        """Where pins stand."""
        place = {pin_id: row for row, pin_id in enumerate(self.ids)}
        return [place[pin_id] for pin_id in pins]


def repository(folder: Path, data: Path, queries: int, seed: int) -> RepoPaths:
    """A repository with the products of some queries, materialized."""
    table = pq.read_table(data)
    drawn = random.Random(seed).sample(sorted(set(table["query"].to_pylist())), queries)
    wanted = np.isin(np.array(table["query"].to_pylist(), dtype=object), drawn)
    pq.write_table(table.filter(wanted), folder / "pairs.parquet")
    paths = RepoPaths(folder / "repo")
    import_crowdflower(folder / "pairs.parquet", paths.raw)
    init_repository(paths.root)
    validate(paths)
    aggregate(paths)
    apply_definitions(paths)
    materialize(paths, RunOptions())
    return paths


def shop_of(paths: RepoPaths, client: PinClient) -> Shop:
    """The products as the client has them."""
    judged = pq.read_table(paths.raw / "judgments").to_pylist()
    ids = sorted({row["pin_id"] for row in judged})
    embedded = client.pin_embeddings(ids)
    kept = [pin_id for pin_id, found in zip(ids, embedded.found, strict=True) if found]
    known = set(kept)
    perfect: dict[str, list[str]] = {}
    for row in judged:
        if row["level"] == 5 and row["pin_id"] in known:
            perfect.setdefault(row["query"], []).append(row["pin_id"])
    return Shop(kept, embedded.vectors[embedded.found], {q: sorted(set(p)) for q, p in perfect.items() if len(p) >= 12})


def draw_person(shop: Shop, drawing: random.Random) -> Person:
    """Somebody with 2, 3 or 5 interests and 1 to 8 recent pins of each."""
    pairs = {}
    for query in drawing.sample(sorted(shop.perfect), drawing.choice((2, 3, 5))):
        for pin_id in drawing.sample(shop.perfect[query], drawing.randint(1, 8)):
            pairs[pin_id] = query
    recent = list(pairs)
    drawing.shuffle(recent)
    return Person(recent, [pairs[pin_id] for pin_id in recent])


def by_turns(shop: Shop, person: Person, sources: Vectors, weights: NDArray[np.float64]) -> list[str]:
    """Turns among ``sources``, each giving the best of its nearest by maximal marginal relevance."""
    own = shop.rows(person.recent)
    nearest = np.argsort(-(sources @ shop.vectors.T), axis=1)[:, :NEAREST]
    rows = np.unique(nearest)
    ids = [shop.ids[row] for row in rows]
    diversifier = Diversifier(Pool(ids, shop.vectors[rows], [None] * len(rows)), DIVERSITY)
    diversifier.fold(shop.vectors[own], [None] * len(own))
    similar = sources @ shop.vectors[rows].T
    near = np.stack([np.isin(rows, each) for each in nearest])
    turns = SmoothTurns(weights)
    shown: list[str] = []
    while len(shown) < LIMIT and (turn := turns.next()) is not None:
        row = diversifier.take(similar[turn], near[turn])
        if row is None:
            turns.leave(turn)
        else:
            shown.append(ids[row])
    return shown


def ways(shop: Shop, client: PinClient) -> dict[str, Callable[[Person], list[str]]]:
    """Name to what makes a feed."""

    def mean(person: Person) -> list[str]:
        middle = shop.vectors[shop.rows(person.recent)].mean(axis=0)
        return by_turns(shop, person, (middle / np.linalg.norm(middle))[None], np.ones(1))

    def each(person: Person) -> list[str]:
        sources = shop.vectors[shop.rows(person.recent[:10])]
        return by_turns(shop, person, sources, 0.8 ** np.arange(len(sources), dtype=np.float64))

    def clustered(person: Person) -> list[str]:
        feed = client.home_feed(person.recent, LIMIT, diversity=DIVERSITY, exploration=0)
        return [hit.pin_id for hit in feed.hits]

    return {"mean": mean, "each": each, "interests": clustered}


def judge(shop: Shop, person: Person, shown: Sequence[str]) -> tuple[float, float]:
    """``fitting`` and ``served`` of one feed."""
    perfect = {query: set(shop.perfect[query]) for query in set(person.interests)}
    fitting = sum(any(pin_id in pins for pins in perfect.values()) for pin_id in shown) / LIMIT
    served = sum(bool(pins & set(shown)) for pins in perfect.values()) / len(perfect)
    return fitting, served


def interval(values: NDArray[np.float64], seed: int) -> list[float]:
    """Mean and its 95 % interval, by bootstrap over people."""
    draws = np.random.default_rng(seed).integers(0, len(values), size=(1000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
    return [round(float(each), 4) for each in (values.mean(), low, high)]


def by_cut(shop: Shop, people: Sequence[Person], feed: Callable[[Person], list[str]]) -> list[dict[str, float]]:
    """For each cut how well clusters recover interests, and what the feed is worth."""
    from sklearn.metrics import adjusted_rand_score

    rows = []
    for cut in CUTS:
        interests.JOIN_DISTANCE = cut
        found = []
        for person in people:
            clusters = ward_clusters(shop.vectors[shop.rows(person.recent)], cut)
            labels = np.empty(len(person.recent), dtype=np.int64)
            for number, members in enumerate(clusters):
                labels[members] = number
            rand = adjusted_rand_score(person.interests, labels)
            found.append((rand, len(clusters) / len(set(person.interests)), *judge(shop, person, feed(person))))
        means = (round(float(each), 3) for each in np.mean(found, axis=0))
        rows.append({"cut": cut, **dict(zip(("rand", "clusters", "fitting", "served"), means, strict=True))})
    interests.JOIN_DISTANCE = CUT
    return rows


def main() -> None:
    """Run all, print the tables in Markdown, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--people", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report: dict[str, Any] = machine("home_feed", ("torch", "numpy"))
    with tempfile.TemporaryDirectory() as folder:
        paths = repository(Path(folder), options.data, options.queries, options.seed)
        with PinClient(paths.root) as client:
            shop = shop_of(paths, client)
            drawing = random.Random(options.seed)
            people = [draw_person(shop, drawing) for _ in range(options.people)]
            made = ways(shop, client)
            judged = {
                name: np.array([judge(shop, person, way(person)) for person in people]) for name, way in made.items()
            }
            cuts = by_cut(shop, people, made["interests"])
    figures = {
        name: {key: interval(values[:, column], options.seed) for column, key in enumerate(("fitting", "served"))}
        for name, values in judged.items()
    }
    print(f"{len(shop.ids)} products, {len(shop.perfect)} queries, {len(people)} people\n")
    print("| way | fitting | served |\n|---|---|---|")
    for name, row in figures.items():
        cells = (f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in row.values())
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| cut | adjusted Rand index | clusters per interest | fitting | served |\n|---|---|---|---|---|")
    for row in cuts:
        print(
            f"| {row['cut']} | {row['rand']:.3f} | {row['clusters']:.2f} | {row['fitting']:.3f} | {row['served']:.3f} |"
        )
    sizes = {"products": len(shop.ids), "queries": len(shop.perfect), "people": len(people), "cut": CUT}
    save("home_feed", report | sizes | {"figures": figures, "cuts": cuts})


if __name__ == "__main__":
    main()
