"""What a text is for, and the numbers that screening holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Purpose(StrEnum):
    """What a text is used for; rules differ by it."""

    BOARD_TITLE = "board title"
    QUERY = "query"
    CAPTION = "caption"
    LINK = "link text"


@dataclass(frozen=True)
class Limits:
    """Numbers of the screening rules; all are whole numbers, at least 1 (``early_seconds`` at least 0)."""

    max_title_characters: int = 120
    max_query_characters: int = 200
    max_saves_a_day: int = 2_000
    """Saves of one user in a UTC day; a user-day with more counts for nothing."""
    max_visits_a_day: int = 2_000
    """Visits of one user in a UTC day; a user-day with more counts for nothing."""
    max_titles_per_user_and_pin: int = 3
    """Titles of one pin that one user may stand behind, the earliest ones."""
    early_seconds: int = 86_400
    """An event may lie this many seconds before the pin's ``created_at``, for clocks differ."""
