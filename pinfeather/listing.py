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
_WIDTH = 46


def pin_name(content: Mapping[str, Any] | None, pin_id: str) -> str:
    """What a reader would call the pin: title, else caption, else the start of its description, else its id."""
    content = content or {}
    for column in ("pin_text__title", "pin_captions__caption", "pin_text__description"):
        if text := content.get(column):
            return str(text)
    return pin_id


def show_search(results: SearchResults, title: str | None = None) -> None:
    """Print one search as a table."""
    rows = [
        (rank, _cut(pin_name(hit.content, hit.pin_id)), _level(hit.level, hit.expected_level), why(hit.explanation))
        for rank, hit in enumerate(results.hits, 1)
    ]
    caption = f"{results.candidates} candidates from space {results.space}, scored by {results.scorer}"
    table(title or f"search: {results.query}", ["#", "pin", "level", "why (levels added)"], rows, caption)
    for reason in results.degraded:
        say(f"degraded: {reason}")


def show_near(client: PinClient, hits: Sequence[NearHit], title: str, caption: str | None = None) -> None:
    """Print related pins or a feed; the level is that of each pin to the words of the pin it is near to."""
    names = dict(zip(sources := sorted({hit.because for hit in hits}), _names(client, sources), strict=True))
    judged = {
        source: _judge(client, names[source], [h.pin_id for h in hits if h.because == source]) for source in sources
    }
    rows = []
    for rank, hit in enumerate(hits, 1):
        level, explanation = judged[hit.because][hit.pin_id]
        name = _cut(pin_name(hit.content, hit.pin_id))
        rows.append((rank, name, _cut(names[hit.because], 30), round(hit.similarity, 3), level, why(explanation)))
    table(title, ["#", "pin", "near to", "cosine", "level", "why (levels added)"], rows, caption)


def why(explanation: PinExplanation | None) -> str:
    """The three features that moved the level most."""
    if explanation is None:
        return "-"
    return ", ".join(f"{name.replace('_', ' ')} {value:+.2f}" for name, value in explanation.top(3))


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
