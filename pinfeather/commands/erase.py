"""The command that erases users, pins and queries, and proves it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from feature_repo.errors import UsageError
from feature_repo.paths import RepoPaths
from pinfeather.options import json_option, repo_option, run_options
from pinfeather.output import emit_json, progress, say, table

if TYPE_CHECKING:
    from feature_repo.erasures import Subjects
    from materialize.erasure.check import Place
    from materialize.erasure.flow import EraseReport


@click.command("erase")
@repo_option
@click.option("--user", "users", multiple=True, metavar="ID", show_envvar=True, help="A user id. Repeatable.")
@click.option("--pin", "pins", multiple=True, metavar="ID", show_envvar=True, help="A pin id. Repeatable.")
@click.option(
    "--query", "queries", multiple=True, metavar="TEXT", show_envvar=True, help="A query, any case. Repeatable."
)
@click.option("--check", is_flag=True, show_envvar=True, help="Erase nothing: look for it in every place.")
@click.option(
    "--purge-former",
    is_flag=True,
    show_envvar=True,
    help="Take vectors of older texts of every pin out of the vector logs; for rows that left data/raw first.",
)
@click.option(
    "--forget", is_flag=True, show_envvar=True, help="Take the names out of the list: they were given by mistake."
)
@click.option(
    "--min-users",
    type=click.IntRange(1),
    show_envvar=True,
    help="Distinct people behind each title or query; default as `aggregate` was run last.",
)
@run_options
@json_option
def erase_command(
    repo: str,
    users: tuple[str, ...],
    pins: tuple[str, ...],
    queries: tuple[str, ...],
    check: bool,
    forget: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Erase users, pins or queries from everything that is derived from the raw tables, publish, and keep them away.

    They leave valid and rejected tables, aggregates, online rows, every space and its vector log, judgments,
    captions, samples and labels, and titles or queries that then stand on too few people leave with them. Only
    keyed hashes stay, in data/erasures, so that `validate` drops the rows when they come again. data/raw and the
    tables that it is made of are yours: delete them there, but afterwards. A killed erasure is ended by the same
    command, or one without names.

    A name that no row bears is recorded all the same, and named, as it may be misspelled: --forget takes it out of the
    list again, and the next `validate` brings the rows back that data/raw has. Were the rows deleted from data/raw
    before, what was made of their words is not known any more: --purge-former then takes the vectors of older texts of
    every pin out of the logs. What frozen spaces have stays.

    --check scans every place, all publications on disk included, and exits with 1 where anything is found; raw tables
    that still hold it are named and do not count. JSON: {clean, places: {name: {found, where, note}}}; with
    --forget {forgotten}; otherwise {recorded, unknown: {user, pin, query: [name]}, resumed, leftovers, rows, captions,
    pins, touched, views, online, lexical, former_lexical, bundles, warm, held_publications, points, vectors, run,
    seconds}.

    \b
    Examples:
      pinfeather erase --repo my_repo --user u17
      pinfeather erase --repo my_repo --pin p1 --pin p2 --query "wedding arch"
      pinfeather erase --repo my_repo --user u17 --check --json
      pinfeather erase --repo my_repo --user u71 --forget
    """
    from feature_repo.erasures import Subjects

    paths = RepoPaths.open(repo)
    subjects = Subjects.of(users, pins, queries)
    if check + forget + given["purge_former"] > 1:
        raise UsageError("--check, --forget and --purge-former are three different things: give one of them.")
    if forget:
        _forget(paths, subjects, as_json)
        return
    if check:
        _check(paths, subjects, given["lock_timeout"], as_json)
        return
    _erase(paths, subjects, as_json, **given)


