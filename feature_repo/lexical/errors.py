"""What can be wrong with lexical data; each error names the rows or the file it found."""

from __future__ import annotations

from collections.abc import Iterable

from feature_repo.errors import PinfeatherError


def _rows_in_words(rows: tuple[int, ...]) -> str:
    """``row 3`` or ``rows 3, 5, 8 and 12 more``."""
    shown = ", ".join(str(row) for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"


class LexicalVersionError(PinfeatherError):
    """A blob or a snapshot of another ``LEXICAL_VERSION``; ``rows`` are the blobs concerned, empty for a snapshot."""

    def __init__(self, reason: str, rows: Iterable[int] = ()) -> None:
        self.reason = reason
        self.rows = tuple(int(row) for row in rows)
        super().__init__(f"{_rows_in_words(self.rows)}: {reason}" if self.rows else reason)


class LexicalBlobError(PinfeatherError):
    """Bytes that are no lexical blob (cut off, garbled); ``rows`` are the blobs concerned."""

    def __init__(self, reason: str, rows: Iterable[int]) -> None:
        self.reason = reason
        self.rows = tuple(int(row) for row in rows)
        super().__init__(f"{_rows_in_words(self.rows)}: {reason}")


class LexicalStatisticsError(PinfeatherError):
    """A statistics snapshot that cannot be read or does not hold what its digest says."""
