"""Commands that ask for lists of pins: related, home-feed, boards."""

from __future__ import annotations

from typing import Any

import click

from feature_repo.errors import UsageError
from pinfeather.filter_options import filter_options, filters_of
from pinfeather.options import (
    Decorator,
    FiniteRange,
    device_option,
    json_option,
    limit_option,
    repo_option,
    space_option,
)
from pinfeather.output import emit_json, say, table


def _share_option(name: str, default: float, text: str) -> Decorator:
    """A number from 0 to 1."""
    return click.option(name, default=default, show_default=True, type=FiniteRange(0, 1), show_envvar=True, help=text)


diversity_option = _share_option("--diversity", 0.3, "0 ranks by nearness alone, 1 by unlikeness to the pins above.")


@click.command("related")
@click.argument("pin")
@repo_option
@limit_option
@diversity_option
@filter_options
@space_option
@device_option
@json_option
def related_command(
    pin: str, repo: str, limit: int, diversity: float, space: str, device: str, as_json: bool, **filters: Any
) -> None:
    """Pins like PIN: nearest by vector, diversified, near-duplicates folded.

    JSON: {pin_id, found, space, release, degraded, hits}.

    \b
    Examples:
      pinfeather related PIN_ID --repo my_repo --limit 5
      pinfeather related PIN_ID --lang de --created-after 2026-01-01 --json
    """
    from pinfeather.listing import show_near
    from serving_client import PinClient

    with PinClient(repo, device=device) as client:
        found = client.related_pins(pin, limit, diversity, content=True, space=space, **filters_of(filters))
        if as_json:
            _emit(found, {"pin_id": pin, "found": found.found})
            return
        if not found.found:
            say(f"Pin {pin!r} has no vector in space {found.space}.")
        show_near(client, found.hits, f"related to {pin}")
    _say_degraded(found.degraded)


@click.command("home-feed")
@click.argument("recent", nargs=-1, required=True, metavar="PIN...")
@repo_option
@limit_option
@click.option("--seen", multiple=True, show_envvar=True, help="Leave this pin out; repeatable.")
@click.option(
    "--saved-at",
    multiple=True,
    metavar="TIME",
    show_envvar=True,
    help="When the pins were saved (ISO 8601), once for each PIN and in their order; then the PINs may stand in any.",
)
@diversity_option
@_share_option("--exploration", 0.1, "Share of places for less important interests and less near pins.")
@click.option("--seed", show_envvar=True, help="Another seed, such as the date, gives other explored pins.")
@filter_options
@space_option
@device_option
@json_option
def home_feed_command(
    recent: tuple[str, ...],
    repo: str,
    limit: int,
    seen: tuple[str, ...],
    saved_at: tuple[str, ...],
    diversity: float,
    exploration: float,
    seed: str | None,
    space: str,
    device: str,
    as_json: bool,
    **filters: Any,
) -> None:
    """A feed for somebody who looked at these pins, the most recent first: each interest gets its share.

    JSON: {recent_pins, found, space, release, degraded, interests, hits}.

    \b
    Examples:
      pinfeather home-feed PIN_ID PIN_ID --repo my_repo
      pinfeather home-feed PIN_ID --seen OTHER_PIN --exploration 0.2 --seed 2026-11-22 --json
    """
    from dataclasses import asdict

    from pinfeather.listing import show_near
    from serving_client import PinClient

    wanted = filters_of(filters)
    with PinClient(repo, device=device) as client:
        feed = client.home_feed(
            recent,
            limit,
            seen,
            diversity,
            content=True,
            exploration=exploration,
            saved_at=saved_at or None,
            seed=seed,
            space=space,
            **wanted,
        )
        if as_json:
            interests = [asdict(interest) for interest in feed.interests]
            _emit(feed, {"recent_pins": feed.recent_pins, "found": feed.found, "interests": interests})
            return
        unknown = [pin for pin, found in zip(recent, feed.found, strict=True) if not found]
        if unknown:
            say(f"Without a vector, so of no use here: {', '.join(unknown)}")
        show_near(client, feed.hits, "home feed")
    for interest in feed.interests:
        if interest.dry:
            say(f"There were not enough unseen pins near {interest.pin_id}: others got the places.")
    _say_degraded(feed.degraded)


