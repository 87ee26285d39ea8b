"""A captioner's model as it lies on disk: where it is, of which kind, its fingerprint. No torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from embedders.captions.captioner import CaptionerError, CaptionSettings
from embedders.model_files import file_hash, read_json, weight_files
from embedders.model_folder import CONFIG_NOISE

CAPTIONER_VERSION = 1
"""Bumped by hand when the way from image to caption changes without a file changing; part of the fingerprint."""

CHAT_PROMPT = "Describe what this image shows in one short, plain English sentence."
SENTENCE_KINDS = ("blip", "blip-2")
"""Model types that write the rest of a sentence; all others are asked through their chat template."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_FETCH = """import json, sys
from huggingface_hub import snapshot_download
name, revision, patterns = json.loads(sys.argv[1])
print(snapshot_download(name, revision=revision, allow_patterns=patterns))"""


@dataclass(frozen=True)
class CaptionerFolder:
    """A model and the settings that it captions with.

    ``kind`` is the model type of ``config.json``, ``prompt`` what the model is given with every image ("" for none).
    """

    path: Path
    label: str
    kind: str
    settings: CaptionSettings
    prompt: str
    fingerprint: str

    @property
    def name(self) -> str:
        """What is written beside a caption: readable, and another one for every other captioner."""
        return f"{self.label}@{self.fingerprint[:12]}"


def find_captioner(model: str, settings: CaptionSettings | None = None, *, fetch: bool = False) -> CaptionerFolder:
    """The captioner in a folder, or of a Hugging Face model id (``owner/name`` or ``owner/name@revision``).

    Reads the weights once for their hash. An id is looked up among the models fetched before.

    :param fetch: fetch an id that is not there. Nothing is ever fetched otherwise.
    :raises CaptionerError: if there is no such model, or it cannot caption; the message says what is missing.
    :raises ModelFolderError: if a file of it is missing or cannot be read.
    """
    settings = settings or CaptionSettings()
    folder = Path(model).expanduser()
    if folder.is_dir():
        path, label = folder.absolute(), folder.resolve().name
    elif _HUB_ID.fullmatch(model) and not model.startswith("."):
        path, label = _snapshot(model, fetch), model.partition("@")[0]
    else:
        raise CaptionerError(
            f"There is no model folder {model!r}, and it is no model id either. Give a folder with config.json and "
            "safetensors weights, or an id such as Salesforce/blip-image-captioning-base."
        )
    config = read_json(path, "config.json")
    kind = str(config.get("model_type") or "")
    if not kind:
        raise CaptionerError(f"{path / 'config.json'} names no model_type: give the folder of an image-to-text model.")
    if kind not in SENTENCE_KINDS and not _has_chat_template(path):
        raise CaptionerError(
            f"The model in {path} is of type {kind!r} and has no chat template, so there is no way to ask it about an "
            f"image. Captions come from models of type {', '.join(SENTENCE_KINDS)}, and from image-text-to-text models "
            "with a chat template (chat_template.jinja)."
        )
    prompt = settings.prompt if settings.prompt is not None else "" if kind in SENTENCE_KINDS else CHAT_PROMPT
    if kind not in SENTENCE_KINDS and not prompt.strip():
        raise CaptionerError(f"A chat model ({kind}) must be asked something: give --prompt a question.")
    return CaptionerFolder(path, label, kind, settings, prompt, _fingerprint(path, config, settings, prompt))


def _fingerprint(path: Path, config: Mapping[str, Any], settings: CaptionSettings, prompt: str) -> str:
    """xxh3-128 (hex) of everything that decides a caption; device and precision are no part of it."""
    parts = {
        "version": CAPTIONER_VERSION,
        "weights": [file_hash(file) for file in weight_files(path)],
        "config": _without_noise(config),
        "files": {file.name: _content(file) for file in _settings_files(path)},
        "settings": {**settings.to_json(), "prompt": prompt},
    }
    return xxhash.xxh3_128_hexdigest(json.dumps(parts, sort_keys=True).encode())


def _settings_files(path: Path) -> list[Path]:
    """Tokenizer, processor, chat template, decoding defaults: everything beside weights and ``config.json``."""
    patterns = ("*.json", "*.txt", "*.model", "*.jinja")
    found = (file for pattern in patterns for file in path.glob(pattern))
    return sorted(file for file in found if file.name != "config.json" and not file.name.endswith(".index.json"))


def _content(file: Path) -> Any:
    return (
        _without_noise(read_json(file.parent, file.name)) if file.name == "generation_config.json" else file_hash(file)
    )


def _without_noise(value: Any) -> Any:
    """Without what names a file's history; a model of several parts has it in each."""
    if isinstance(value, Mapping):
        return {key: _without_noise(item) for key, item in value.items() if key not in CONFIG_NOISE}
    return value


def _has_chat_template(path: Path) -> bool:
    if any((path / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    files = (path / name for name in ("tokenizer_config.json", "processor_config.json"))
    return any(file.is_file() and read_json(path, file.name).get("chat_template") for file in files)


def _snapshot(model: str, fetch: bool) -> Path:
    """The folder of a model id, fetched before or now."""
    name, _, revision = model.partition("@")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except HFValidationError as error:
        raise CaptionerError(f"{name!r} is no model id ({error}). Give owner/name, or the path of a folder.") from error
    except (LocalEntryNotFoundError, FileNotFoundError):
        if not fetch:
            raise CaptionerError(
                f"The model {model!r} was not fetched yet, and nothing is fetched unless you say so: run again with "
                "--fetch, or fetch it elsewhere, copy its folder here and name that."
            ) from None
    return _fetch(name, revision)


def _fetch(name: str, revision: str) -> Path:
    """Fetch in a process of its own: in this one, going to the network is off for good."""
    done = subprocess.run(
        [sys.executable, "-c", _FETCH, json.dumps([name, revision or None, _WANTED])],
        env={**os.environ, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].rstrip(".")
        raise CaptionerError(
            f"The model {name!r} could not be fetched: {reason}. Check the id and the network, or fetch it elsewhere, "
            "copy its folder here and name that."
        )
    return Path(done.stdout.strip().splitlines()[-1])