def _erase(
    paths: RepoPaths, subjects: Subjects, as_json: bool, min_users: int | None, purge_former: bool, **given: Any
) -> None:
    from materialize.erasure.flow import erase
    from materialize.erasure.pending import is_pending
    from materialize.run import RunOptions
    from pinfeather.pipeline import fit_lexical

    if not subjects and not purge_former and not is_pending(paths):
        raise UsageError("Nothing to erase: give --user, --pin or --query. No erasure was begun that could be ended.")
    with progress("erase", as_json) as tell:
        report = erase(
            paths,
            subjects,
            RunOptions(**given, tell=say, progress=tell),
            min_users=min_users,
            purge_former=purge_former,
            refit=lambda: str(fit_lexical(paths)["digest"]),
            tell=None if as_json else lambda step: say(f"erase: {step}"),
        )
    if as_json:
        emit_json(report.to_json())
    else:
        _show(paths, report)


def _check(paths: RepoPaths, subjects: Subjects, lock_timeout: float, as_json: bool) -> None:
    from materialize.erasure.check import check

    if not subjects:
        raise UsageError("--check needs something to look for: give --user, --pin or --query.")
    places = check(paths, subjects, lock_timeout)
    clean = not any(place.fails for place in places)
    if as_json:
        emit_json({"clean": clean, "places": {place.name: place.to_json() for place in places}})
    else:
        _show_places(places)
        say("Clean: nothing that is derived has it." if clean else "Found: run the same command without --check.")
    if not clean:
        sys.exit(1)


def _forget(paths: RepoPaths, subjects: Subjects, as_json: bool) -> None:
    from feature_repo.erasures import forget
    from materialize.erasure.pending import is_pending

    if not subjects:
        raise UsageError("--forget needs the names that were given by mistake: give --user, --pin or --query.")
    if is_pending(paths):
        raise UsageError("An erasure was begun and not ended: end it with `pinfeather erase`, then forget.")
    count = forget(paths, subjects)
    if as_json:
        emit_json({"forgotten": count})
        return
    say(f"Taken out of the list: {count} of {sum(1 for _ in subjects.names())}. Run validate, aggregate, materialize.")


def _show_places(places: list[Place]) -> None:
    rows = [(place.name, place.found, ", ".join(place.where) or "-") for place in places]
    table("Where it is found", ["place", "found", "where"], rows)
    for place in places:
        if place.note:
            say(f"{place.name}: {place.note}")


def _show(paths: RepoPaths, report: EraseReport) -> None:
    rows = [
        *((f"rows of {name}", count) for name, count in report.rows.items()),
        ("captions", report.captions),
        ("pins erased", report.pins),
        ("pins that stay and may have lost words", report.touched),
        ("points that named it", report.online),
        ("texts encoded", report.counts.encoded_texts if report.counts else 0),
        *((f"vectors of older texts in the log of {name}", count) for name, count in report.settled.vectors.items()),
        *((f"points taken out of {name}", count) for name, count in report.settled.points.items()),
    ]
    table("Erased", ["what", "count"], rows)
    for kind, names in report.unknown.items():
        say(
            f"No accepted or rejected row bore the {kind} {', '.join(map(repr, names))}: recorded all the same, so it "
            "stays away. Is it misspelled? Then --forget takes it back. Were its rows deleted from data/raw before? "
            "Then vectors of its words may be in the logs: --purge-former takes those of all older texts out."
        )
    if report.warm:
        say(f"Head queries that clients no longer begin with: {report.warm}.")
    if report.leftovers:
        say(f"Left by killed processes and deleted: {report.leftovers} unfinished files or folders.")
    if report.lexical:
        say(f"Lexical statistics were fitted again: {report.lexical}.")
    if report.former_lexical:
        say(f"Statistics of past releases stay (hashed words, no pins): {', '.join(report.former_lexical)}.")
    if report.bundles:
        say(f"Student bundles are as they were trained: {', '.join(report.bundles)}. Train again to leave it out.")
    if report.held_publications:
        numbers = ", ".join(map(str, report.held_publications))
        say(f"Publications {numbers} are being read: they go when their readers let go.")
    say(f"Yours to delete: what {paths.raw} holds of it, and the tables that it is made of.")
    say("Serving processes let go of all query vectors when they next look for a publication.")
