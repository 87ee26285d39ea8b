"""Everything once, on a generated catalogue: the steps of ``pinfeather demo`` and their report."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths

if TYPE_CHECKING:
    from pinfeather.training import Judged

EDITED, DELETED = 7, 3

Tell = Callable[[str], None]
Bar = Callable[[], AbstractContextManager[Callable[[int, int | None], None]]]


@dataclass
class Report:
    """What the demo did; keys of :meth:`to_json` are a contract."""

    paths: RepoPaths
    tables: dict[str, int] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)
    second: dict[str, Any] = field(default_factory=dict)
    planned: dict[str, Any] = field(default_factory=dict)
    edited: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    evaluate: list[dict[str, Any]] = field(default_factory=list)
    bundle: str = ""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """One report; figures are of a synthetic catalogue."""
        student, *others = sorted(self.evaluate, key=lambda figures: figures["scorer"] != "student")
        return {
            "synthetic": True,
            "tables": self.tables,
            "first": self.first,
            "second": self.second,
            "plan": self.planned,
            "edited": self.edited,
            "audit": self.audit,
            "evaluate": student,
            "baselines": others,
            "bundle": self.bundle,
            "seconds": round(self.seconds, 1),
            "peak_memory_mb": round(self.peak_memory_mb),
            "repo": str(self.paths.root),
        }


def run_demo(folder: Path, pins: int, seed: int, tell: Tell, bar: Bar) -> Report:
    """Generate ``pins`` pins into ``folder`` and take them through every room.

    :param bar: opened around the one long step; gives the callback (pins written, pins to write).
    :raises PinfeatherError: if ``folder`` holds a repository already, or a step does not do what it must.
    """
    from pinfeather.init import init_repository

    started = time.perf_counter()
    report = Report(init_repository(folder))
    _build(report, pins, seed, tell)
    _embed(report, tell, bar)
    _edit(report, seed, tell)
    _train(report, tell)
    _must(report)
    report.seconds = time.perf_counter() - started
    report.peak_memory_mb = _peak_memory_mb()
    return report


def _build(report: Report, pins: int, seed: int, tell: Tell) -> None:
    """From nothing to a repository that `materialize` can read."""
    from feature_repo.aggregates import aggregate
    from feature_repo.validation import validate
    from pinfeather.apply import apply_definitions
    from pinfeather.generate import NOW, generate_catalogue

    tell(f"generate   {pins:,} synthetic pins with boards, a search log and judgments")
    report.tables = generate_catalogue(report.paths.raw, pins=pins, seed=seed).rows
    tell("validate   raw tables against their contracts")
    validate(report.paths)
    tell("aggregate  board titles, engaged queries, engagement, token ids")
    aggregate(report.paths, as_of=NOW)
    tell("apply      Feast definitions")
    apply_definitions(report.paths)


def _embed(report: Report, tell: Tell, bar: Bar) -> None:
    """Every pin into Qdrant, once, and the pretrained student to score them."""
    from embedders.bundle_places import PRETRAINED
    from materialize.plan import plan
    from materialize.promotion import promote
    from materialize.run import RunOptions, materialize

    planned = plan(report.paths)
    cost = f"{planned.tokens:,} tokens, about {planned.estimated_seconds:.0f} s"
    tell(f"plan       {planned.texts_to_encode:,} texts, {cost}")
    tell("materialize  with the towers of the pretrained student")
    with bar() as progress:
        options = RunOptions(
            model=f"bundle:{PRETRAINED}", progress=progress, tell=lambda words: tell(f"{'':11}{words}")
        )
        report.first = materialize(report.paths, options).to_json()
    tell("materialize  again: nothing changed, so nothing is encoded")
    report.second = materialize(report.paths).to_json()
    tell("promote    the pretrained student, which scores until one is trained here")
    promote(report.paths, str(report.first["space"]), bundle=PRETRAINED)


def _edit(report: Report, seed: int, tell: Tell) -> None:
    """What changed in the raw tables, and that alone, reaches Qdrant."""
    from feature_repo.aggregates import aggregate
    from feature_repo.validation import validate
    from materialize.audit import audit
    from materialize.plan import plan
    from materialize.run import materialize
    from pinfeather.generate import NOW

    tell(f"edit       {EDITED} pins, delete {DELETED}; validate, aggregate, plan, materialize")
    edit_pins(report.paths, seed)
    validate(report.paths)
    aggregate(report.paths, as_of=NOW)
    report.planned = plan(report.paths).to_json()
    report.edited = materialize(report.paths).to_json()
    tell("audit      source, ledger, vector log and store")
    report.audit = audit(report.paths).to_json()


def _train(report: Report, tell: Tell) -> None:
    """A student of this catalogue's judgments, beside the scorers that it has to beat."""
    from pinfeather.pipeline import fit_lexical
    from pinfeather.training import Judged, cross_validate_judged
    from pinfeather.training_student import train_student

    tell("train      the student's head on the judgments; evaluate it on queries it has not seen")
    fit_lexical(report.paths)
    judged = Judged.read(report.paths)
    report.evaluate = [
        *cross_validate_judged(judged, ("bm25", "zero-shot", "student")),
        _pretrained(judged),
    ]
    report.bundle = train_student(judged)["bundle"]


