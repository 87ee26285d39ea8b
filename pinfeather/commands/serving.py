"""Commands that ask the client: search, score, embed."""

from __future__ import annotations

from typing import Any

import click

from pinfeather.filter_options import filter_options, filters_of
from pinfeather.options import FiniteRange, device_option, json_option, limit_option, repo_option, space_option
from pinfeather.output import emit_json, say, table

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
@click.option(
    "--candidates",
    default=200,
    show_default=True,
    type=click.IntRange(1, 10_000),
    show_envvar=True,
    help="How many pins are found and scored; pages go no deeper.",
)
@filter_options
@scorer_option
@click.option(
    "--retrieval",
    type=click.Choice(["hybrid", "vector", "lexical"]),
    default="hybrid",
    show_default=True,
    show_envvar=True,
    help="Find candidates by vector and by words, or by one of them.",
)
@click.option(
    "--engagement-weight",
    default=0.0,
    show_default=True,
    type=FiniteRange(min=0),
    show_envvar=True,
    help="Up to so many levels are added for engagement; 0 ranks by relevance alone.",
)
@click.option(
    "--floor",
    default=3.0,
    show_default=True,
    type=FiniteRange(1, 5),
    show_envvar=True,
    help="Only pins of at least this expected level get some of the --engagement-weight; the others stand below them.",
)
@click.option(
    "--cursor", metavar="CURSOR", show_envvar=True, help="The next_cursor of the page before, all else being the same."
)
@space_option
@device_option
@json_option
def search_command(
    query: str,
    repo: str,
    limit: int,
    candidates: int,
    scorer: str,
    retrieval: str,
    engagement_weight: float,
    floor: float,
    cursor: str | None,
    space: str,
    device: str,
    as_json: bool,
    **filters: Any,
) -> None:
    """Search the catalogue for QUERY: pins found by vector and by words, scored on five levels, best first.

    JSON: {query, scorer, space, bundle, candidates, degraded, release, next_cursor, hits}.

    \b
    Examples:
      pinfeather search "green velvet sofa" --repo my_repo
      pinfeather search "sommer balkon" --lang de --limit 5 --json
      pinfeather search "green velvet sofa" --created-after 2026-01-01 --safe
      pinfeather search "green velvet sofa" --engagement-weight 0.5 --floor 3.5
      pinfeather search "green velvet sofa" --json --cursor CURSOR
    """
    from pinfeather.listing import hit_json, show_search
    from serving_client import PinClient

    with PinClient(repo, device=device) as client:
        found = client.search(
            query,
            limit,
            candidates,
            **filters_of(filters),
            scorer=scorer,
            explain=True,
            content=True,
            retrieval=retrieval,
            engagement_weight=engagement_weight,
            floor=floor,
            cursor=cursor,
            space=space,
        )
    if as_json:
        head = ("query", "scorer", "space", "bundle", "candidates", "degraded", "release", "next_cursor")
        data = {name: getattr(found, name) for name in head}
        emit_json({**data, "hits": [hit_json(hit) for hit in found.hits]})
        return
    show_search(found)
    if found.next_cursor:
        say(f"next page: --cursor {found.next_cursor}")


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
@space_option
@device_option
@json_option
def embed_command(
    texts: tuple[str, ...], repo: str, what: str, file: str | None, space: str, device: str, as_json: bool
) -> None:
    """Vectors of queries, boards or pins, with the space they belong to.

    Queries and boards go through the query tower of the space, so that pins can be looked for with both. JSON: {space,
    model, ids, found, vectors}; of pins also event_timestamps, when what each says became so.

    \b
    Examples:
      pinfeather embed "green velvet sofa" --repo my_repo --json
      pinfeather embed PIN_ID --what pin --json
      pinfeather embed --what board --file boards.txt --json
    """
    import numpy as np

    from pinfeather.texts import texts_to_embed
    from serving_client import PinClient

    asked = texts_to_embed(texts, file, boards=what == "board")
    with PinClient(repo, device=device) as client:
        ask: Any = {"query": client.embed_queries, "pin": client.pin_embeddings, "board": client.embed_boards}[what]
        got = ask(asked, space)
    if as_json:
        data = {"space": got.space, "model": got.model, "ids": got.ids, "found": got.found, "vectors": got.vectors}
        if got.event_timestamps is not None:
            data["event_timestamps"] = [None if np.isnat(at) else f"{at}+00:00" for at in got.event_timestamps]
        emit_json(data)
        return
    rows = [
        (name, bool(found), " ".join(f"{value:+.3f}" for value in vector[:6]) + " …")
        for name, found, vector in zip(got.ids, got.found, got.vectors, strict=True)
    ]
    table(f"{got.vectors.shape[1]} dimensions in space {got.space}", [what, "found", "vector"], rows)
