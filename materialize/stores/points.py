"""What the store port speaks of: specs of collections, points, search results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .errors import BadInputError
from .payload import first_key

DistanceName = Literal["dot", "cosine", "euclid", "manhattan"]
DEFAULT_VECTOR = "vector"
"""Name of the one vector of a point where nothing else is said."""

TEXT_VECTOR = "text"
"""Name of the sparse vector of a document's words."""

FloatVector = npt.NDArray[np.float32]
IndexKind = Literal["keyword", "integer", "float", "bool"]


@dataclass(frozen=True)
class VectorSpec:
    """One named vector: its dimension and how two are compared.

    ``dot`` keeps stored bytes exact, which is what unit vectors want; ``cosine`` normalises them on writing.
    """

    size: int
    distance: DistanceName = "dot"
    half: bool = False
    """Kept as float16: half the disk, and a search reads half as much. For vectors that float16 holds exactly, as those
    of :func:`embedders.encoder.as_stored`; of any other the rest is lost."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 65536:
            raise BadInputError(f"A vector has 1 to 65536 dimensions, not {self.size}.")
        if self.distance not in get_args(DistanceName):
            raise BadInputError(f"distance is one of {', '.join(get_args(DistanceName))}, not {self.distance!r}.")

    def describe(self) -> str:
        """The spec in words, for errors."""
        return f"{self.size} dimensions, {self.distance}{', float16' if self.half else ''}"

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values; without ``half`` where it is False, as before there was any."""
        return {"size": self.size, "distance": self.distance, **({"half": True} if self.half else {})}


@dataclass(frozen=True)
class CollectionSpec:
    """What a collection holds; ``vectors`` may be empty for a collection of payloads only.

    The order of ``sparse`` and ``packed`` does not count: both are kept sorted.
    """

    vectors: Mapping[str, VectorSpec] = field(default_factory=dict)
    sparse: tuple[str, ...] = ()
    """Names of sparse vectors; a search over one weighs each index by its inverse document frequency (IDF)."""
    packed: tuple[str, ...] = ()
    """Top-level payload keys that no filter will ever look at: a store may keep them in a form of its own."""
    indexes: Mapping[str, IndexKind] = field(default_factory=dict, compare=False)
    """Payload paths that filters look at often. More may be asked for later, so they do not count in comparisons."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparse", tuple(sorted(self.sparse)))
        object.__setattr__(self, "packed", tuple(sorted(self.packed)))
        if twice := set(self.sparse) & set(self.vectors):
            raise BadInputError(f"A vector is either dense or sparse; {min(twice)!r} is declared as both.")
        for path, kind in self.indexes.items():
            if kind not in get_args(IndexKind):
                raise BadInputError(f"The index of {path!r} is one of {', '.join(get_args(IndexKind))}, not {kind!r}.")
            if first_key(path) in self.packed:
                raise BadInputError(f"{path!r} cannot have an index: {first_key(path)} is packed, for reading only.")

    def describe(self) -> str:
        """The spec in words, for errors."""
        dense = ", ".join(f"{name} ({v.describe()})" for name, v in sorted(self.vectors.items()))
        words = [f"the vectors {dense}" if dense else "no vectors"]
        words += [f"the sparse vectors {', '.join(self.sparse)}"] if self.sparse else []
        words += [f"the packed keys {', '.join(self.packed)}"] if self.packed else []
        return " and ".join(words)

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON values, read back by :meth:`from_json`."""
        return {
            "vectors": {name: vector.to_json() for name, vector in sorted(self.vectors.items())},
            "sparse": list(self.sparse),
            "packed": list(self.packed),
            "indexes": dict(sorted(self.indexes.items())),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CollectionSpec:
        """The spec that :meth:`to_json` wrote."""
        return cls(
            {n: VectorSpec(int(v["size"]), v["distance"], v.get("half", False)) for n, v in data["vectors"].items()},
            tuple(data.get("sparse", ())),
            tuple(data.get("packed", ())),
            dict(data.get("indexes", {})),
        )


@dataclass(frozen=True, eq=False, slots=True)
class SparseVector:
    """Weights of some dimensions: ``indices`` uint32 [n], each once, and ``values`` float32 [n]."""

    indices: npt.NDArray[np.uint32]
    values: FloatVector


@dataclass(slots=True)
class Point:
    """One stored point: a UUID, JSON payload, float32 vectors by name (empty where the collection has none).

    ``sparse`` is written only: reads leave it empty, but for ``get_sparse`` of the port. What a read gave may be shared
    with other reads, so neither its payload nor its vectors may be changed: make a new point instead.
    """

    id: str
    payload: dict[str, Any] = field(default_factory=dict)
    vectors: dict[str, FloatVector] = field(default_factory=dict)
    sparse: dict[str, SparseVector] = field(default_factory=dict)


@dataclass(slots=True)
class Hit:
    """One search result; a higher ``score`` is nearer for dot and cosine, a lower one for the distances."""

    id: str
    score: float
    payload: dict[str, Any]
    vectors: dict[str, FloatVector]
