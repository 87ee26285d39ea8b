"""Lists of pins for a reader: what a pin is called, its level, and the features that drove the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pinfeather.output import say, table

if TYPE_CHECKING:
    from serving_client.answers import NearHit, PinExplanation, SearchHit, SearchResults
    from serving_client.client import PinClient

LEVELS = {5: "excellent", 4: "good", 3: "complementary", 2: "poor", 1: "irrelevant", 0: "-"}
WHY = "why (levels added)"
_WIDTH = 46


def pin_name(content: Mapping[str, Any] | None, pin_id: str) -> str:
    """What a reader would call the pin: title, caption, description, a query or board it belongs to, else its id."""
    content = content or {}
    for column in ("pin_text__title", "pin_captions__caption", "pin_text__description"):
        if text := content.get(column):
            return str(text)
    for column in ("pin_engaged_queries__engaged_queries", "pin_board_titles__board_titles"):
        if texts := content.get(column):
            return f"({texts[0]})"
    return pin_id


def show_search(results: SearchResults, title: str | None = None) -> None:
    """Print one search as a table."""
    judged = results.scorer == "student"
    rows: list[tuple[Any, ...]] = []
    for rank, hit in enumerate(results.hits, 1):
        name = _cut(pin_name(hit.content, hit.pin_id))
        if judged:
            rows.append((rank, name, _level(hit.level, hit.expected_level), why(hit.explanation)))
        else:
            rows.append((rank, name, hit.score))
    score = {"zero-shot": "cosine", "bm25": "BM25"}.get(results.scorer, "score")
    columns = ["#", "pin", "level", WHY] if judged else ["#", "pin", score]
    table(title or f"search: {results.query}", columns, rows)
    say(f"{results.candidates} candidates of space {results.space}, scored by {results.scorer}")
    for reason in results.degraded:
        say(f"degraded: {reason}")


def show_near(client: PinClient, hits: Sequence[NearHit], title: str) -> None:
    """Print related pins or a feed; the level is that of each pin to the words of the pin it is near to."""
    if not hits:
        say(f"{title}: nothing to show.")
        return
    names = dict(zip(sources := sorted({hit.because for hit in hits}), _names(client, sources), strict=True))
    judged = {
        source: _judge(client, names[source], [h.pin_id for h in hits if h.because == source]) for source in sources
    }
    rows = []
    for rank, hit in enumerate(hits, 1):
        level, explanation = judged[hit.because][hit.pin_id]
        name = _cut(pin_name(hit.content, hit.pin_id))
        rows.append((rank, name, _cut(names[hit.because], 30), round(hit.similarity, 3), level, why(explanation)))
    table(title, ["#", "pin", "near to", "cosine", "level", WHY], rows)
    say("Ordered by nearness and variety; the level is the pin's to the words of the pin it is near to, as a query.")


_SAME_FOR_ALL = frozenset({"query_tokens", "query_rarity"})
"""Features of the query alone: no reason for one pin over another."""


def why(explanation: PinExplanation | None, count: int = 3) -> str:
    """The start that every pin has, what moved the level most, and the rest: they sum to the expected level."""
    if explanation is None:
        return "-"
    named = [(name, value) for name, value in explanation.top(99) if name not in _SAME_FOR_ALL][:count]
    start = explanation.baseline + explanation.bias
    rest = sum(explanation.contributions.values()) - sum(value for _, value in named)
    reasons = ", ".join(f"{name.replace('_', ' ')} {value:+.2f}" for name, value in named)
    return f"{start:.2f}, {reasons}, others {rest:+.2f}"


def hit_json(hit: SearchHit | NearHit) -> dict[str, Any]:
    """A hit as plain data."""
    return asdict(hit)


def _names(client: PinClient, pin_ids: Sequence[str]) -> list[str]:
    found = client.pin_features(list(pin_ids))
    return [pin_name(found.row(row), pin_id) for row, pin_id in enumerate(pin_ids)]


def _judge(client: PinClient, query: str, pin_ids: list[str]) -> dict[str, tuple[str, PinExplanation | None]]:
    scores = client.score(query, pin_ids, explain=True)
    explanations = scores.explanations or (None,) * len(pin_ids)
    return {
        pin_id: (_level(int(scores.level[row]), float(scores.expected_level[row])), explanations[row])
        for row, pin_id in enumerate(pin_ids)
    }


def _level(level: int, expected: float) -> str:
    return f"{level} {LEVELS[level]} ({expected:.2f})" if level else "-"


def _cut(text: str, width: int = _WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
