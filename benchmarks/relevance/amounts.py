"""Table (c) with towers: what the amount of distilled pairs is worth to a student that is trained as a whole.

Run from the checkout's root, after ``benchmarks.relevance.train`` (about 5 minutes on 2 cores):

    .venv/bin/python -m benchmarks.relevance.amounts

The pairs are those that the student of ``train`` learns from, judged, retrieved and invented; each amount is whole
queries of them, a smaller one part of each larger one, and the last is all of them: that student itself. Fewer pairs
are seen more often (``EPOCHS``), so that an amount is not told from a number of steps. What was trained stays in
``build/relevance``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.relevance import data
from benchmarks.relevance.command import finish, parser, tell
from benchmarks.relevance.distillation import FIGURES, amount_rows
from benchmarks.relevance.labels import Labeller, soft_labels
from benchmarks.relevance.scorers import Answer, Prepared, baselines, bundle_answer, measured_answers, packaged
from benchmarks.relevance.train import INVENTED, RETRIEVED, TOWERS, distilled
from benchmarks.relevance.vectors import WORK
from embedders.encoder import Encoder
from embedders.evaluation.intervals import SAMPLES
from embedders.evaluation.pairs import PairSet
from embedders.student_training import train_student_bundle
from embedders.tower_training import TowerTraining

X = 1_000
EPOCHS = {1: 8, 10: 2}
"""Amount, in X, to the times that its pairs are seen; all pairs are seen once."""


def table(
    splits: Sequence[tuple[PairSet, PairSet]],
    teacher: Labeller,
    pairs: PairSet,
    student: Path,
    towers: TowerTraining,
    work: Path,
    x: int = X,
    epochs: Mapping[int, int] | None = None,
    encoder: Encoder | None = None,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """``rows``: each set and amount, with ``minus`` to the same set's 1x; baselines and teacher beside them.

    :param pairs: what ``student`` was trained on, with targets.
    """
    folders: dict[str, tuple[Path, int]] = {}
    for factor, times in (epochs or EPOCHS).items():
        folder = work / f"student-{factor * x}"
        some = pairs.subset(data.rows_of_queries(pairs.queries, factor * x))
        if not folder.is_dir():
            train_student_bundle(some, folder, towers=replace(towers, epochs=times), tell=print)
        folders[f"distilled {factor}x"] = folder, len(some)
    folders[f"distilled {round(len(pairs) / x)}x"] = student, len(pairs)
    rows: list[dict[str, Any]] = []
    for train, judge in splits:
        answers = [bundle_answer(name, folder, judge) for name, (folder, _) in folders.items()]
        answers += [*baselines(Prepared.of(train, judge, encoder or packaged()))]
        answers.append(Answer("teacher", soft_labels(teacher, judge)))
        measured = measured_answers(judge, answers, samples)
        new = amount_rows(judge.name, measured, {name: count for name, (_, count) in folders.items()})
        tell(new, FIGURES)
        rows += new
    return {"x": x, "seeds": [0], "rows": rows}


def main() -> None:
    """Train, judge, print, write the JSON."""
    from embedders.teacher import Teacher

    options = parser(__doc__).parse_args()
    splits = [data.split(name) for name in data.SETS]
    teacher, size = Teacher.load(options.teacher), options.size
    pairs = distilled([train for train, _ in splits], teacher, RETRIEVED[size], packaged(), INVENTED[size])
    content = table(splits, teacher, pairs, options.student, TOWERS[size], WORK)
    finish("amounts", options, {"teacher": teacher.fingerprint, "pool": len(pairs), **content})


if __name__ == "__main__":
    main()
