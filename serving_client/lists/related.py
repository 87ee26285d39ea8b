"""Related pins: the pins near one pin, diversified."""

from __future__ import annotations

from dataclasses import dataclass

from materialize.spaces import Space
from materialize.stores.port import Condition
from serving_client.answers import NearHit, RelatedPins
from serving_client.arguments import check_limit, check_range
from serving_client.filters import check_fields
from serving_client.lists.neighbours import LeftOut, diversified, vector_and_text
from serving_client.publications.publications import Publication


@dataclass(frozen=True)
class RelatedWish:
    """What is asked of related pins; checked when made.

    :raises UsageError: for a number out of its range.
    """

    pin_id: str
    limit: int
    diversity: float
    wanted: Condition | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)
        check_range("diversity", self.diversity, 0, 1)


def related_pins(publication: Publication, space: Space, wish: RelatedWish) -> RelatedPins:
    """Pins like that of ``wish``; itself and what is nearly the same are left out.

    :raises UsageError: if the pins of ``space`` cannot be filtered so.
    """
    pin_id, release = wish.pin_id, publication.release.number
    wanted = check_fields(publication, space, wish.wanted)
    source = vector_and_text(publication, space, pin_id)
    if source is None:
        return RelatedPins(pin_id, False, (), space.name, release)
    vector, text = source
    left_out = LeftOut((pin_id,), vector[None], [text])
    found = diversified(publication, space, vector, left_out, wish.limit, wish.diversity, wanted)
    return RelatedPins(pin_id, True, tuple(NearHit(pin, pin_id, like) for pin, like in found), space.name, release)
