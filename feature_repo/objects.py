"""Every Feast object of one repository; ``definitions.py`` hands them to Feast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feature_repo.entities import pin, query
from feature_repo.paths import RepoPaths
from feature_repo.services import feature_services
from feature_repo.views.pin_board_titles import pin_board_titles
from feature_repo.views.pin_captions import pin_captions
from feature_repo.views.pin_engaged_queries import pin_engaged_queries
from feature_repo.views.pin_engagement import pin_engagement
from feature_repo.views.pin_link_text import pin_link_text
from feature_repo.views.pin_relevance import pin_relevance
from feature_repo.views.pin_student_embedding import pin_student_embedding, space_embeddings
from feature_repo.views.pin_text import pin_text
from feature_repo.views.query_pin_engagement import query_pin_engagement
from feature_repo.views.query_stats import query_stats

_BUILDERS = (
    pin_text,
    pin_link_text,
    pin_captions,
    pin_board_titles,
    pin_engaged_queries,
    pin_engagement,
    pin_relevance,
    query_stats,
    query_pin_engagement,
)


def feast_objects(repo: Path | str) -> dict[str, Any]:
    """Entities, views and services of the repository at ``repo``, by name; sources have absolute paths.

    There is a view for each space, so a space that was made or dropped calls for another ``pinfeather apply``.
    """
    paths = RepoPaths(Path(repo).absolute())
    views = {view.name: view for view in [build(paths.views) for build in _BUILDERS]}
    embedding = pin_student_embedding(paths)
    views[embedding.name] = embedding
    services = {service.name: service for service in feature_services(views)}
    spaces = {view.name: view for view in space_embeddings(paths)}
    return {pin.name: pin, query.name: query, **views, **spaces, **services}
