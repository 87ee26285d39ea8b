"""The command ``features``: look features of pins up, or report on those of the whole catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinTextTemplate
from pinfeather.options import json_option, repo_option
from pinfeather.output import emit_json, say, table


@click.command("features")
@click.argument("pins", nargs=-1, metavar="[PIN...]")
@repo_option
@click.option("--service", default="pin_content_v1", show_default=True, show_envvar=True, help="Feature service.")
@click.option("--report", is_flag=True, show_envvar=True, help="Coverage, freshness, lengths, duplicates and drift.")
@click.option("--plots", metavar="DIR", show_envvar=True, help="With --report: draw it, one picture a subject.")
@json_option
@click.pass_context
def features_command(
    context: click.Context,
    pins: tuple[str, ...],
    repo: str,
    service: str,
    report: bool,
    plots: str | None,
    as_json: bool,
) -> None:
    """Look up the features of each PIN through a feature service, or --report on those of all pins.

    The report compares with the last one, which it keeps in data/reports. JSON of the report: {as_of, made_at,
    behind_days, template, pins, coverage, coverage_by_language, coverage_by_age, freshness, lengths, duplicates,
    tables, screened, left_out, catalogue, change, flags, plots}; change is null in the first one.

    \b
    Examples:
      pinfeather features PIN_ID --repo my_repo
      pinfeather features PIN_ID --service home_feed_v1 --json
      pinfeather features --report --repo my_repo --plots report
    """
    if report:
        if pins:
            raise UsageError("--report is of all pins: leave the PINs out, or look them up without --report.")
        if context.get_parameter_source("service") is ParameterSource.COMMANDLINE:
            raise UsageError("--service is for looking pins up: leave it out with --report.")
        _report(RepoPaths.open(repo), plots, as_json)
        return
    if plots is not None:
        raise UsageError("--plots DIR draws the report: give --report as well.")
    if not pins:
        raise UsageError("Name at least one PIN to look up, or give --report.")
    _look_up(pins, repo, service, as_json)


def _look_up(pins: tuple[str, ...], repo: str, service: str, as_json: bool) -> None:
    from serving_client import PinClient

    with PinClient(repo) as client:
        found = client.pin_features(pins, service)
    if as_json:
        stamps = {view: [str(time) for time in times] for view, times in found.event_timestamps.items()}
        data: dict[str, Any] = {"service": service, "ids": found.ids, "found": found.found, "columns": found.columns}
        emit_json({**data, "event_timestamps": stamps})
        return
    for row, pin in enumerate(found.ids):
        rows = [(name, _brief(value)) for name, value in found.row(row).items() if value is not None]
        table(pin if found.found[row] else f"{pin}: not found", ["feature", "value"], rows)


def _brief(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _report(paths: RepoPaths, plots: str | None, as_json: bool) -> None:
    from feature_repo.report import make_report
    from pinfeather.plots import draw_report, load_pyplot
    from pinfeather.report_tables import show_report

    if plots is not None:
        load_pyplot()  # what is missing is said before the work, not after it
    made = make_report(paths, _template(paths))
    drawn = draw_report(made.data, Path(plots)) if plots is not None else []
    if as_json:
        emit_json({**made.data, "plots": [str(path) for path in drawn]})
        return
    show_report(made)
    for path in drawn:
        say(f"Drew {path}.")


def _template(paths: RepoPaths) -> PinTextTemplate:
    """The pin text of the live space; before there is one, the default."""
    from materialize.releases import current_release
    from materialize.spaces import live_space

    release = current_release(paths)
    return live_space(paths).template if release and release.live_space else DEFAULT_TEMPLATE
