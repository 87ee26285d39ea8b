"""The collections of a feature repository as Feast's infrastructure objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from feast import FeatureView, OnDemandFeatureView, RepoConfig, StreamFeatureView
from feast.infra.infra_object import InfraObject
from feast.labeling.label_view import LabelView
from feast.protos.feast.core.InfraObject_pb2 import InfraObject as InfraObjectProto
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto

from .stores.errors import NoPublicationError
from .stores.feast_rows import FeastView
from .stores.place import Place
from .stores.points import CollectionSpec
from .stores.session import Session, session

CLASS_TYPE = "materialize.feast_plan.QdrantCollection"


class QdrantCollection(InfraObject):
    """A collection that feature views need.

    A proto of it names the place without its api_key, which belongs in no registry; so an object that was read back
    from a proto can be updated and torn down only where no key is asked for.
    """

    def __init__(self, name: str, spec: CollectionSpec, place: Place) -> None:
        super().__init__(name)
        self.spec = spec
        self.place = place

    def to_infra_object_proto(self) -> InfraObjectProto:
        """See Feast's ``InfraObject``."""
        return InfraObjectProto(infra_object_class_type=CLASS_TYPE, custom_infra=self.to_proto())

    def to_proto(self) -> Any:
        """See Feast's ``InfraObject``."""
        place = {key: value for key, value in vars(self.place).items() if key != "api_key"}
        text = json.dumps({"name": self.name, "spec": self.spec.to_json(), "place": place}, sort_keys=True)
        return InfraObjectProto.CustomInfra(field=text.encode())

    @staticmethod
    def from_infra_object_proto(infra_object_proto: InfraObjectProto) -> QdrantCollection:
        """See Feast's ``InfraObject``."""
        return QdrantCollection.from_proto(infra_object_proto.custom_infra)

    @staticmethod
    def from_proto(infra_object_proto: Any) -> QdrantCollection:
        """See Feast's ``InfraObject``."""
        data = json.loads(infra_object_proto.field)
        return QdrantCollection(data["name"], CollectionSpec.from_json(data["spec"]), Place(**data["place"]))

    def update(self) -> None:
        """Make the collection, unless it exists."""
        with session(self.place).writing(f"make {self.name}") as writer:
            writer.create(self.name, self.spec)

    def teardown(self) -> None:
        """Drop the collection with its rows, if it exists."""
        with session(self.place).writing(f"drop {self.name}") as writer:
            writer.drop(self.name)


def planned_collections(config: RepoConfig, registry: RegistryProto, opened: Session) -> list[InfraObject]:
    """The collections that the views of ``registry`` need, by name.

    Left out are those whose vectors' length shows with the first row only, and spaces that the release names.
    """
    release = None
    with suppress(NoPublicationError), opened.reading() as store:
        release = store.release
    specs: dict[str, CollectionSpec] = {}
    for table in _views(registry):
        view = FeastView.of(config, table)
        spec = None if view.is_space(release) else view.spec()
        if spec is not None:
            specs[view.collection(release, list(table.join_keys))] = spec
    return [QdrantCollection(name, spec, opened.place) for name, spec in sorted(specs.items())]


def _views(registry: RegistryProto) -> Iterator[Any]:
    """The views with online rows."""
    kinds: Sequence[tuple[Any, Any]] = (
        (FeatureView, registry.feature_views),
        (StreamFeatureView, registry.stream_feature_views),
        (LabelView, registry.label_views),
        (OnDemandFeatureView, registry.on_demand_feature_views),
    )
    for kind, protos in kinds:
        for proto in protos:
            view = kind.from_proto(proto)
            if view.write_to_online_store if kind is OnDemandFeatureView else view.online:
                yield view
