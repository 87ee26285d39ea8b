"""Files of a model folder: read, hashed, refused. A process hashes a file again only if it changed."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import xxhash

from feature_repo.errors import PinfeatherError

_CHUNK = 1 << 20


class ModelFolderError(PinfeatherError):
    """A model folder is missing, incomplete, of an unsupported kind, or not the one it was."""


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a model folder, in the order of their names.

    :raises ModelFolderError: if there are none.
    """
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise ModelFolderError(
            f"Model folder {path} has no .safetensors weights. Pickled weights (.bin, .pt) are not opened, since "
            "opening one runs code; save the model with save_pretrained() of transformers 5."
        )
    return files


def read_json(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in file ``name`` of model folder ``path``.

    :raises ModelFolderError: if there is none, or it cannot be read.
    """
    file = path / name
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"Model folder {path} has no {name}. Give the folder that holds config.json.") from None
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{file} cannot be read ({error}). Copy the model folder again.") from error
    if not isinstance(value, dict):
        raise ModelFolderError(f"{file} holds no JSON object. Copy the model folder again.")
    return value


def file_hash(file: Path) -> str:
    """xxh3-128 (hex) of a file."""
    return _xxh3_of(file, *_state(file))


def file_sha256(file: Path) -> str:
    """sha256 (hex) of a file."""
    return _sha256_of(file, *_state(file))


def _state(file: Path) -> tuple[int, int, int]:
    """What changes when a file is written: a process reads the same weights once."""
    stat = file.stat()
    return stat.st_size, stat.st_ctime_ns, stat.st_ino


@lru_cache(maxsize=64)
def _xxh3_of(file: Path, *state: int) -> str:
    digest = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _sha256_of(file: Path, *state: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
