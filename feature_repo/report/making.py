"""A whole report: figures, what changed since the last one, flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from feature_repo.aggregates.session import microseconds
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinTextTemplate
from feature_repo.report import figures
from feature_repo.report.change import changes
from feature_repo.report.flags import flags
from feature_repo.report.measures import measured
from feature_repo.report.storage import keep_report, last_report, noted, pins_since

_DAY = 86_400
_ASIDE = ("made_at", "behind_days", "change", "flags")
"""Keys of a report that are not figures of the catalogue."""


@dataclass(frozen=True)
class FeatureReport:
    """One report, as plain data under the keys that ``features --report --json`` prints."""

    data: Mapping[str, Any]

    @property
    def change(self) -> Mapping[str, Any] | None:
        """What changed since the report before; None for the first."""
        return self.data["change"]  # type: ignore[no-any-return]

    @property
    def flags(self) -> list[dict[str, Any]]:
        """Figures beyond their bounds."""
        return list(self.data["flags"])


def make_report(
    paths: RepoPaths, template: PinTextTemplate = DEFAULT_TEMPLATE, now: datetime | None = None
) -> FeatureReport:
    """Look at every view source, compare with the last report, and keep this one.

    Where nothing changed, the last report is given back with its own change, so that asking twice loses nothing. Ages
    count from the time that the last ``aggregate`` was as of; if it noted none, from the latest event of any view.

    :param template: whose budgets and fields lengths and pin texts are of.
    :param now: without a zone it is UTC; default the clock.
    :raises PinfeatherError: before the first ``aggregate``, or if a source cannot be read.
    """
    moment = datetime.now(UTC) if now is None else now if now.tzinfo else now.replace(tzinfo=UTC)
    run = noted(paths, "aggregate") or {}
    as_of = microseconds(datetime.fromisoformat(run["as_of"])) if run.get("as_of") else None
    last = last_report(paths)
    with measured(paths, template, as_of) as con:
        newest = (con.execute("SELECT moment FROM taken").fetchone() or (0,))[0]
        taken = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=newest)
        found: dict[str, Any] = {
            "as_of": taken.isoformat(),
            "template": template.fingerprint,
            **figures.coverage(con),
            "freshness": figures.freshness(con),
            "lengths": figures.lengths(con, template),
            "duplicates": figures.duplicates(con),
            "tables": figures.rejected(con, paths),
            "screened": run.get("screened"),
            "left_out": run.get("left_out"),
            "catalogue": figures.fingerprint(con),
        }
        behind = round(max((moment - taken).total_seconds() / _DAY, 0.0), 2)
        same = last is not None and {key: last[key] for key in last if key not in _ASIDE} == found
        if last is not None and same:
            report = {**last, "behind_days": behind}
            return FeatureReport({**report, "flags": flags(report)})
        change = changes(last, found, pins_since(con, paths, last)) if last else None
        report = {"made_at": moment.isoformat(), "behind_days": behind, **found, "change": change}
        report["flags"] = flags(report)
        keep_report(con, paths, report)
    return FeatureReport(report)
