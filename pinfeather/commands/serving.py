"""Commands that ask the client: search, score, related, home-feed, embed."""

from __future__ import annotations

from typing import Any

import click

from pinfeather.options import device_option, json_option, repo_option
from pinfeather.output import emit_json, say, table

limit_option = click.option("--limit", default=10, show_default=True, type=click.IntRange(1, 1000), show_envvar=True)
lang_option = click.option("--lang", multiple=True, show_envvar=True, help="Only pins of this language; repeatable.")
country_option = click.option("--country", multiple=True, show_envvar=True, help="Only of this country; repeatable.")
scorer_option = click.option(
    "--scorer",
    type=click.Choice(["student", "zero-shot", "bm25"]),
    default="student",
    show_default=True,
    show_envvar=True,
    help="Falls back in this order where the release has no such part, and says so.",
)


@click.command("search")
@click.argument("query")
@repo_option
@limit_option
@lang_option
@country_option
@scorer_option
@device_option
@json_option
def search_command(
    query: str,
    repo: str,
    limit: int,
    lang: tuple[str, ...],
    country: tuple[str, ...],
    scorer: str,
    device: str,
    as_json: bool,
) -> None:
    """Search the catalogue for QUERY: nearest pins by vector, scored on five levels, best first.

    \b
    Examples:
      pinfeather search "green velvet sofa" --repo my_repo
      pinfeather search "sommer balkon" --lang de --limit 5 --json
    """
    from pinfeather.listing import hit_json, show_search
    from serving_client import PinClient

    with PinClient(repo, device=device) as client:
        found = client.search(
            query, limit, lang=lang or None, country=country or None, scorer=scorer, explain=True, content=True
        )
        if as_json:
            head = ("query", "scorer", "space", "bundle", "candidates", "degraded")
            data = {name: getattr(found, name) for name in head}
            emit_json({**data, "hits": [hit_json(hit) for hit in found.hits]})
        else:
            show_search(found)


@click.command("score")
@click.argument("query")
@click.argument("pins", nargs=-1, required=True, metavar="PIN...")
@repo_option
@scorer_option
@device_option
@json_option
def score_command(query: str, pins: tuple[str, ...], repo: str, scorer: str, device: str, as_json: bool) -> None:
    """Score QUERY against each PIN on five levels, with the features that drove each score.

    \b
    Examples:
      pinfeather score "green velvet sofa" PIN_ID PIN_ID --repo my_repo
    """
    from dataclasses import asdict

    from pinfeather.listing import LEVELS, why
    from serving_client import PinClient

    with PinClient(repo, device=device) as client:
        scores = client.score(query, pins, explain=True, scorer=scorer)
    explanations = scores.explanations or (None,) * len(pins)
    if as_json:
        rows = [
            {
                "pin_id": pin,
                "found": bool(scores.found[row]),
                "level": int(scores.level[row]),
                "expected_level": float(scores.expected_level[row]),
                "probabilities": scores.probabilities[row].tolist(),
                "score": float(scores.ranking[row]),
                "explanation": asdict(each) if (each := explanations[row]) else None,
            }
            for row, pin in enumerate(scores.ids)
        ]
        head = ("query", "scorer", "space", "bundle", "degraded")
        emit_json({**{name: getattr(scores, name) for name in head}, "pins": rows})
        return
    table(
        f"score: {scores.query}",
        ["pin", "level", "expected level", "score", "why (levels added)"],
        [
            (
                pin if scores.found[row] else f"{pin} (not found)",
                f"{scores.level[row]} {LEVELS[int(scores.level[row])]}" if scores.level[row] else "-",
                float(scores.expected_level[row]),
                float(scores.ranking[row]),
                why(explanations[row]),
            )
            for row, pin in enumerate(scores.ids)
        ],
    )
    say(f"scored by {scores.scorer}")
    for reason in scores.degraded:
        say(f"degraded: {reason}")


