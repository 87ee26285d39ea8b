"""View ``pin_board_titles``: Up to ten titles of boards that a pin was saved to, most informative first."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureView, Field
from feast.types import Array, String

from feature_repo.entities import pin
from feature_repo.views.common import OWNER, parquet_source, tags


def pin_board_titles(sources: Path) -> FeatureView:
    """The view over ``sources/pin_board_titles.parquet``."""
    description = "Up to ten titles of boards that a pin was saved to, most informative first."
    return FeatureView(
        name="pin_board_titles",
        entities=[pin],
        schema=[
            Field(name="pin_id", dtype=String),
            Field(name="board_titles", dtype=Array(String)),
        ],
        source=parquet_source("pin_board_titles", sources / "pin_board_titles.parquet", description),
        online=True,
        owner=OWNER,
        description=description,
        tags=tags("content"),
    )
