"""Drawing a sample, with the weight of every pair.

Shown pairs are drawn in two phases (Neyman 1938, sampling for stratification): from every stratum of language, band
and freshness up to :data:`POOL` times the pairs that it is to give; for these a level is predicted, and by it the pairs
are drawn inside the stratum. With N pairs in a stratum, n of them in the pool, n_l of these at the level of a pair, and
m_l taken, its weight is N / n * n_l / m_l: one over the chance that it is in the sample (Horvitz and Thompson 1952), so
that weighted sums estimate those over all shown pairs, and the weights of a stratum sum to its size.

Pairs that were retrieved but shown to nobody are drawn query by query: of Q queries of a language and band q are
searched for, c of the pins found for a query were not shown, and k of these are taken: weight Q / q * c / k.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pinfeather.sampling_frame import Frame
from pinfeather.sampling_quota import allocate, split
from pinfeather.sampling_rankers import Ranker, predicted

POOL = 10
"""Pairs of a stratum that a level is predicted for, for each one that is taken."""
PER_QUERY = 5
"""Pairs that were not shown, for each query that is searched for."""
SHOWN, UNSHOWN = "shown", "unshown"

SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("pin_id", pa.string()),
        ("source", pa.string()),
        ("lang", pa.string()),
        ("band", pa.string()),
        ("freshness", pa.string()),
        ("level", pa.string()),
        ("stratum", pa.int32()),
        ("weight", pa.float64()),
        ("visits", pa.int64()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
    ]
)
"""Columns of a sample: ``query`` is canonical, ``level`` the predicted one, ``stratum`` a row of the note's ``strata``,
or of its ``searched`` for a pair that was not shown; ``event_timestamp`` is when the pair was first shown on the days
of the sample, or the end of these."""


@dataclass(frozen=True)
class Drawn:
    """A sample: pairs in the order of query and pin, and what they were drawn from."""

    pairs: pa.Table
    strata: list[dict[str, Any]]
    searched: list[dict[str, Any]]


@dataclass
class _Part:
    """Rows of a table that were taken, each with its stratum and weight."""

    table: pa.Table
    scores: np.ndarray
    rows: list[int]
    strata: list[int]
    weights: list[float]

    def take(self, rows: Sequence[int], stratum: int, weight: float) -> None:
        self.rows += rows
        self.strata += [stratum] * len(rows)
        self.weights += [weight] * len(rows)

    def pairs(self, source: str, scorer: str, pool: np.ndarray) -> pa.Table:
        """These as rows of a sample."""
        taken = self.table.take(pa.array(self.rows, pa.int64()))
        given = {
            "query": taken["q"],
            "source": pa.array([source] * len(taken)),
            "level": pa.array(predicted(scorer, self.scores[self.rows], pool)),
            "stratum": pa.array(self.strata),
            "weight": pa.array(self.weights),
            "event_timestamp": taken["t"],
        }
        columns = [given[name] if name in given else taken[name] for name in SCHEMA.names]
        return pa.table([column.cast(field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


@dataclass(frozen=True)
class Draw:
    """One draw from a frame."""

    frame: Frame
    ranker: Ranker
    rules: Sequence[str]
    """A rule for each of :data:`pinfeather.sampling_quota.DIMENSIONS`."""
    retrieved: int
    say: Callable[[str], None]

    def all(self, count: int, unshown: float) -> Drawn:
        """About ``count`` pairs, of which the share ``unshown`` was shown to nobody.

        Where fewer were found that were not shown, more shown ones are taken.
        """
        parts: list[tuple[str, _Part]] = []
        strata: list[dict[str, Any]] = []
        searched: list[dict[str, Any]] = []
        if wanted := round(count * unshown):
            self.say("retrieved pairs")
            part, searched = self._unshown(wanted)
            parts.append((UNSHOWN, part))
            count -= len(part.rows)
        if count:
            self.say("shown pairs")
            part, strata = self._shown(count)
            parts.append((SHOWN, part))
        pool = parts[-1][1].scores
        tables = [part.pairs(source, self.ranker.scorer, pool) for source, part in parts if part.rows]
        pairs = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        order = [("query", "ascending"), ("pin_id", "ascending")]
        return Drawn(pairs.sort_by(order).combine_chunks(), strata, searched)

    def _shown(self, count: int) -> tuple[_Part, list[dict[str, Any]]]:
        strata = split(self.frame.cells(), count, self.rules[:3])
        sizes = [min(stratum.size, POOL * stratum.take) for stratum in strata]
        table = self.frame.pairs(strata, sizes)
        scores = self._scores(table)
        levels = np.array(predicted(self.ranker.scorer, scores, scores), dtype=object)
        numbers = table["stratum"].to_numpy()
        part = _Part(table, scores, [], [], [])
        told: list[dict[str, Any]] = []
        for number, (stratum, pool) in enumerate(zip(strata, sizes, strict=True)):
            rows = np.flatnonzero(numbers == number)
            cells: dict[tuple[str, ...], int] = {(level,): n for level, n in Counter(levels[rows].tolist()).items()}
            for fine in split(cells, stratum.take, self.rules[3:]):
                weight = stratum.size / pool * (fine.size / fine.take)
                at = rows[np.isin(levels[rows], [level for (level,) in fine.cells])][: fine.take]
                part.take(at.tolist(), len(told), weight)
                named = dict(zip(("lang", "band", "freshness", "level"), (*stratum.key, *fine.key), strict=True))
                counts = {"size": stratum.size, "pool": pool, "pool_level": fine.size, "taken": fine.take}
                told.append({**named, **counts, "weight": weight})
        return part, told

    def _unshown(self, count: int) -> tuple[_Part, list[dict[str, Any]]]:
        """Pairs that were retrieved for sampled queries and shown to nobody, ``count`` of them or all."""
        cells = self.frame.query_cells()
        strata = split(cells, min(sum(cells.values()), -(-count // PER_QUERY)), self.rules[:2])
        queries = self.frame.queries(strata).sort_by("q")
        names = queries["q"].to_pylist()
        lists = self.ranker.retrieve(names, self.retrieved)
        found = [(query, pin_id) for query, pins in zip(names, lists, strict=True) for pin_id in dict.fromkeys(pins)]
        columns = zip(*found, strict=True) if found else ((), ())
        texts = [pa.array(column, pa.string()) for column in columns]
        table = self.frame.unshown(pa.table(texts, ["query", "pin_id"]), queries)
        rows_of: dict[str, list[int]] = {}
        for row, query in enumerate(table["q"].to_pylist()):
            rows_of.setdefault(query, []).append(row)
        takes = allocate([len(rows) for rows in rows_of.values()], count, "equal") if rows_of else []
        taken = dict(zip(rows_of, takes, strict=True))
        part = _Part(table, self._scores(table), [], [], [])
        told: list[dict[str, Any]] = []
        for stratum in strata:
            named = dict(zip(("lang", "band"), stratum.key, strict=True))
            told.append({**named, "queries": stratum.size, "searched": stratum.take, "candidates": 0, "taken": 0})
        for query, number in zip(names, queries["stratum"].to_pylist(), strict=True):
            rows, stratum = rows_of.get(query, []), strata[number]
            if rows:
                weight = stratum.size / stratum.take * (len(rows) / taken[query])
                part.take(rows[: taken[query]], number, weight)
                told[number]["candidates"] += len(rows)
                told[number]["taken"] += taken[query]
        return part, told

    def _scores(self, table: pa.Table) -> np.ndarray:
        return self.ranker.scores(table["q"].to_pylist(), table["pin_id"].to_pylist())
