"""What the Feast registry says of views and services, as plain data.

The registry is the definition. Importing Feast takes seconds, so what was read from a file registry is kept as JSON
under the hash of that file, and Feast is imported again only when the registry has changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from materialize.files import write_json
from materialize.releases import LIVE_EMBEDDING
from materialize.stores.errors import StoreError
from materialize.stores.layout import canonical_type

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

_CACHE_VERSION = 2


@dataclass(frozen=True)
class ViewDefinition:
    """One feature view: where its rows come from and what they hold."""

    name: str
    join_keys: tuple[str, ...]
    features: Mapping[str, str]
    """Feature name to type (``string``, ``float32``, ``string_list`` ...; see ``materialize.stores.layout``)."""
    columns: Mapping[str, str]
    """Join key or feature name to column of the source, where the view's field mapping renames it; else itself."""
    source: str
    """Absolute path or glob of the Parquet source, or its URI; empty for other kinds of source."""
    timestamp_field: str
    created_timestamp_column: str
    vector_field: str | None
    online: bool
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RepoDefinitions:
    """Everything of a registry that the materializer and the client read."""

    project: str
    views: Mapping[str, ViewDefinition]
    services: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Service name to view name to feature names."""

    def feature_views(self) -> list[ViewDefinition]:
        """Online views whose rows are features, in name order; embedding views are filled by their space.

        Views without join keys are left out: they have one row for everybody, which Feast writes itself.
        """
        views = [view for _, view in sorted(self.views.items()) if view.online and view.vector_field is None]
        return [view for view in views if view.join_keys]


def load_definitions(paths: RepoPaths) -> RepoDefinitions:
    """The definitions of an applied repository.

    :raises PinfeatherError: if nothing was applied yet, the registry cannot be read, or the repository was moved since.
    """
    if not paths.registry.is_file():
        raise PinfeatherError(
            f"No Feast registry at {paths.registry}: run `pinfeather apply --repo {paths.root}` first "
            f"(or `feast -c {paths.root} apply`)."
        )
    digest = xxhash.xxh3_128_hexdigest(paths.registry.read_bytes())
    cache = paths.data / "definitions.json"
    definitions = _read_cache(cache, digest)
    if definitions is None:
        definitions = _read_registry(paths)
        write_json(cache, {"registry": digest, "version": _CACHE_VERSION, **asdict(definitions)})
    _check_place(paths, definitions)
    return definitions


def _check_place(paths: RepoPaths, definitions: RepoDefinitions) -> None:
    """Refuse a copied or moved repository whose views still name the files of the place it was applied at."""
    view = definitions.views.get(LIVE_EMBEDDING)
    if view is not None and (there := Path(view.source).parent.parent.resolve()) != paths.vectors.resolve():
        raise PinfeatherError(
            f"{paths.root} was applied at another place: its views read {there.parent}. Run "
            f"`pinfeather apply --repo {paths.root}`, so that they read the files here."
        )


def _read_cache(cache: Path, digest: str) -> RepoDefinitions | None:
    """What was read from the registry with this digest; None if nothing was kept, or the file is damaged."""
    try:
        kept = json.loads(cache.read_text(encoding="utf-8"))
        if kept["registry"] == digest and kept["version"] == _CACHE_VERSION:
            return _from_json(kept)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _from_json(kept: Mapping[str, Any]) -> RepoDefinitions:
    views = {
        name: ViewDefinition(**{**view, "join_keys": tuple(view["join_keys"])}) for name, view in kept["views"].items()
    }
    services = {
        name: {view: tuple(features) for view, features in members.items()}
        for name, members in kept["services"].items()
    }
    return RepoDefinitions(kept["project"], views, services)


def open_feature_store(paths: RepoPaths) -> FeatureStore:
    """Feast's own store over this repository, for the slow path and for applying. Imports Feast (seconds)."""
    from feast import FeatureStore

    return FeatureStore(repo_path=str(paths.root))


def _read_registry(paths: RepoPaths) -> RepoDefinitions:
    try:
        store = open_feature_store(paths)
        projects = [project.name for project in store.list_projects()]
        if store.project in projects:
            return _read_store(store, paths.root)
    except (PinfeatherError, StoreError, ImportError):  # they say themselves what is wrong
        raise
    except Exception as error:  # Feast's own errors have no common base, nor have those of protobuf
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PinfeatherError(
            f"The Feast registry {paths.registry} cannot be read ({reason}). Delete it and run "
            f"`pinfeather apply --repo {paths.root}`, which writes it again from definitions.py."
        ) from error
    found = ", ".join(projects) or "none"
    raise PinfeatherError(
        f"The Feast registry {paths.registry} has no project {store.project!r} (it has {found}): "
        f"run `pinfeather apply --repo {paths.root}`, or correct the project in feature_store.yaml."
    )


def _read_store(store: FeatureStore, root: Path) -> RepoDefinitions:
    join_keys = {entity.name: entity.join_key for entity in store.list_entities()}
    views = {view.name: _view(view, join_keys, root) for view in store.list_feature_views()}
    services = {
        service.name: {
            projection.name: tuple(feature.name for feature in projection.features)
            for projection in service.feature_view_projections
        }
        for service in store.list_feature_services()
    }
    return RepoDefinitions(store.project, views, services)


def _view(view: FeatureView, join_keys: Mapping[str, str], root: Path) -> ViewDefinition:
    source = view.batch_source
    if source is None:
        raise PinfeatherError(f"Feature view {view.name} has no batch source: give it one, or set online=False.")
    mapping = {new: old for old, new in (source.field_mapping or {}).items()}
    keys = tuple(join_keys[name] for name in view.entities)
    fields = sorted(view.features, key=lambda field: field.name)  # Feast keeps them in the order of a set
    vectors = [field.name for field in fields if field.vector_index]
    return ViewDefinition(
        name=view.name,
        join_keys=keys,
        features={field.name: canonical_type(str(field.dtype)) for field in fields},
        columns={name: mapping.get(name, name) for name in (*keys, *(field.name for field in fields))},
        source=_source(getattr(source, "path", "") or "", root),
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column or "",
        vector_field=vectors[0] if vectors else None,
        online=view.online,
        tags=dict(view.tags),
    )


def _source(path: str, root: Path) -> str:
    """A source's path as Feast resolves it: relative to the repository; a URI stays as it is."""
    return path if not path or "://" in path else str(root / path)
