"""A student as one folder of safetensors and JSON: head, statistics snapshot, template, fingerprints, metrics.

Layout: ``head.safetensors``, ``lexical.json`` (a copy of the statistics snapshot), ``manifest.json``. The manifest
holds the sha256 of each other file and is written last, so a folder that has one is complete. Nothing is unpickled
and loading imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from embedders.relevance import feature_names
from embedders.student import RelevanceHead
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LEXICAL_VERSION, LexicalStatistics
from feature_repo.pin_text import PinTextTemplate
from feature_repo.switchboard import checked

BUNDLE_VERSION = 1
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
    """sha256 of each file beside the manifest."""
    bundle_version: int = BUNDLE_VERSION


@dataclass(frozen=True, eq=False)
class StudentBundle:
    """A trained student, ready to score."""

    manifest: BundleManifest
    head: RelevanceHead
    statistics: LexicalStatistics

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
        query_tower: str,
        spaces: tuple[str, ...],
        metrics: Mapping[str, Any],
        training: Mapping[str, Any],
        pin_tower: str | None = None,
        without: tuple[str, ...] = (),
    ) -> StudentBundle:
        """A new bundle, created now; ``pin_tower`` None means that one model is both towers.

        :param without: sources that were off when ``head`` was trained and ``statistics`` were fitted.
        """
        manifest = BundleManifest(
            name=name,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            template=template.to_json(),
            query_tower=query_tower,
            pin_tower=pin_tower or query_tower,
            dimension=len(head.names) - len(feature_names(0)),
            spaces=tuple(spaces),
            feature_names=head.names,
            lexical_version=LEXICAL_VERSION,
            lexical_digest=statistics.digest,
            metrics=dict(metrics),
            training=dict(training),
            without=tuple(without),
        )
        return cls(manifest, head, statistics)

    def save(self, directory: str | Path) -> Path:
        """Write the folder; an existing one is replaced only by a complete new one. Gives the folder back."""
        from safetensors.numpy import save

        target = Path(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        building = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        (building / HEAD).write_bytes(save({name: getattr(self.head, name) for name in _ARRAYS}))
        digest = self.statistics.save(building)
        (building / f"{digest}.json").rename(building / STATISTICS)
        files = {name: _sha256(building / name) for name in (HEAD, STATISTICS)}
        manifest = {**asdict(self.manifest), "files": files}
        if not self.manifest.without:
            del manifest["without"]  # so that a Pinfeather from before it was there reads the bundle
        (building / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        old = target.with_name(f".{target.name}.old.{os.getpid()}")
        if target.exists():
            target.rename(old)
        building.rename(target)
        shutil.rmtree(old, ignore_errors=True)
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
        for name in (HEAD, STATISTICS):
            _check_file(folder / name, manifest.files.get(name))
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
        return cls(manifest, head, LexicalStatistics.load(folder / STATISTICS))


def load_manifest(directory: str | Path) -> BundleManifest:
    """The manifest alone, without reading the head: for a release or a listing.

    :raises BundleError: if there is none, or it cannot be read.
    """
    path = Path(directory) / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["bundle_version"] != BUNDLE_VERSION:
            raise BundleError(
                f"{path} is of bundle version {data['bundle_version']}, allowed is {BUNDLE_VERSION}. {_REMEDY}"
            )
        data["spaces"], data["feature_names"] = tuple(data["spaces"]), tuple(data["feature_names"])
        data["without"] = checked(data.get("without", ()))
        return BundleManifest(**data)
    except FileNotFoundError as error:
        raise BundleError(f"{directory} is no complete student bundle: {MANIFEST} does not exist. {_REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise BundleError(f"{path} is no bundle manifest ({type(error).__name__}: {error}). {_REMEDY}") from error


def _check_file(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise BundleError(f"Bundle file {path} is missing. {_REMEDY}")
    found = _sha256(path)
    if found != expected:
        raise BundleError(
            f"Bundle file {path} was changed: its sha256 begins {found[:12]}, the manifest says {str(expected)[:12]}. "
            f"{_REMEDY}"
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
