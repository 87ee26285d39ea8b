"""Feast entities: what a feature row is about."""

from feast import Entity, ValueType

pin = Entity(name="pin", join_keys=["pin_id"], value_type=ValueType.STRING, description="A pin of the catalogue.")
query = Entity(
    name="query",
    join_keys=["query"],
    value_type=ValueType.STRING,
    description="A search query in canonical form (feature_repo.text.canonical_query).",
)