@click.group("boards")
def boards_command() -> None:
    """What fits boards: pins that fit one, and which of somebody's boards fit a pin."""


@boards_command.command("pins")
@click.argument("title")
@repo_option
@click.option("--pin", "pins", multiple=True, metavar="PIN", show_envvar=True, help="A pin on the board; repeatable.")
@limit_option
@diversity_option
@filter_options
@space_option
@device_option
@json_option
def board_pins_command(
    title: str,
    repo: str,
    pins: tuple[str, ...],
    limit: int,
    diversity: float,
    space: str,
    device: str,
    as_json: bool,
    **filters: Any,
) -> None:
    """Pins that fit the board TITLE, without those that are on it.

    TITLE may be "" where --pin says what the board is about. JSON: {board, found, pins, pins_found, space, release,
    degraded, hits}.

    \b
    Examples:
      pinfeather boards pins "Balcony garden" --repo my_repo
      pinfeather boards pins "Ideas" --pin PIN_ID --pin PIN_ID --limit 5 --json
    """
    from pinfeather.listing import pin_name
    from serving_client import PinClient

    with PinClient(repo, device=device) as client:
        found = client.board_pins(title, limit, diversity, pins=pins, content=True, space=space, **filters_of(filters))
    if as_json:
        head = {"board": title, "found": found.found, "pins": found.pins, "pins_found": found.pins_found}
        _emit(found, head)
        return
    if not found.found:
        say("Nothing is known of this board: give it a title, or pins that have a vector.")
    rows = [(hit.pin_id, pin_name(hit.content, hit.pin_id), hit.similarity) for hit in found.hits]
    table(f"fit the board {title!r}", ["id", "pin", "cosine"], rows)
    _say_degraded(found.degraded)


@boards_command.command("fit")
@click.argument("pin")
@repo_option
@click.option("--board", "boards", multiple=True, metavar="TITLE", show_envvar=True, help="A board; repeatable.")
@click.option(
    "--file",
    metavar="FILE",
    show_envvar=True,
    help="Read one board a line from here (- is stdin): its title, or a JSON list of it and titles of its pins.",
)
@limit_option
@space_option
@device_option
@json_option
def fit_command(
    pin: str,
    repo: str,
    boards: tuple[str, ...],
    file: str | None,
    limit: int,
    space: str,
    device: str,
    as_json: bool,
) -> None:
    """Which of the boards given fit PIN, best first.

    JSON: {pin_id, found, space, release, degraded, hits}; position counts the boards given from 0.

    \b
    Examples:
      pinfeather boards fit PIN_ID --board "Living room" --board "Balcony" --repo my_repo
      pinfeather boards fit PIN_ID --file boards.txt --limit 3 --json
    """
    from pinfeather.texts import texts_to_embed
    from serving_client import PinClient

    if bool(boards) == (file is not None):
        raise UsageError("Give the boards either with --board TITLE, once for each, or with --file, one a line.")
    given = list(boards) if file is None else texts_to_embed((), file, boards=True)
    with PinClient(repo, device=device) as client:
        found = client.boards_for_pin(pin, given, limit, space=space)
    if as_json:
        _emit(found, {"pin_id": pin, "found": found.found})
        return
    if not found.found:
        say(f"Pin {pin!r} has no vector in space {found.space}.")
    table(f"boards that fit {pin}", ["board", "cosine"], [(hit.board, hit.similarity) for hit in found.hits])
    _say_degraded(found.degraded)


def _emit(answer: Any, head: dict[str, Any]) -> None:
    """Print an answer with ``hits`` as JSON; the keys are a contract."""
    from dataclasses import asdict

    common = {"space": answer.space, "release": answer.release, "degraded": answer.degraded}
    emit_json({**head, **common, "hits": [asdict(hit) for hit in answer.hits]})


def _say_degraded(reasons: tuple[str, ...]) -> None:
    for reason in reasons:
        say(f"degraded: {reason}")
