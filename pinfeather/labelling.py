"""A teacher labels the pairs of samples that are new, or whose text changed; safe to kill and to repeat.

Pairs are taken in the order of a hash of their query, so what is done after a while is a random share of the queries,
and equal pairs of query and text, of which a teacher computes one, are neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedders.evaluation.metrics import LEVELS
from feature_repo.aggregates.session import literal, parquet
from feature_repo.erasures import Erasures
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.history.tables import count
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields, PinTextTemplate
from materialize.scan import TEXT_COLUMNS
from materialize.stores.lease import WriterLease
from pinfeather.catalogue_rows import pins_sql
from pinfeather.duck_session import duck_session
from pinfeather.labelling_store import PROBABILITIES, SCHEMA, LabelFolder, newest_sql, time_after
from pinfeather.sampling import parquet_of, sample_names

if TYPE_CHECKING:
    import duckdb

CHUNK = 2_048
"""Pairs between two writes: what a kill costs."""
_PINS = 8_192
_REMEDY = "Delete a damaged file of labels, or of a sample, and run the command again that writes it."


class LabelsTexts(Protocol):
    """What of a teacher labelling needs; see :class:`embedders.teacher.Teacher`."""

    @property
    def name(self) -> str:
        """As people call it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of weights and settings: the teacher version."""
        ...

    @property
    def template(self) -> PinTextTemplate:
        """The pin text that it reads."""
        ...

    def probabilities(
        self, queries: Sequence[str], texts: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """[n, 5] of n pairs; rows sum to 1."""
        ...


@dataclass(frozen=True)
class LabelOptions:
    """What to label, and how."""

    samples: tuple[str, ...] = ()
    """Names; none means all there are."""
    limit: int | None = None
    """So many pairs at most, the rest by later runs."""
    chunk: int = CHUNK
    lock_timeout: float = 10.0
    progress: Callable[[int, int], None] | None = None
    """Called with (pairs done, pairs to do)."""
    stop: Callable[[], bool] | None = None
    """Asked between two chunks; once it says True the run ends there and ``interrupted`` is set."""


@dataclass
class LabelCounts:
    """What a run did, in pairs."""

    teacher: str
    teacher_version: str
    pairs: int = 0
    """Distinct pairs of the samples."""
    labelled: int = 0
    """Got their first label by this teacher version."""
    relabelled: int = 0
    """Had one of another text."""
    skipped: int = 0
    """Have one of the text that the pin has."""
    gone: int = 0
    """Their pin is not in the catalogue."""
    textless: int = 0
    """Their pin has no text by the teacher's template."""
    remaining: int = 0
    """Left for later runs."""
    encoded_pairs: int = 0
    """Distinct pairs of query and text that the teacher computed."""
    seconds: float = 0.0
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``pinfeather label --json``."""
        return {**vars(self), "seconds": round(self.seconds, 3)}


def label(paths: RepoPaths, teacher: LabelsTexts, options: LabelOptions | None = None) -> LabelCounts:
    """Label the pairs of the samples that this version of the teacher has not labelled as they are now.

    Killed at any moment it has lost one chunk at most; the same call goes on.

    :raises UsageError: for an unknown sample, or without any.
    :raises StoreBusyError: if another process labels.
    :raises PinfeatherError: before the first `aggregate`, if the teacher's answer is none, or if something was erased
        meanwhile: the chunk under way is not written then.
    """
    options = options or LabelOptions()
    samples = chosen_samples(paths, options.samples)
    clock = time.perf_counter()
    with WriterLease(paths.labels / "writer.lock", options.lock_timeout, "label"):
        with duck_session(paths, _REMEDY) as con:
            run = _Run(paths, teacher, options, con, Erasures.load(paths))
            run.work(samples)
        run.counts.seconds = time.perf_counter() - clock
    return run.counts


def chosen_samples(paths: RepoPaths, names: Sequence[str]) -> tuple[str, ...]:
    """The samples of these names, without any all there are.

    :raises UsageError: for a name that is none, or if there is no sample at all.
    """
    known = sample_names(paths)
    if not known:
        raise UsageError(f"There is no sample in {paths.samples}: draw one with `pinfeather sample`.")
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"There is no sample {unknown[0]!r}; there are: {', '.join(known)}.")
    return tuple(dict.fromkeys(names or known))


@dataclass
class _Run:
    """One run."""

    paths: RepoPaths
    teacher: LabelsTexts
    options: LabelOptions
    con: duckdb.DuckDBPyConnection
    erasures: Erasures
    last: tuple[tuple[str, str] | None, NDArray[np.float64]] = (None, np.zeros(0))
    """The pair computed last, which may go on in the next chunk."""
    counts: LabelCounts = field(init=False)
    store: LabelFolder = field(init=False)

    def __post_init__(self) -> None:
        self.counts = LabelCounts(self.teacher.name, self.teacher.fingerprint)
        self.store = LabelFolder(self.paths, self.teacher.fingerprint)

    def work(self, samples: Sequence[str]) -> None:
        self.store.merge(self.erasures)
        self._find_wanted(samples)
        self._render()
        self._find_todo()
        todo = count(self.con, "SELECT count(*) FROM todo")
        total = min(todo, todo if self.options.limit is None else self.options.limit)
        if total or self.store.parts():
            self.store.note({"teacher": self.teacher.name, "template": self.teacher.template.to_json()})
        when = time_after(self.store.latest())
        done = 0
        for chunk in self._chunks(total):
            if self.options.stop is not None and self.options.stop():
                self.counts.interrupted = True
                break
            self._label(chunk, when := time_after(when))
            done += len(chunk)
            if self.options.progress is not None:
                self.options.progress(done, total)
        self.counts.remaining = todo - done

    def _find_wanted(self, samples: Sequence[str]) -> None:
        """Table ``wanted``: distinct pairs, each with what the first sample says of it."""
        self.con.execute(
            """CREATE TABLE wanted (query VARCHAR, pin_id VARCHAR, sample VARCHAR, weight DOUBLE, t BIGINT)"""
        )
        for name in samples:
            self.con.execute(
                f"""INSERT INTO wanted
                    SELECT query, pin_id, {literal(name)}, weight, epoch_us(event_timestamp)
                    FROM {parquet([parquet_of(self.paths, name)])} ANTI JOIN wanted USING (query, pin_id)"""
            )
        self.counts.pairs = count(self.con, "SELECT count(*) FROM wanted")

    def _render(self) -> None:
        """Table ``texts``: the pin text of every pin of ``wanted`` that is in the catalogue, and its fingerprint."""
        self.con.execute("CREATE TABLE texts (pin_id VARCHAR, text VARCHAR, fingerprint VARCHAR)")
        wanted = f"{pins_sql(self.paths, TEXT_COLUMNS)} SEMI JOIN wanted USING (pin_id)"
        with self.con.cursor() as reading:
            for batch in reading.execute(wanted).fetch_record_batch(_PINS):
                rows = batch.to_pylist()
                rendered = [self.teacher.template.render(PinFields.from_row(row)) for row in rows]
                columns = {
                    "pin_id": batch["pin_id"],
                    "text": pa.array([each.text for each in rendered], pa.string()),
                    "fingerprint": pa.array([each.fingerprint for each in rendered], pa.string()),
                }
                self.con.register("given", pa.table(columns))
                self.con.execute("INSERT INTO texts SELECT * FROM given")
                self.con.unregister("given")

    def _find_todo(self) -> None:
        """Table ``todo``: pairs without a label of their text; ``known`` where they have one of another text."""
        parts = self.store.parts()
        newest = newest_sql(parts) if parts else "SELECT '' AS query, '' AS pin_id, '' AS text_fingerprint LIMIT 0"
        self.con.execute(
            f"""CREATE TABLE todo AS
                SELECT w.*, fingerprint, n.text_fingerprint IS NOT NULL AS known
                FROM wanted w JOIN (SELECT pin_id, fingerprint FROM texts WHERE text <> '') USING (pin_id)
                LEFT JOIN ({newest}) n USING (query, pin_id) WHERE text_fingerprint IS DISTINCT FROM fingerprint"""
        )
        counts = self.counts
        counts.gone = count(self.con, "SELECT count(*) FROM wanted ANTI JOIN texts USING (pin_id)")
        empty = "SELECT pin_id FROM texts WHERE text = ''"
        counts.textless = count(self.con, f"SELECT count(*) FROM wanted SEMI JOIN ({empty}) USING (pin_id)")
        todo = count(self.con, "SELECT count(*) FROM todo")
        counts.skipped = counts.pairs - counts.gone - counts.textless - todo

    def _chunks(self, total: int) -> Iterator[list[dict[str, Any]]]:
        """Rows of ``todo`` with their texts, at most ``total``; what is known of equal pairs is with them."""
        parts = self.store.parts()
        sums = ", ".join(f"any_value({name}) AS {name}" for name in PROBABILITIES)
        none = ", ".join(f"NULL::FLOAT AS {name}" for name in PROBABILITIES)
        former = (
            f"SELECT query, text_fingerprint, {sums} FROM {parquet(parts)} GROUP BY query, text_fingerprint"
            if parts
            else f"SELECT '' AS query, '' AS text_fingerprint, {none} LIMIT 0"
        )
        with self.con.cursor() as reading:
            reader = reading.execute(
                f"""SELECT t.*, text, {", ".join(f"f.{name}" for name in PROBABILITIES)}
                    FROM todo t JOIN texts USING (pin_id)
                    LEFT JOIN ({former}) f ON f.query = t.query AND f.text_fingerprint = t.fingerprint
                    ORDER BY md5_number_lower(t.query), t.query, t.fingerprint, pin_id LIMIT {total}"""
            ).fetch_record_batch(max(self.options.chunk, CHUNK))
            left: list[dict[str, Any]] = []
            for batch in reader:
                left += batch.to_pylist()
                while len(left) >= self.options.chunk:
                    yield left[: self.options.chunk]
                    left = left[self.options.chunk :]
            if left:
                yield left

    def _label(self, rows: list[dict[str, Any]], when: datetime) -> None:
        """Computes what is not known yet and adds the part."""
        found = self._computed(rows)
        probabilities = np.stack([found[row["query"], row["fingerprint"]] for row in rows]).astype(np.float32)
        columns: dict[str, Any] = {
            "query": [row["query"] for row in rows],
            "pin_id": [row["pin_id"] for row in rows],
            **{name: probabilities[:, level] for level, name in enumerate(PROBABILITIES)},
            "teacher": [self.teacher.name] * len(rows),
            "teacher_version": [self.teacher.fingerprint] * len(rows),
            "text_fingerprint": [row["fingerprint"] for row in rows],
            "sample": [row["sample"] for row in rows],
            "weight": [row["weight"] for row in rows],
            "event_timestamp": [row["t"] for row in rows],
            "labelled_at": [when] * len(rows),
        }
        arrays = [pa.array(columns[column.name], column.type) for column in SCHEMA]
        self.store.append(pa.table(arrays, schema=SCHEMA), self.erasures)
        known = sum(row["known"] for row in rows)
        self.counts.relabelled += known
        self.counts.labelled += len(rows) - known

    def _computed(self, rows: list[dict[str, Any]]) -> dict[tuple[str, str], NDArray[np.float64]]:
        """Probabilities by (query, text fingerprint)."""
        key, before = self.last
        found = {} if key is None else {key: before}
        fresh: dict[tuple[str, str], str] = {}
        for row in rows:
            pair = (row["query"], row["fingerprint"])
            if row[PROBABILITIES[0]] is not None:
                found[pair] = np.array([row[name] for name in PROBABILITIES])
            elif pair not in found:
                fresh[pair] = row["text"]
        if fresh:
            answer = self.teacher.probabilities([query for query, _ in fresh], list(fresh.values()))
            if answer.shape != (len(fresh), LEVELS) or not np.allclose(answer.sum(axis=1), 1, atol=1e-3):
                raise PinfeatherError(
                    f"Teacher {self.teacher.name} gave an array {answer.shape} for {len(fresh)} pairs, or rows that do "
                    "not sum to 1: nothing of it was written. Check the teacher by `pinfeather evaluate`."
                )
            found.update(zip(fresh, answer, strict=True))
            self.counts.encoded_pairs += len(fresh)
        end = (rows[-1]["query"], rows[-1]["fingerprint"])
        self.last = end, found[end]
        return found
