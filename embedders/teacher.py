"""The teacher: a trained cross-encoder that gives five calibrated probabilities for a query and a pin text.

A folder: ``teacher.json`` (settings, template, temperature, training report, sha256 of each other file, written last)
and ``trained.safetensors`` (the tensors that training changed; the rest is the base's, which is named and checked by
hash). Nothing is unpickled. A folder whose ``teacher.json`` names ``members`` is an ensemble: the mean of the members'
probabilities, sharpened or softened by one temperature.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from embedders.cross_model import CrossSettings, cross_network, logits_of
from embedders.evaluation.metrics import Floats
from embedders.model_files import file_sha256
from embedders.pair_tokens import PairTokenizer
from embedders.recipe import choose_recipe
from embedders.student import softmax
from embedders.teacher_prior import FOLDER as PRIOR
from embedders.teacher_prior import TeacherPrior
from embedders.tower_folder import replacing
from embedders.training_base import TeacherError, base_fingerprint
from feature_repo.pin_text import PinTextTemplate
from feature_repo.text import canonical_query

__all__ = ["Teacher", "TeacherError", "TeacherManifest", "load_teacher_manifest"]

TEACHER_VERSION = 1
MANIFEST, WEIGHTS = "teacher.json", "trained.safetensors"
CHUNK = 8192
"""Pairs that are tokenised together."""
_REMEDY = "Restore the folder from where it came, or train a new one with `pinfeather train teacher`."

Progress = Callable[[int], None]


@dataclass(frozen=True)
class TeacherManifest:
    """What a teacher says of itself."""

    name: str
    created_at: str
    """ISO 8601, UTC."""
    template: Mapping[str, Any]
    settings: Mapping[str, Any]
    """:class:`embedders.cross_model.CrossSettings`; of an ensemble those of its first member."""
    base_fingerprint: str
    temperature: float
    training: Mapping[str, Any]
    """``pairs, queries, levels, seed, source`` and what was measured on the queries held back."""
    prior: str | None = None
    """Model of the prior's vectors (``packaged`` or a folder); None: the logits are the network's alone."""
    members: tuple[str, ...] = ()
    """Folders inside this one; empty for a single teacher."""
    files: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each file, by its path inside the folder."""
    teacher_version: int = TEACHER_VERSION


class Teacher:
    """A trained teacher, ready to label; made by :meth:`load`."""

    def __init__(self, manifest: TeacherManifest, members: Sequence[_Member], fingerprint: str) -> None:
        self.manifest = manifest
        self.name = manifest.name
        self.fingerprint = fingerprint
        self.template = PinTextTemplate.from_json(manifest.template)
        self._members = members

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto", precision: str = "auto") -> Teacher:
        """Read a teacher and check every file and the base against what was recorded.

        :raises TeacherError: if something is missing or changed.
        :raises UsageError: if the device is not there.
        """
        folder = Path(folder)
        manifest = load_teacher_manifest(folder)
        for name, expected in manifest.files.items():
            _check_file(folder / name, expected)
        recipe = choose_recipe(device, precision, None, None)
        owners = [(folder / name, load_teacher_manifest(folder / name)) for name in manifest.members]
        members = [
            _Member.load(path, each, recipe.device, recipe.precision) for path, each in owners or [(folder, manifest)]
        ]
        return cls(manifest, members, teacher_fingerprint(manifest))

    def probabilities(
        self, queries: Sequence[str], texts: Sequence[str], progress: Progress | None = None
    ) -> NDArray[np.float64]:
        """P(level 1) to P(level 5) of each pair, [n, 5]; rows sum to 1. Equal pairs are computed once.

        :param texts: pin texts of :attr:`template`.
        :param progress: called with the number of pairs done since the last call.
        """
        queries = [canonical_query(query) for query in queries]
        numbers: dict[tuple[str, str], int] = {}
        rows = [numbers.setdefault(pair, len(numbers)) for pair in zip(queries, texts, strict=True)]
        distinct = list(numbers)
        counts = np.bincount(rows, minlength=len(distinct)) if rows else np.zeros(0, np.int64)
        out = np.empty((len(distinct), 5))
        for start in range(0, len(distinct), CHUNK):
            part = distinct[start : start + CHUNK]
            out[start : start + len(part)] = self._part([query for query, _ in part], [text for _, text in part])
            if progress is not None:
                progress(int(counts[start : start + len(part)].sum()))
        return out[rows]

    def _part(self, queries: Sequence[str], texts: Sequence[str]) -> Floats:
        priors: dict[str, Floats] = {}
        for each in self._members:
            if each.prior is not None and each.prior_key not in priors:
                priors[each.prior_key] = each.prior.logits(queries, texts)
        logits = [each.logits(queries, texts) + priors.get(each.prior_key, 0.0) for each in self._members]
        if not self.manifest.members:
            return softmax(logits[0] / self.manifest.temperature)
        chances = [softmax(each / member.temperature) for each, member in zip(logits, self._members, strict=True)]
        return softmax(np.log(np.maximum(np.mean(chances, axis=0), 1e-12)) / self.manifest.temperature)


