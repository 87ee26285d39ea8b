"""What the last run did, as a Prometheus textfile; the names are documented in ``docs/operations.md``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.files import write_bytes
from materialize.ledger import Ledger
from materialize.ledger_notes import RunRow
from materialize.places import place_of
from materialize.runs import is_writing, status_of
from materialize.spaces import space_names
from materialize.stores.session import session

Labels = Mapping[str, str]
Sample = tuple[Labels, float]

OUTCOMES = ("new", "changed", "payload_only", "unchanged", "gone", "rejected")
STATUSES = ("done", "interrupted", "refused", "failed", "running", "killed", "repair")


def write_metrics(paths: RepoPaths, file: Path) -> None:
    """Write the metrics of the last run of each space to ``file``, in one rename.

    :raises PinfeatherError: if ``file`` cannot be written.
    """
    text = metrics_text(paths)
    try:
        write_bytes(file, text.encode())
    except OSError as error:
        raise PinfeatherError(
            f"The metrics file {file} cannot be written ({error.strerror}): give --metrics a file in a folder that you "
            "may write to, such as node_exporter's textfile directory. The run itself is done."
        ) from error


def metrics_text(paths: RepoPaths) -> str:
    """The metrics in Prometheus' text format, of the spaces that there are."""
    writing = is_writing(paths)
    with Ledger(paths) as ledger:
        there = space_names(paths)  # none before the first run has planned
        rows = [row for row in ledger.run_rows() if row.status != "repair" and (row.space in there or not there)]
        last: dict[str, RunRow] = {}
        succeeded: dict[str, RunRow] = {}
        for row in rows:  # newest first
            last.setdefault(row.space, row)
            if row.status == "done":
                succeeded.setdefault(row.space, row)
        families = [
            _family("run_number", "Number of the last run.", ((_of(r), r.run) for r in last.values())),
            _family(
                "run_status",
                "1 for the status of the last run, 0 for the others.",
                (({**_of(r), "status": s}, float(s == status_of(r, writing))) for r in last.values() for s in STATUSES),
            ),
            _family(
                "last_success_timestamp_seconds",
                "When a run was done last, seconds since 1970.",
                ((_of(r), _seconds(r.finished_at)) for r in succeeded.values()),
            ),
            *_count_families(list(last.values())),
            _family(
                "quarantined_pins",
                "Pins whose text is in quarantine now.",
                (({"space": name}, sum(map(len, ledger.quarantined(name).values()))) for name in last),
            ),
            _family(
                "ledger_entries",
                "Entries of the ledger, by vector space or view:NAME.",
                (({"space": name}, ledger.entry_count(name)) for name in ledger.spaces()),
            ),
        ]
    families.append(
        _family(
            "ledger_bytes",
            "Size of the ledger on disk.",
            [({}, sum(each.stat().st_size for each in paths.ledger.rglob("*") if each.is_file()))],
        )
    )
    number = session(place_of(paths)).number()
    families.append(_family("publication_number", "Publication that readers see.", [({}, number)]))
    return "".join(families)


def _count_families(rows: list[RunRow]) -> Iterable[str]:
    def by(label: str, names: Iterable[str]) -> list[Sample]:
        return [({**_of(r), label: name}, r.counts.get(name, 0)) for r in rows for name in names]

    def one(name: str) -> list[Sample]:
        return [(_of(r), r.counts.get(name, 0)) for r in rows]

    yield _family("run_pins", "Pins of the last run by outcome.", by("outcome", OUTCOMES))
    yield _family("run_points_upserted", "Points written by the last run.", one("upserted"))
    yield _family("run_points_deleted", "Points deleted by the last run.", one("deleted"))
    yield _family("run_remaining_pins", "Pins that the last run left for the next.", one("remaining"))
    yield _family("run_texts_encoded", "Texts that the last run encoded.", one("encoded_texts"))
    yield _family("run_encoder_calls", "Calls of the encoder in the last run.", one("encoder_calls"))
    yield _family("run_tokens", "Tokens of the texts that the last run planned to encode.", one("tokens"))
    yield _family("run_seconds", "Duration of the last run.", one("seconds"))
    yield _family(
        "run_stage_seconds",
        "Duration of the last run by stage.",
        [({**_of(r), "stage": s}, t) for r in rows for s, t in sorted((r.counts.get("stages") or {}).items())],
    )
    yield _family("run_rejects", "Pins without a fresh vector by reason.", [s for r in rows for s in _rejects(r)])
    yield _family(
        "run_feature_rows",
        "Feature rows of the last run by view and outcome.",
        [
            ({**_of(r), "view": view, "outcome": outcome}, count)
            for r in rows
            for view, counts in sorted((r.counts.get("features") or {}).items())
            for outcome, count in counts.items()
        ],
    )


def _rejects(row: RunRow) -> list[Sample]:
    """``rejected`` in its parts: without text, held back by `validate`, in quarantine."""
    held, quarantined = row.counts.get("held", 0), row.counts.get("quarantined", 0)
    no_text = row.counts.get("rejected", 0) - held - quarantined
    parts = {"no_text": no_text, "invalid_row": held, "quarantined": quarantined}
    return [({**_of(row), "reason": reason}, count) for reason, count in parts.items()]


def _of(row: RunRow) -> dict[str, str]:
    return {"space": row.space}


def _seconds(moment: str | None) -> float:
    return datetime.fromisoformat(moment).timestamp() if moment else 0.0


def _family(name: str, text: str, samples: Iterable[Sample]) -> str:
    """One gauge in the text format; nothing without samples."""
    lines = [f"pinfeather_{name}{_labels(labels)} {value:.15g}\n" for labels, value in samples]
    return f"# HELP pinfeather_{name} {text}\n# TYPE pinfeather_{name} gauge\n{''.join(lines)}" if lines else ""


def _labels(labels: Labels) -> str:
    escaped = (
        (key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, value in labels.items()
    )
    inner = ",".join(f'{key}="{value}"' for key, value in escaped)
    return f"{{{inner}}}" if inner else ""
