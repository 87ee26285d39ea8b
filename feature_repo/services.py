"""Feature services: the contract with consumers, one each."""

from __future__ import annotations

from collections.abc import Mapping

from feast import FeatureService, FeatureView

from feature_repo.views.common import OWNER, tags

SERVICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "relevance_v1": (
        "What five-level scoring reads of a pin.",
        ("pin_relevance", "pin_student_embedding"),
    ),
    "related_pins_v1": (
        "What related pins read of a pin.",
        ("pin_student_embedding", "pin_text"),
    ),
    "home_feed_v1": (
        "What the home feed reads of a pin.",
        ("pin_student_embedding", "pin_text", "pin_engagement"),
    ),
    "pin_content_v1": (
        "All words that are known of a pin.",
        ("pin_text", "pin_link_text", "pin_captions", "pin_board_titles", "pin_engaged_queries"),
    ),
    "query_stats_v1": (
        "How often a query is searched, by whom, and about what.",
        ("query_stats",),
    ),
}


def feature_services(views: Mapping[str, FeatureView]) -> list[FeatureService]:
    """The services over ``views`` (by name)."""
    return [
        FeatureService(
            name=name,
            features=[views[view] for view in members],
            description=description,
            owner=OWNER,
            tags=tags("contract"),
        )
        for name, (description, members) in SERVICES.items()
    ]