@click.command("related")
@click.argument("pin")
@repo_option
@limit_option
@lang_option
@country_option
@device_option
@json_option
def related_command(
    pin: str,
    repo: str,
    limit: int,
    lang: tuple[str, ...],
    country: tuple[str, ...],
    device: str,
    as_json: bool,
) -> None:
    """Pins like PIN: nearest by vector, diversified, near-duplicates folded.

    \b
    Examples:
      pinfeather related PIN_ID --repo my_repo --limit 5
    """
    from pinfeather.listing import hit_json, show_near
    from serving_client import PinClient

    with PinClient(repo, device=device) as client:
        found = client.related_pins(pin, limit, lang=lang or None, country=country or None, content=True)
        if as_json:
            data = {"pin_id": pin, "found": found.found, "space": found.space}
            emit_json({**data, "hits": [hit_json(hit) for hit in found.hits]})
            return
        if not found.found:
            say(f"Pin {pin!r} has no vector in space {found.space}.")
        show_near(client, found.hits, f"related to {pin}")


@click.command("home-feed")
@click.argument("recent", nargs=-1, required=True, metavar="PIN...")
@repo_option
@limit_option
@click.option("--seen", multiple=True, show_envvar=True, help="Leave this pin out; repeatable.")
@lang_option
@country_option
@device_option
@json_option
def home_feed_command(
    recent: tuple[str, ...],
    repo: str,
    limit: int,
    seen: tuple[str, ...],
    lang: tuple[str, ...],
    country: tuple[str, ...],
    device: str,
    as_json: bool,
) -> None:
    """A feed for somebody who looked at these pins, the most recent first.

    \b
    Examples:
      pinfeather home-feed PIN_ID PIN_ID --repo my_repo
      pinfeather home-feed PIN_ID --seen OTHER_PIN --json
    """
    from pinfeather.listing import hit_json, show_near
    from serving_client import PinClient

    with PinClient(repo, device=device) as client:
        feed = client.home_feed(recent, limit, seen, lang=lang or None, country=country or None, content=True)
        if as_json:
            data = {"recent_pins": feed.recent_pins, "found": feed.found, "space": feed.space}
            emit_json({**data, "hits": [hit_json(hit) for hit in feed.hits]})
            return
        unknown = [pin for pin, found in zip(recent, feed.found, strict=True) if not found]
        if unknown:
            say(f"Without a vector, so of no use here: {', '.join(unknown)}")
        show_near(client, feed.hits, "home feed")


@click.command("embed")
@click.argument("texts", nargs=-1, metavar="[TEXT...]")
@repo_option
@click.option(
    "--what",
    type=click.Choice(["query", "pin", "board"]),
    default="query",
    show_default=True,
    show_envvar=True,
    help="TEXT is a query, the id of a pin, or a board title.",
)
@click.option(
    "--file",
    metavar="FILE",
    show_envvar=True,
    help="Read one TEXT a line from here (- is stdin). A board may be a JSON list: its title, then titles of its pins.",
)
@click.option("--space", default="live", show_default=True, show_envvar=True, help="live, a public or a physical name.")
@device_option
@json_option
def embed_command(
    texts: tuple[str, ...], repo: str, what: str, file: str | None, space: str, device: str, as_json: bool
) -> None:
    """Vectors of queries, boards or pins, with the space they belong to.

    Queries and boards go through the query tower of the space, so that pins can be looked for with both. JSON: {space,
    model, ids, found, vectors}.

    \b
    Examples:
      pinfeather embed "green velvet sofa" --repo my_repo --json
      pinfeather embed PIN_ID --what pin --json
      pinfeather embed --what board --file boards.txt --json
    """
    from pinfeather.texts import texts_to_embed
    from serving_client import PinClient

    asked = texts_to_embed(texts, file, boards=what == "board")
    with PinClient(repo, device=device) as client:
        ask: Any = {"query": client.embed_queries, "pin": client.pin_embeddings, "board": client.embed_boards}[what]
        got = ask(asked, space)
    if as_json:
        emit_json({"space": got.space, "model": got.model, "ids": got.ids, "found": got.found, "vectors": got.vectors})
        return
    rows = [
        (name, bool(found), " ".join(f"{value:+.3f}" for value in vector[:6]) + " …")
        for name, found, vector in zip(got.ids, got.found, got.vectors, strict=True)
    ]
    table(f"{got.vectors.shape[1]} dimensions in space {got.space}", [what, "found", "vector"], rows)
