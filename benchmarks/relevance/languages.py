"""Table (d): languages that the human labels have seen, and others, on captions of images.

Run from the checkout's root (about 4 minutes on 2 cores):

    .venv/bin/python -m benchmarks.relevance.languages --teacher build/relevance/teacher

Queries in English, German, French, Czech (Multi30k) and English, Chinese (Flickr8k) against English captions; see
``benchmarks/relevance/languages_data.py``. English is the one language of the human labels. Student v1 is fitted on
English queries only, or on queries of all languages whose labels are the English student's own for the same pins,
handed over by translation: that is distillation without a label in those languages. The packaged model is an English
one, so what is unseen by the labels is mostly unseen by the weights, too; with a multilingual backbone this would be
another table. ``--size full`` takes all images.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.relevance import languages_data
from benchmarks.relevance.command import finish, parser, tell
from benchmarks.relevance.languages_data import SEEN, Image
from benchmarks.relevance.scorers import (
    Prepared,
    baselines,
    fitted_head,
    head_answer,
    judged_rows,
    packaged,
    teacher_answer,
)
from embedders.encoder import Encoder
from embedders.evaluation.intervals import SAMPLES
from embedders.training import PairFeatures

IMAGES = {"cpu": 300, "full": 100_000}
FIGURES = ("ndcg@20", "auroc_4")
ENGLISH, HANDED = "student v1, English labels", "student v1, labels handed to all languages"
TEACHER = "teacher, trained on the shops"


def table(
    images: dict[str, tuple[list[Image], list[Image]]],
    teacher: Path | None,
    encoder: Encoder | None = None,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """``rows`` of every scorer for every set and language, marked ``seen`` by the labels or not."""
    encoder = encoder or packaged()
    rows: list[dict[str, Any]] = []
    for name, (train_images, judge_images) in images.items():
        train = languages_data.pairs_of(name, train_images, encoder)
        judge = languages_data.pairs_of(name, judge_images, encoder)
        prepared = {language: Prepared.of(train[language], judge[language], encoder) for language in judge}
        handed = _handed(prepared)
        for language, each in prepared.items():
            english = Prepared(prepared[SEEN].train, each.judge, prepared[SEEN].train_features, each.judge_features)
            answers = [*baselines(english), head_answer(ENGLISH, english)]
            answers.append(fitted_head(HANDED, handed[0], handed[1], each.judge_features))
            if teacher and teacher.is_dir():
                answers.append(replace(teacher_answer(teacher, each.judge), name=TEACHER))
            new = judged_rows(each.judge, answers, ("BM25", "zero-shot", ENGLISH), samples)
            tell(new, FIGURES)
            rows += [{**row, "set": name, "language": language, "seen": language == SEEN} for row in new]
    return {"rows": rows}


def _handed(prepared: dict[str, Prepared]) -> tuple[PairFeatures, np.ndarray]:
    """Training features of all languages, and the English student's soft labels of the same pins, row by row."""
    english = prepared[SEEN]
    soft = fitted_head("", english.train_features, english.train.require_levels(), english.train_features)
    parts = [each.train_features for each in prepared.values()]
    starts = np.cumsum([0, *(int(part.groups.max()) + 1 for part in parts[:-1])])
    features = PairFeatures(
        np.concatenate([part.matrix for part in parts]),
        english.train_features.names,
        np.concatenate([part.bm25 for part in parts]),
        np.concatenate([part.groups + start for start, part in zip(starts, parts, strict=True)]),
    )
    return features, np.tile(soft.probabilities, (len(parts), 1))


def main() -> None:
    """Fit, judge, print, write the JSON."""
    options = parser(__doc__).parse_args()
    images = languages_data.load(IMAGES[options.size])
    finish("languages", options, table(images, options.teacher))


if __name__ == "__main__":
    main()
