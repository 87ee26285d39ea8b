"""What a caller may ask of pins besides fitting: language, country, age, and the flag of safe ones.

A filter works in the store, so whoever asks for 10 gets 10 where there are so many. ``lang`` and ``country`` are one
value or several of which any will do; ``created_after`` keeps pins that were created then or later; ``safe`` keeps
those whose raw column ``safe`` says so (True), or says no (False). None does not filter. A pin of which a field is not
known passes no filter by that field.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

from feature_repo.errors import UsageError
from materialize.payload_fields import LATER_PAYLOAD, PAYLOAD_COLUMNS
from materialize.spaces import Space
from materialize.stores.layout import to_micros
from materialize.stores.port import And, Condition, Match, Range, filter_keys
from serving_client.publications.publications import Publication

Wanted = str | Sequence[str] | None
"""One value, several of which any will do, or None for all."""
CreatedAfter = datetime | date | str | None
"""A time (UTC unless it says otherwise), as such or as text (ISO 8601); None for all."""
MOST_VALUES = 100
"""Languages, or countries, of one filter."""
MOST_CHARACTERS = 100
"""Of one language or country."""


def filter_of(
    *,
    lang: Wanted = None,
    country: Wanted = None,
    created_after: CreatedAfter = None,
    safe: bool | None = None,
) -> Condition | None:
    """The store's filter, all parts of which must hold; None where nothing is filtered.

    Whether a space has the fields is another question: see :func:`check_fields`.

    :raises UsageError: for an empty list, a value that is no text, a time that cannot be read, a flag that is no bool.
    """
    parts: list[Condition] = []
    for name, wanted in (("lang", lang), ("country", country)):
        if wanted is not None:
            parts.append(Match(name, any_of=_values(name, wanted)))
    if created_after is not None:
        parts.append(Range("created_at", gte=to_micros(_time(created_after))))
    if safe is not None:
        if not isinstance(safe, bool):
            raise UsageError(f"safe is {safe!r:.60}, but must be True, False, or None for all pins.")
        parts.append(Match("safe", safe))
    return And(tuple(parts)) if parts else None


def check_fields(publication: Publication, space: Space, condition: Condition | None) -> Condition | None:
    """``condition``, if the points of ``space`` have the fields that it looks at.

    :raises UsageError: if the space was made before one of them was; without this nothing would be found in silence.
    """
    spec = publication.reader.collections().get(space.name)
    if condition is None or spec is None:
        return condition
    lacking = filter_keys(condition) - set(spec.indexes)
    lacking |= {field for field in filter_keys(condition) & LATER_PAYLOAD if not _defined(publication, field)}
    for field in sorted(lacking):
        raise UsageError(
            f"The pins of space {space.name} cannot be filtered by {field!r}: the space was written before that field "
            "was. Run `pinfeather aggregate`, `pinfeather apply` and `pinfeather materialize` (`pinfeather spaces "
            "unfreeze` first where it is frozen), or leave this filter out."
        )
    return condition


def _defined(publication: Publication, field: str) -> bool:
    """Whether the registry has the feature behind ``field``, without which no point gets it."""
    view, feature = PAYLOAD_COLUMNS[field]
    views = publication.definitions.views
    return view in views and feature in views[view].features


def _values(name: str, wanted: str | Sequence[str]) -> list[str]:
    count = len(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else 1
    if not 1 <= count <= MOST_VALUES:
        raise UsageError(f"{name} is a list of {count} values: give 1 to {MOST_VALUES} of them, or None for all pins.")
    values = list(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]
    for value in values:
        if not isinstance(value, str) or not 1 <= len(value) <= MOST_CHARACTERS or not value.isprintable():
            raise UsageError(
                f"{name} holds {value!r:.60}: give texts of up to {MOST_CHARACTERS} characters, such as those in the "
                f"column {name!r} of the pins."
            )
    return values


def _time(value: datetime | date | str) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise UsageError(_no_time(value)) from None
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime) or value != value:  # pandas' NaT is a datetime and equals nothing
        raise UsageError(_no_time(value))
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (OverflowError, ValueError):  # the first and the last day there is
        raise UsageError(_no_time(value)) from None


def _no_time(value: object) -> str:
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:60] + "…"
    return (
        f"created_after is {shown}: give a datetime or its text, such as '2026-10-31' or '2026-10-31T08:00:00+00:00'."
    )
