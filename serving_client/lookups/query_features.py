"""Look-ups of what is known of queries, by a feature service whose views are keyed by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from feature_repo.errors import UsageError
from feature_repo.text import canonical_query
from materialize.definitions import RepoDefinitions
from materialize.stores.columns import event_times
from materialize.stores.layout import decode_feature, entity_collection, point_ids
from serving_client.answers import FeatureTable
from serving_client.lookups.features import service_features
from serving_client.publications.publications import Publication
from serving_client.stages import stage

QUERY_STATS = "query_stats_v1"
"""The service that says how often a query is searched."""
_QUERY = "query"


def read_query_features(publication: Publication, queries: Sequence[str], service: str) -> FeatureTable:
    """The features of ``service`` for each query, by its canonical form: one read of the rows as they are stored.

    :raises UsageError: if there is no such service, or its views are keyed otherwise.
    """
    definitions = publication.definitions
    members = _members(definitions, service)
    texts = [canonical_query(query) for query in queries]
    collection = entity_collection(publication.project, [_QUERY])
    ids = [each for view in members for each in point_ids(publication.project, view, _QUERY, texts)]
    with stage("store"):
        there = collection in publication.reader.collections()
        rows = publication.reader.get_many(collection, ids) if there else [None] * len(ids)
    points = {view: rows[place * len(texts) : (place + 1) * len(texts)] for place, view in enumerate(members)}
    columns = {
        f"{view}__{feature}": decode_feature(points[view], feature, definitions.views[view].features[feature])
        for view, features in members.items()
        for feature in features
    }
    stamps = {view: event_times(points[view]) for view in members}
    found = np.asarray(~np.isnat(np.stack(list(stamps.values()))).all(axis=0), dtype=np.bool_)
    return FeatureTable(tuple(texts), service, found, columns, stamps)


def _members(definitions: RepoDefinitions, service: str) -> Mapping[str, tuple[str, ...]]:
    """View to feature names of a service whose views are all keyed by query."""
    if not isinstance(service, str) or service not in definitions.services:
        return service_features(definitions, service)  # which says what there is
    members = definitions.services[service]
    for view in members:
        keys = definitions.views[view].join_keys
        if keys != (_QUERY,):
            hint = " Ask with pin_features." if keys == ("pin_id",) else ""
            keyed = ", ".join(keys)
            raise UsageError(f"Service {service} reads {view}, which is keyed by {keyed}, not by query.{hint}")
    return members
