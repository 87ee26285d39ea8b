"""A teacher's labels as pairs to train a student on, with the features that serving would read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import PinFields
from materialize.releases import current_release
from materialize.scan import TEXT_COLUMNS
from pinfeather.catalogue_rows import pins_sql
from pinfeather.duck_session import duck_session
from pinfeather.judged import pin_column, pin_vectors
from pinfeather.labelling_store import PROBABILITIES, labels_of, read_labels

_SCALARS = {name: ("pin_relevance", name) for name in ("tokens", "click_rate", "save_rate")}


def labelled_pairs(
    paths: RepoPaths, version: str, space: str | None = None, weighted: bool = False, limit: int | None = None
) -> PairSet:
    """The newest label of every (query, pin) as ``targets``, in query and pin order, with the pins as they are now.

    Labels of pins that are gone, or have another text by now than the teacher read, are left out.

    :param space: its vector log gives the vectors; default is the live one; without any there are none.
    :param weighted: ``weights`` are those of the samples, brought to a mean of 1, so that pairs count as often as the
        log has them; else all count alike, as the sample has spread them.
    :param limit: so many pairs at most, those of the first queries in the order of a hash, for curves over amounts.
    :raises UsageError: if there are no labels of that teacher version.
    :raises PinfeatherError: if no label is left, or before the first `aggregate`.
    """
    labels = read_labels(paths, version)
    rows = _pin_rows(paths, labels)
    template = labels_of(paths, version).template()
    fields = {row["pin_id"]: PinFields.from_row(row) for row in rows}
    texts = {pin_id: template.render(one).fingerprint for pin_id, one in fields.items()}
    named = zip(labels["pin_id"].to_pylist(), labels["text_fingerprint"].to_pylist(), strict=True)
    labels = labels.filter(pa.array([texts.get(pin_id) == fingerprint for pin_id, fingerprint in named], pa.bool_()))
    if limit is not None:
        labels = _first(labels, limit)
    if not len(labels):
        raise PinfeatherError(
            f"No label of teacher version {version} is of a text that a pin has now: run `pinfeather label` again."
        )
    used = set(labels["pin_id"].to_pylist())
    by_pin: dict[str, dict[str, Any]] = {row["pin_id"]: row for row in rows if row["pin_id"] in used}
    pins = {pin_id: number for number, pin_id in enumerate(sorted(by_pin))}
    release = current_release(paths)
    space = space or (release.live_space if release else None)
    weights = labels["weight"].to_numpy()
    return PairSet(
        name=paths.root.name,
        queries=tuple(labels["query"].to_pylist()),
        pins=tuple(fields[pin_id] for pin_id in pins),
        pin_of=np.array([pins[pin_id] for pin_id in labels["pin_id"].to_pylist()], np.int64),
        blobs=tuple(by_pin[pin_id]["tokens"] for pin_id in pins),
        pin_vectors=pin_vectors(paths, space, list(pins)) if space else None,
        click_rate=pin_column(by_pin, pins, "click_rate"),
        save_rate=pin_column(by_pin, pins, "save_rate"),
        source=f"labels of teacher version {version}",
        pin_ids=tuple(pins),
        targets=_targets(labels),
        weights=weights / weights.mean() if weighted else None,
    )


def _pin_rows(paths: RepoPaths, labels: pa.Table) -> list[dict[str, Any]]:
    """Texts and features of the labelled pins that are in the catalogue."""
    with duck_session(paths, "Run `pinfeather aggregate` to write a damaged view source again.") as con:
        con.register("labels", labels.select(["pin_id"]))
        found = con.execute(f"{pins_sql(paths, {**TEXT_COLUMNS, **_SCALARS})} SEMI JOIN labels USING (pin_id)")
        return found.fetch_arrow_table().to_pylist()


def _targets(labels: pa.Table) -> np.ndarray:
    """[n, 5] probabilities, stored in single precision, that sum to 1 again."""
    targets = np.column_stack([labels[name].to_numpy() for name in PROBABILITIES]).astype(np.float64)
    return np.asarray(targets / targets.sum(axis=1, keepdims=True))


def _first(labels: pa.Table, limit: int) -> pa.Table:
    """At most ``limit`` labels, query by query in the order of a hash; a smaller limit gives a part of a larger one."""
    import xxhash

    queries = labels["query"].to_pylist()
    ranks = np.array([xxhash.xxh3_64_intdigest(query.encode()) for query in queries], np.uint64)
    kept = np.sort(np.argsort(ranks, kind="stable")[:limit])
    return labels.take(pa.array(kept))