class _Member:
    """One network with its tokenizer."""

    def __init__(
        self, network: Any, tokenizer: PairTokenizer, temperature: float, device: str, prior: TeacherPrior | None
    ) -> None:
        self._network, self._tokenizer, self._device, self.prior = network, tokenizer, device, prior
        self.temperature = temperature
        manifest = prior.bundle.manifest if prior else None
        self.prior_key = f"{manifest.query_tower} {sorted(manifest.files.items())}" if manifest else ""

    @classmethod
    def load(cls, folder: Path, manifest: TeacherManifest, device: str, precision: str) -> _Member:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            settings = CrossSettings(**manifest.settings)
        except TypeError as error:
            raise TeacherError(
                f"{folder / MANIFEST} has other settings than a teacher's ({error}). {_REMEDY}"
            ) from error
        found = base_fingerprint(settings.base)
        if found != manifest.base_fingerprint:
            raise TeacherError(
                f"Teacher {folder} was trained on another {settings.base}: its files have the hash {found}, recorded "
                f"is {manifest.base_fingerprint}. Put the recorded files back, or train a new teacher."
            )
        network = cross_network(settings, device, precision)
        parameters = dict(network.named_parameters())
        try:
            tensors = load_file(str(folder / WEIGHTS))
        except (SafetensorError, OSError) as error:
            raise TeacherError(f"{folder / WEIGHTS} holds no weights ({error}). {_REMEDY}") from error
        wanted = {name for name, value in parameters.items() if value.requires_grad}
        if set(tensors) != wanted:
            odd = sorted(set(tensors) ^ wanted)
            raise TeacherError(f"{folder / WEIGHTS} does not fit its settings ({odd[0]}, ...). {_REMEDY}")
        import torch

        with torch.no_grad():
            for name, value in tensors.items():
                parameters[name].copy_(value)
        tokenizer = PairTokenizer(settings.base, network.pooling, settings.max_length)
        prior = TeacherPrior.load(folder / PRIOR, manifest.prior, device) if manifest.prior else None
        return cls(network.eval(), tokenizer, manifest.temperature, device, prior)

    def logits(self, queries: Sequence[str], texts: Sequence[str]) -> Floats:
        pairs = self._tokenizer(queries, texts)
        return logits_of(self._network, pairs, self._tokenizer.pad_id, self._device).astype(np.float64)


def save_teacher(
    folder: Path, manifest: TeacherManifest, tensors: Mapping[str, Any], prior: TeacherPrior | None = None
) -> TeacherManifest:
    """Write a single teacher's folder, in half precision; an existing one is replaced only by a complete new one."""
    from safetensors.torch import save_file

    with replacing(folder) as building:
        save_file({name: value.half().contiguous() for name, value in tensors.items()}, str(building / WEIGHTS))
        if prior is not None:
            prior.save(building / PRIOR)
        _write_manifest(building, manifest)
    return load_teacher_manifest(folder)


def save_ensemble(folder: Path, manifest: TeacherManifest, members: Sequence[Path]) -> TeacherManifest:
    """Write an ensemble: ``members`` are copied into the folder."""
    with replacing(folder) as building:
        for number, member in enumerate(members, 1):
            shutil.copytree(member, building / f"member-{number}")
        _write_manifest(building, manifest)
    return load_teacher_manifest(folder)


def _write_manifest(building: Path, manifest: TeacherManifest) -> None:
    """The manifest, last, with the hash of every other file."""
    found = [file for file in sorted(building.rglob("*")) if file.is_file()]
    files = {str(file.relative_to(building)): file_sha256(file) for file in found}
    members = tuple(sorted(path.name for path in building.glob("member-*")))
    data = asdict(replace(manifest, files=files, members=members))
    (building / MANIFEST).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_teacher_manifest(folder: str | Path) -> TeacherManifest:
    """The manifest alone, without weights.

    :raises TeacherError: if there is none, or it cannot be read.
    """
    path = Path(folder) / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["teacher_version"] != TEACHER_VERSION:
            raise TeacherError(
                f"{path} is of version {data['teacher_version']}, allowed is {TEACHER_VERSION}. {_REMEDY}"
            )
        data["members"] = tuple(data["members"])
        return TeacherManifest(**data)
    except FileNotFoundError as error:
        raise TeacherError(f"{folder} is no complete teacher: {MANIFEST} does not exist. {_REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TeacherError(f"{path} is no teacher's manifest ({type(error).__name__}: {error}). {_REMEDY}") from error


def teacher_fingerprint(manifest: TeacherManifest) -> str:
    """xxh3-128 (hex) of everything that decides a label: weights, base, settings, template, temperature."""
    parts = {
        "version": TEACHER_VERSION,
        "files": dict(manifest.files),
        "base": manifest.base_fingerprint,
        "settings": {key: value for key, value in manifest.settings.items() if key != "base"},
        "template": dict(manifest.template),
        "temperature": manifest.temperature,
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True).encode())


def now() -> str:
    """The present as a manifest has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise TeacherError(f"Teacher file {path} is missing. {_REMEDY}")
    if (found := file_sha256(path)) != expected:
        raise TeacherError(
            f"Teacher file {path} was changed: its sha256 begins {found[:12]}, the manifest says {expected[:12]}. "
            f"{_REMEDY}"
        )
