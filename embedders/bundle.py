"""A student as one folder of safetensors and JSON: head, statistics snapshot, template, towers, fingerprints, metrics.

Layout: ``head.safetensors``, ``lexical.json`` (a copy of the statistics snapshot), ``manifest.json``, and, where the
student has towers of its own, ``towers/shared`` or ``towers/query`` and ``towers/pin`` (tower folders, see
:mod:`embedders.tower_folder`, or whole model folders). The manifest holds the sha256 of each other file and is written
last, so a folder that has one is complete. Nothing is unpickled and loading imports no torch.

Versions: 1 has no towers and is still written for a student without, so that an older Pinfeather reads it; 2 has them.
A change that an older reader would take wrongly gets a new number; a key that it may ignore does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from embedders.model_files import file_sha256
from embedders.relevance import feature_names
from embedders.student import RelevanceHead
from embedders.tower_folder import copy_model, open_model, replacing
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LEXICAL_VERSION, LexicalStatistics
from feature_repo.pin_text import PinTextTemplate
from feature_repo.switchboard import checked

if TYPE_CHECKING:
    from embedders.encoder import Encoder

BUNDLE_VERSION, TOWERS_VERSION = 1, 2
ROLES = ("query", "pin")
MANIFEST, HEAD, STATISTICS = "manifest.json", "head.safetensors", "lexical.json"
_ARRAYS = ("mean", "scale", "weights", "bias")
_REMEDY = "Restore the folder from where it came, or train a new one with `pinfeather train student`."


class BundleError(PinfeatherError):
    """A student bundle is missing, incomplete, changed, or of another kind than asked for."""


@dataclass(frozen=True)
class BundleManifest:
    """What a bundle says of itself."""

    name: str
    created_at: str
    """ISO 8601, UTC."""
    template: Mapping[str, Any]
    """The pin text template, as :meth:`PinTextTemplate.to_json`."""
    query_tower: str
    """Fingerprint of the model that makes query vectors."""
    pin_tower: str
    """Fingerprint of the model that made the pin vectors of the spaces."""
    dimension: int
    spaces: tuple[str, ...]
    """Spaces whose pin vectors the head reads."""
    feature_names: tuple[str, ...]
    lexical_version: int
    lexical_digest: str
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]
    """``pairs``, ``queries``, ``seed``, ``source``."""
    without: tuple[str, ...] = ()
    """Sources that were off in training and are masked in every scoring, see :mod:`feature_repo.switchboard`."""
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each other file, by its path in the folder."""
    towers: Mapping[str, str] = field(default_factory=dict)
    """``query`` and ``pin`` to the folder of the tower in the bundle; empty where it has none of its own."""
    bundle_version: int = BUNDLE_VERSION

    def reads(self, space: str, model_fingerprint: str, template: PinTextTemplate) -> bool:
        """Whether the head reads the vectors of a space: one that it was trained on, or one of its own pin tower.

        :param space: name of the space; ``model_fingerprint`` and ``template`` are those of its manifest.
        """
        own = self.towers and self.pin_tower == model_fingerprint
        return space in self.spaces or bool(own and PinTextTemplate.from_json(self.template) == template)


