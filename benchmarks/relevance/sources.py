"""Table (b): what each source of the pin text adds, from the caption alone to all of them.

Run from the checkout's root (about 10 minutes on 2 cores):

    .venv/bin/python -m benchmarks.relevance.sources

Public sets have titles and descriptions and no boards, engaged queries, captions or log, so there are two tables:

- CrowdFlower, human labels: title alone, description alone, both; student v1 of the training folds. A teacher that lies
  in ``--teacher`` is shown the same texts, without being trained anew.
- A generated catalogue (marked so): the sources one after another in the order of the published ablation, which starts
  from the caption; BM25, zero-shot and the student are cross-validated on query-disjoint folds.
  What is off is off everywhere: text, lexical features and their statistics, rates.

``benchmarks.ablation`` is the other direction on the same catalogue: everything but one source.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.ablation import SCORERS, generated
from benchmarks.relevance import data
from benchmarks.relevance.command import finish, parser, tell
from benchmarks.relevance.scorers import Prepared, baselines, head_answer, judged_rows, packaged, teacher_answer
from embedders.encoder import Encoder
from embedders.evaluation.intervals import SAMPLES
from embedders.evaluation.pairs import PairSet
from feature_repo.pin_text import DEFAULT_TEMPLATE
from feature_repo.switchboard import SOURCES, template_without
from pinfeather.training import Judged, cross_validate_judged

ORDER = ("caption", "title", "description", "boards", "link", "queries", "engagement")
"""As published (captions, then titles and descriptions, board titles, link text, engaged queries), and engagement."""
SHOWN = {"title": ("description",), "description": ("title",), "title and description": ()}
PINS = {"cpu": 600, "full": 5_000}
FIGURES = ("ndcg@20", "auroc_4")


def human_table(
    train: PairSet,
    judge: PairSet,
    teacher: Path | None,
    encoder: Encoder | None = None,
    samples: int = SAMPLES,
) -> list[dict[str, Any]]:
    """Rows of each scorer with the title, the description or both."""
    encoder = encoder or packaged()
    answers = []
    for shown, off in SHOWN.items():
        template = template_without(DEFAULT_TEMPLATE, off)
        prepared = Prepared.of(train, judge, encoder, template, off)
        each = [*baselines(prepared), head_answer("student v1", prepared)]
        if teacher and teacher.is_dir():
            each.append(teacher_answer(teacher, judge, template))
        answers += [replace(answer, name=f"{answer.name}, {shown}") for answer in each]
    both = [answer.name for answer in answers if answer.name.endswith(", title and description")]
    rows = judged_rows(judge, answers, both, samples)
    tell(rows, FIGURES)
    return rows


def generated_table(pins: int, seed: int = 0, encoder: Encoder | None = None) -> list[dict[str, Any]]:
    """Rows of each scorer with the first one, two ... sources of :data:`ORDER`, on a generated catalogue."""
    rows: list[dict[str, Any]] = []
    encoder = encoder or packaged()
    with tempfile.TemporaryDirectory() as folder:
        paths = generated(Path(folder), pins, seed, encoder)
        for count in range(1, len(ORDER) + 1):
            off = [source for source in SOURCES if source not in ORDER[:count]]
            figures = cross_validate_judged(Judged.read(paths, encoder, without=off), SCORERS, seed=seed)
            rows += [{**row, "dataset": "generated", "added": ORDER[count - 1], "sources": count} for row in figures]
            tell(rows[-len(figures) :], FIGURES)
    return rows


def main() -> None:
    """Fit, judge, print, write the JSON."""
    options = parser(__doc__).parse_args()
    pins = PINS[options.size]
    rows = human_table(*data.split("crowdflower"), options.teacher)
    finish("sources", options, {"rows": rows, "generated": {"pins": pins, "rows": generated_table(pins)}})


if __name__ == "__main__":
    main()
