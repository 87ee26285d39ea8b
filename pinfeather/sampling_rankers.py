"""Who predicts a level of each pair of a sample, and retrieves pins that were not shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics, bm25_ranking, decode_blobs, query_ids
from feature_repo.lexical.scoring import bm25_per_pin, find_hits
from feature_repo.paths import RepoPaths
from materialize.releases import current_release

if TYPE_CHECKING:
    from embedders.encoder import Encoder
    from serving_client import PinClient

SCORERS = ("auto", "student", "zero-shot", "bm25")
"""``auto``: the first of the others that there is."""
UNKNOWN = "unknown"
THIRDS = ("low", "middle", "high")

_WARMED = 256
_BLOBS = 16_384


class Ranker(Protocol):
    """Scores the pairs of a sample and finds pins for its queries."""

    scorer: str
    """``student``, ``zero-shot`` or ``bm25``."""
    model: str
    """What scores, by name: another one gives another sample."""

    def scores(self, queries: Sequence[str], pins: Sequence[str]) -> NDArray[np.float64]:
        """[n] of n pairs; expected levels by the student, else what ranks; NaN where there is none."""
        ...

    def retrieve(self, queries: Sequence[str], limit: int) -> list[list[str]]:
        """For each query its best ``limit`` pins."""
        ...


@contextmanager
def open_ranker(
    paths: RepoPaths, scorer: str, device: str = "auto", encoder: Encoder | None = None
) -> Iterator[Ranker]:
    """The ranker asked for.

    :param encoder: a query tower at hand; by default that of the live space is loaded.
    :raises UsageError: for an unknown scorer, or one that the release has not.
    """
    if scorer not in SCORERS:
        raise UsageError(f"--scorer {scorer!r}: allowed are {', '.join(SCORERS)}.")
    release = current_release(paths)
    with ExitStack() as stack:
        if scorer == "bm25" or release is None or release.live_space is None:
            if scorer in ("student", "zero-shot"):
                raise UsageError(
                    f"--scorer {scorer} reads the vectors of the live space, and {paths.root} has none: run "
                    "`pinfeather materialize` first, or leave --scorer out."
                )
            yield LexicalRanker(paths)
            return
        from serving_client import PinClient

        client = stack.enter_context(PinClient(paths.root, device=device, encoder=encoder))
        yield ServedRanker(client, scorer)


class ServedRanker:
    """The release as it serves: its student, else the cosine; pins by the vectors of the live space."""

    def __init__(self, client: PinClient, wanted: str) -> None:
        self._client = client
        probe = client.score("", [], scorer="zero-shot" if wanted == "zero-shot" else "student")
        if wanted == "student" and probe.scorer != wanted:
            why = probe.degraded[0].partition(": ")[2].partition("; scored by ")[0]
            raise UsageError(f"--scorer student: {why}. Train one, or leave --scorer out.")
        self.scorer = probe.scorer
        self.model = probe.bundle or probe.space or ""

    def _warm(self, queries: Sequence[str]) -> None:
        """Query vectors into the client's cache, many at once."""
        self._client.embed_queries(queries)

    def scores(self, queries: Sequence[str], pins: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`Ranker`; each query's pins are read at once."""
        found = np.full(len(queries), np.nan)
        groups = _groups(queries)
        names = list(groups)
        for start in range(0, len(names), _WARMED):
            self._warm(names[start : start + _WARMED])
            for query in names[start : start + _WARMED]:
                rows = groups[query]
                found[rows] = self._client.score(query, [pins[row] for row in rows], scorer=self.scorer).ranking
        return found

    def retrieve(self, queries: Sequence[str], limit: int) -> list[list[str]]:
        """See :class:`Ranker`; found as serving finds candidates, by vector and by words, the nearest vectors first."""
        lists: list[list[str]] = []
        for start in range(0, len(queries), _WARMED):
            some = queries[start : start + _WARMED]
            self._warm(some)
            for query in some:
                hits = self._client.search(query, limit, limit, scorer="zero-shot").hits
                lists.append([hit.pin_id for hit in hits])
        return lists


class LexicalRanker:
    """BM25 over the token blobs of the catalogue, without a model: all fields of a pin as one document."""

    scorer = "bm25"

    def __init__(self, paths: RepoPaths) -> None:
        self._file = paths.views / "pin_relevance.parquet"
        if not self._file.is_file():
            raise PinfeatherError(f"{self._file} does not exist yet: run `pinfeather aggregate` first.")
        release = current_release(paths)
        if release and release.lexical:
            self._statistics = LexicalStatistics.load(paths.lexical / f"{release.lexical}.json")
        else:
            self._statistics = LexicalStatistics.fit(blob for _, blobs in self._blobs() for blob in blobs)
        self.model = self._statistics.digest

    def _blobs(self) -> Iterator[tuple[list[str], list[bytes]]]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._file) as opened:
            for batch in opened.iter_batches(_BLOBS, columns=["pin_id", "tokens"]):
                yield batch["pin_id"].to_pylist(), batch["tokens"].to_pylist()

    def scores(self, queries: Sequence[str], pins: Sequence[str]) -> NDArray[np.float64]:
        """See :class:`Ranker`; NaN for a pin that is not in the catalogue."""
        wanted = set(pins)
        blobs: dict[str, bytes] = {}
        for names, tokens in self._blobs():
            blobs.update(pair for pair in zip(names, tokens, strict=True) if pair[0] in wanted)
        found = np.full(len(queries), np.nan)
        for query, rows in _groups(queries).items():
            there = [row for row in rows if pins[row] in blobs]
            found[there] = bm25_ranking(query, [blobs[pins[row]] for row in there], self._statistics)
        return found

    def retrieve(self, queries: Sequence[str], limit: int) -> list[list[str]]:
        """See :class:`Ranker`; one pass over the catalogue, pins without a word of the query left out."""
        ids = [query_ids(query) for query in queries]
        best: list[list[tuple[float, str]]] = [[] for _ in queries]
        for names, tokens in self._blobs():
            candidates = decode_blobs(tokens)
            for number, query in enumerate(ids):
                hits = find_hits(query, candidates).over_all_fields(candidates)
                scored = np.nan_to_num(bm25_per_pin(hits, candidates, self._statistics))
                rows = np.flatnonzero(scored > 0)
                best[number] += [(-float(scored[row]), names[row]) for row in rows]
                best[number] = sorted(best[number])[:limit]
        return [[name for _, name in found] for found in best]


def predicted(scorer: str, scores: NDArray[np.float64], pool: NDArray[np.float64]) -> list[str]:
    """The predicted level of each score, in words.

    By the student: ``1`` to ``5``, the expected level rounded, halves up. By others: the third of the scores of
    ``pool`` that the score is in. ``unknown`` without a score.
    """
    if scorer == "student":
        named = np.floor(np.nan_to_num(scores) + 0.5).astype(np.int64).astype(str)
        return [UNKNOWN if np.isnan(score) else str(name) for score, name in zip(scores, named, strict=True)]
    known = np.sort(pool[~np.isnan(pool)])
    cuts = known[[len(known) // 3, 2 * len(known) // 3]] if len(known) else np.zeros(2)
    thirds = np.searchsorted(cuts, scores, side="right")
    return [UNKNOWN if np.isnan(score) else THIRDS[third] for score, third in zip(scores, thirds, strict=True)]


def _groups(queries: Sequence[str]) -> dict[str, list[int]]:
    """Rows by query, queries in order, so that the same pairs are scored in the same batches."""
    rows: dict[str, list[int]] = {}
    for row, query in enumerate(queries):
        rows.setdefault(query, []).append(row)
    return dict(sorted(rows.items()))