def _pretrained(judged: Judged) -> dict[str, Any]:
    """Figures of the pretrained student, which never saw a judgment of this catalogue."""
    from embedders.bundle import StudentBundle
    from embedders.bundle_places import PRETRAINED, bundle_folder
    from embedders.evaluation.evaluate import evaluate_scores
    from embedders.training import score_pairs

    pairs = judged.pairs
    chances = score_pairs(pairs, StudentBundle.load(bundle_folder(PRETRAINED)), judged.encoder)
    return evaluate_scores(pairs.name, PRETRAINED, pairs.queries, pairs.require_levels(), chances)


def edit_pins(paths: RepoPaths, seed: int) -> tuple[list[str], list[str]]:
    """Rewrite the pins table with the titles of seven pins changed and three pins gone; their ids."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    (file,) = (paths.raw / "pins").glob("*.parquet")
    pins = pq.read_table(file)
    chosen = np.random.default_rng(seed).choice(pins.num_rows, EDITED + DELETED, replace=False)
    edited, deleted = chosen[:EDITED], chosen[EDITED:]
    titles = pins["title"].to_pylist()
    for number, row in enumerate(edited):
        titles[row] = f"{titles[row] or 'Untitled'} (new photo {number + 1})"
    pins = pins.set_column(pins.schema.get_field_index("title"), "title", pa.array(titles, pa.string()))
    kept = np.ones(pins.num_rows, bool)
    kept[deleted] = False
    ids = pins["pin_id"].to_pylist()
    pq.write_table(pins.filter(pa.array(kept)), file)
    return [ids[row] for row in edited], [ids[row] for row in deleted]


def _must(report: Report) -> None:
    """The demo is a check as well: it fails loudly where a promise is broken."""
    broken = []
    if report.second["encoder_calls"] or report.second["upserted"]:
        broken.append(f"the second run encoded {report.second['encoded_texts']} texts, not 0")
    if (report.edited["encoded_texts"], report.edited["deleted"]) != (EDITED, DELETED):
        broken.append(f"{report.edited['encoded_texts']} encoded and {report.edited['deleted']} deleted, not 7 and 3")
    if bad := {k: n for k, n in report.audit.items() if n and k not in ("checked", "ahead", "repaired", "examples")}:
        broken.append(f"the audit found {bad}")
    if broken:
        raise PinfeatherError(f"The demo at {report.paths.root} went wrong: {'; '.join(broken)}. Please report it.")


def _peak_memory_mb() -> float:
    """Largest resident size of this process or any child of it, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    sizes = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(sizes) * unit / 2**20
