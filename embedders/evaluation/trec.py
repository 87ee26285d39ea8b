"""Judged pairs and rankings as TREC files, for tools such as ``ir_measures`` and ``trec_eval``.

``qrels.txt`` (query, 0, pin, level 1 to 5), ``run.<scorer>.txt`` (query, Q0, pin, rank, score, scorer), ``queries.tsv``
and ``pins.tsv`` with what the ids stand for. A query's id is a hash of its canonical form and a pin's its own or a hash
of its fields, so the same pair has the same ids in every export.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import numpy as np
import xxhash

from embedders.evaluation.folds import query_groups
from embedders.evaluation.judging import Answer
from embedders.evaluation.metrics import GAINS, Floats, expected_level
from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError
from feature_repo.pin_text import PinFields
from feature_repo.text import normalise

MEASURE = "nDCG(gains={" + ",".join(f"{level}:{gain:.0f}" for level, gain in enumerate(GAINS, 1)) + "})@20"
"""Our nDCG@20 as ``ir_measures`` writes it."""


def write_trec(pairs: PairSet, answers: Sequence[Answer], folder: Path) -> list[Path]:
    """Write the files into ``folder``, which is made; ``qrels.txt`` only where the pairs carry levels.

    A pin that comes twice for one query has ``.2`` behind its id the second time. Ties are written as they are: other
    tools break them by id, our figures do not.

    :raises PinfeatherError: if the folder cannot be written.
    """
    names, groups = query_groups(pairs.queries)
    query_ids = [_query_id(name) for name in names]
    queries = [query_ids[group] for group in groups]
    pins = _row_ids(pairs, groups.tolist())
    files: dict[str, Iterable[str]] = {
        "queries.tsv": (f"{key}\t{name}" for key, name in zip(query_ids, names, strict=True)),
        "pins.tsv": dict.fromkeys(f"{key}\t{_words(pairs.pins[p])}" for key, p in zip(pins, pairs.pin_of, strict=True)),
    }
    if pairs.levels is not None:
        judged = zip(queries, pins, pairs.levels.tolist(), strict=True)
        files["qrels.txt"] = (f"{query} 0 {pin} {level}" for query, pin, level in judged)
    for answer in answers:
        files[f"run.{answer.scorer}.txt"] = _run(answer, queries, pins, groups.tolist())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / name, lines) for name, lines in files.items()]
    except OSError as error:
        raise PinfeatherError(f"Cannot write into {folder} ({error}): name a folder that can be written.") from error


def _run(answer: Answer, queries: Sequence[str], pins: Sequence[str], groups: Sequence[int]) -> Iterable[str]:
    scores: Floats = np.asarray(
        expected_level(np.asarray(answer.probabilities)) if answer.scores is None else answer.scores, np.float64
    )
    order = sorted(range(len(pins)), key=lambda row: (groups[row], -scores[row], pins[row]))
    rank, last = 0, -1
    for row in order:
        rank, last = (rank + 1 if groups[row] == last else 1), groups[row]
        yield f"{queries[row]} Q0 {pins[row]} {rank} {float(scores[row])!r} {answer.scorer}"


def _query_id(canonical: str) -> str:
    return "q" + xxhash.xxh3_64_hexdigest(canonical.encode())


def _row_ids(pairs: PairSet, groups: Sequence[int]) -> list[str]:
    """The id of each row's pin, no two of one query alike."""
    if pairs.pin_ids is not None:
        known = [quote(pin_id, safe="/:@+,;=~!*'()") for pin_id in pairs.pin_ids]
    else:
        texts = (json.dumps(asdict(pin), sort_keys=True, ensure_ascii=False) for pin in pairs.pins)
        known = ["p" + xxhash.xxh3_64_hexdigest(text.encode()) for text in texts]
    seen: dict[tuple[int, int], int] = {}
    ids = []
    for group, pin in zip(groups, pairs.pin_of.tolist(), strict=True):
        times = seen[group, pin] = seen.get((group, pin), 0) + 1
        ids.append(known[pin] if times == 1 else f"{known[pin]}.{times}")
    return ids


def _words(pin: PinFields) -> str:
    return "\t".join(normalise(text) for text in (pin.title, pin.description))


def _write(path: Path, lines: Iterable[str]) -> Path:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in lines)
    os.replace(part, path)
    return path