@dataclass(frozen=True, eq=False)
class StudentBundle:
    """A trained student, ready to score."""

    manifest: BundleManifest
    head: RelevanceHead
    statistics: LexicalStatistics
    towers: Mapping[str, Path] = field(default_factory=dict)
    """``query`` and ``pin`` to the folder of the tower; empty where the student has none of its own."""

    @property
    def template(self) -> PinTextTemplate:
        """The pin text template that the pin tower read."""
        return PinTextTemplate.from_json(self.manifest.template)

    @classmethod
    def make(
        cls,
        name: str,
        head: RelevanceHead,
        statistics: LexicalStatistics,
        template: PinTextTemplate,
        query_tower: str | None,
        spaces: tuple[str, ...],
        metrics: Mapping[str, Any],
        training: Mapping[str, Any],
        pin_tower: str | None = None,
        without: tuple[str, ...] = (),
        towers: Mapping[str, str | Path] | None = None,
    ) -> StudentBundle:
        """A new bundle, created now; ``pin_tower`` None means that one model is both towers.

        :param query_tower: fingerprint; None, as ``pin_tower``, takes it from ``towers``.
        :param without: sources that were off when ``head`` was trained and ``statistics`` were fitted.
        :param towers: ``query`` and ``pin`` to tower or model folders, which :meth:`save` copies into the bundle; the
            same folder, or one of the same fingerprint, for both is one tower.
        :raises BundleError: if ``towers`` do not fit each other, the head, or the fingerprints given.
        """
        dimension = len(head.names) - len(feature_names(0))
        folders: dict[str, Path] = {}
        if towers is not None:
            folders, query_tower, pin_tower = _own_towers(towers, dimension, query_tower, pin_tower)
        elif query_tower is None:
            raise BundleError(f"Student {name} has no towers: give the fingerprint of the query tower.")
        pin_tower = pin_tower or query_tower
        names = ("shared", "shared") if query_tower == pin_tower else ROLES
        manifest = BundleManifest(
            name=name,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            template=template.to_json(),
            query_tower=query_tower,
            pin_tower=pin_tower,
            dimension=dimension,
            spaces=tuple(spaces),
            feature_names=head.names,
            lexical_version=LEXICAL_VERSION,
            lexical_digest=statistics.digest,
            metrics=dict(metrics),
            training=dict(training),
            without=tuple(without),
            towers={role: f"towers/{name}" for role, name in zip(folders, names, strict=False)},
            bundle_version=TOWERS_VERSION if folders else BUNDLE_VERSION,
        )
        return cls(manifest, head, statistics, folders)

    def encoder(self, role: str, device: str = "auto", precision: str = "auto") -> Encoder:
        """The tower ``query`` or ``pin`` of the bundle, loaded; one that is both is loaded anew each time.

        :raises BundleError: if the bundle has no towers of its own.
        :raises ModelFolderError: if the tower cannot be loaded, or its base is not the recorded one.
        """
        from embedders.encoder import load_encoder

        if role not in self.towers:
            raise BundleError(
                f"Bundle {self.manifest.name} has no {role} tower of its own: take the model of the space that it "
                f"reads ({', '.join(self.manifest.spaces)})."
            )
        fingerprint = self.manifest.query_tower if role == "query" else self.manifest.pin_tower
        return load_encoder(self.towers[role], device, precision, expected_fingerprint=fingerprint)

    def save(self, directory: str | Path) -> Path:
        """Write the folder; an existing one is replaced only by a complete new one. Gives the folder back."""
        from safetensors.numpy import save

        target = Path(directory)
        with replacing(target) as building:
            (building / HEAD).write_bytes(save({name: getattr(self.head, name) for name in _ARRAYS}))
            digest = self.statistics.save(building)
            (building / f"{digest}.json").rename(building / STATISTICS)
            for role, place in self.manifest.towers.items():
                if not (building / place).exists():
                    copy_model(self.towers[role], building / place)
            files = {name: file_sha256(building / name) for name in (HEAD, STATISTICS, *_tower_files(building))}
            manifest = {**asdict(self.manifest), "files": files}
            for key in ("without", "towers"):
                if not manifest[key]:
                    del manifest[key]  # so that a Pinfeather from before it was there reads the bundle
            text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
            (building / MANIFEST).write_text(text, encoding="utf-8")
        return target

    @classmethod
    def load(cls, directory: str | Path) -> StudentBundle:
        """Read a bundle and check every file against the manifest.

        :raises BundleError: if a file is missing or changed, or the bundle reads features this version does not make.
        :raises LexicalVersionError: if its statistics are of another lexical version.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        folder = Path(directory)
        manifest = load_manifest(folder)
        check_files(folder, manifest)
        try:
            arrays = load((folder / HEAD).read_bytes())
            head = RelevanceHead(manifest.feature_names, *(arrays[name] for name in _ARRAYS))
        except (SafetensorError, KeyError) as error:
            raise BundleError(f"{folder / HEAD} holds no student head ({error}). {_REMEDY}") from error
        if manifest.feature_names != feature_names(manifest.dimension):
            raise BundleError(
                f"Bundle {folder} reads other features than this Pinfeather makes. Train a new one with "
                "`pinfeather train student`, or use the Pinfeather that made it."
            )
        towers = {role: folder / place for role, place in manifest.towers.items()}
        return cls(manifest, head, LexicalStatistics.load(folder / STATISTICS), towers)


def load_manifest(directory: str | Path) -> BundleManifest:
    """The manifest alone, without reading the head: for a release or a listing.

    :raises BundleError: if there is none, or it cannot be read.
    """
    path = Path(directory) / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["bundle_version"] not in (BUNDLE_VERSION, TOWERS_VERSION):
            raise BundleError(
                f"{path} is of bundle version {data['bundle_version']}, allowed are {BUNDLE_VERSION} and "
                f"{TOWERS_VERSION}. {_REMEDY}"
            )
        data["spaces"], data["feature_names"] = tuple(data["spaces"]), tuple(data["feature_names"])
        data["without"] = checked(data.get("without", ()))
        manifest = BundleManifest(**data)
        _check_places(manifest.towers)
        return manifest
    except FileNotFoundError as error:
        raise BundleError(f"{directory} is no complete student bundle: {MANIFEST} does not exist. {_REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise BundleError(f"{path} is no bundle manifest ({type(error).__name__}: {error}). {_REMEDY}") from error


def check_files(folder: Path, manifest: BundleManifest) -> None:
    """Compare every file of a bundle with its manifest.

    :raises BundleError: if one is missing, was changed, or lies among the towers without being in the manifest.
    """
    for name in dict.fromkeys((HEAD, STATISTICS, *manifest.files)):
        _check_file(folder / name, manifest.files.get(name))
    if extra := sorted(set(_tower_files(folder)) - set(manifest.files)):
        raise BundleError(f"Bundle file {folder / extra[0]} is not in the manifest: it was added later. {_REMEDY}")


def _own_towers(
    towers: Mapping[str, str | Path], dimension: int, query_tower: str | None, pin_tower: str | None
) -> tuple[dict[str, Path], str, str]:
    """Folder of each role, fingerprint of the query tower, fingerprint of the pin tower."""
    if set(towers) != set(ROLES):
        raise BundleError(f"Towers of a bundle are {' and '.join(ROLES)}, not {', '.join(sorted(towers)) or 'none'}.")
    opened = {role: open_model(towers[role]) for role in ROLES}
    sizes = {role: model.dimension for role, model in opened.items()}
    if set(sizes.values()) != {dimension}:
        raise BundleError(
            f"The towers give vectors of {sizes} components, the head reads {dimension}: train the head on vectors of "
            "these towers."
        )
    found = {role: model.fingerprint() for role, model in opened.items()}
    for role, given in (("query", query_tower), ("pin", pin_tower)):
        if given and given != found[role]:
            raise BundleError(
                f"The {role} tower at {towers[role]} is {found[role]}, not {given}: give the right folder."
            )
    return {role: model.path for role, model in opened.items()}, found["query"], found["pin"]


def _check_places(towers: Mapping[str, str]) -> None:
    """Towers lie in the bundle and nowhere else.

    :raises ValueError: if a manifest says otherwise.
    """
    places = [PurePosixPath(place) for place in towers.values()]
    inside = all(
        place.parts[:1] == ("towers",) and len(place.parts) == 2 and ".." not in place.parts for place in places
    )
    if towers and (set(towers) != set(ROLES) or not inside):
        raise ValueError(f"towers {dict(towers)} are not the folders of a query and a pin tower")


def _tower_files(folder: Path) -> list[str]:
    """Paths within a bundle of every file of its towers."""
    found = (path for path in sorted((folder / "towers").rglob("*")) if not path.is_dir())
    return [path.relative_to(folder).as_posix() for path in found]


def _check_file(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise BundleError(f"Bundle file {path} is missing. {_REMEDY}")
    found = file_sha256(path)
    if found != expected:
        raise BundleError(
            f"Bundle file {path} was changed: its sha256 begins {found[:12]}, the manifest says {str(expected)[:12]}. "
            f"{_REMEDY}"
        )
