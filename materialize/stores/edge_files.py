"""The files of an Edge collection that say what it is: the engine's configuration and our own beside it.

Ours holds what the engine has no place for: which keys are packed (its binding takes microseconds for every single
payload value, see :class:`~.payload.Packing`), and which paths have an index.
"""

from __future__ import annotations

import json
from pathlib import Path

from .edge_models import sparse_names
from .errors import StoreCorruptError, StoreError
from .files import write_durably
from .points import CollectionSpec, VectorSpec

CONFIG = "edge_config.json"
SIDE_FILE = "pinfeather.json"


def read_spec(path: Path) -> CollectionSpec:
    """The spec of the collection in ``path``, from the engine's own configuration file and ours."""
    reading = path / CONFIG
    try:
        config = json.loads(reading.read_text())
        vectors = {
            name: VectorSpec(each["size"], each["distance"].lower(), each.get("datatype") == "float16")
            for name, each in config["vectors"].items()
        }
        sparse = sparse_names(config)
        reading = path / SIDE_FILE
        ours = json.loads(reading.read_text()) if reading.exists() else {"packed": [], "indexes": {}}
        return CollectionSpec(vectors, sparse, tuple(ours["packed"]), dict(ours["indexes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StoreError) as error:
        raise StoreCorruptError(
            f"The collection folder {path} cannot be read: its {reading.name} is missing or damaged ({error}). "
            "Move the folder away and write the collection again, or restore it from a backup."
        ) from error


def write_side_file(path: Path, spec: CollectionSpec) -> None:
    """Write our own file, if it has anything to say."""
    if spec.packed or spec.indexes:
        ours = {"packed": list(spec.packed), "indexes": dict(spec.indexes)}
        write_durably(path / SIDE_FILE, json.dumps(ours, sort_keys=True))
