"""A tower written out as a whole model folder of sentence-transformers, for programs that know no towers.

``config.json`` and ``model.safetensors`` (the base with the adapter added), the base's tokenizer, ``modules.json``,
``1_Pooling``, ``2_Dense`` where the tower has a projection, ``3_Normalize``. Its vectors are the tower's to 1e-5; it is
another folder with another fingerprint, so a space that was made with one does not take the other.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from embedders.backbone import load_backbone, quiet_transformers
from embedders.model_files import weight_files
from embedders.model_folder import ModelFolder
from embedders.projection import DENSE_WEIGHTS, Projection
from embedders.tower_folder import TowerFolder, replacing
from feature_repo.errors import UsageError

_TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model", "added_tokens.json")
_TYPES = "sentence_transformers.models."  # every release of sentence-transformers reads these names


def merge_tower(folder: str | Path, out: str | Path) -> Path:
    """Write the tower in ``folder`` as a model folder ``out``, in fp32; gives it back.

    :raises UsageError: if there is something at ``out`` already.
    :raises ModelFolderError: if ``folder`` is no tower that can be opened.
    """
    target = Path(out).expanduser().absolute()
    if target.exists():
        raise UsageError(f"{out} is there already: name a folder that is not, or delete that one first.")
    tower = TowerFolder.open(folder)
    model, projection = load_backbone(tower, "cpu", "fp32"), tower.projection()
    return write_model(target, model, tower.base, tower.pooling, tower.max_length, tower.prompt, projection)


def write_model(
    target: Path,
    model: Any,
    base: ModelFolder,
    pooling: str,
    max_length: int,
    prompt: str = "",
    projection: Projection | None = None,
) -> Path:
    """Write a transformer with the tokenizer of ``base`` as a model folder; gives ``target`` back.

    :param model: transformers' own, with weights of its own; in the type that it has.
    :param pooling: ``mean`` or ``cls``.
    """
    if getattr(model, "pooler", None) is not None and not _has_pooler(base):
        model.pooler = None  # random numbers, which no vector reads
    with replacing(target) as building:
        with quiet_transformers():
            model.save_pretrained(building)
        _keep_dropout(building, base)
        for pattern in _TOKENIZER:
            for file in base.path.glob(pattern):
                shutil.copyfile(file, building / file.name)
        _write(building / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
        if prompt:
            prompts = {"prompts": {"text": prompt}, "default_prompt_name": "text"}
            _write(building / "config_sentence_transformers.json", prompts)
        modes = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens")}
        _write(building / "1_Pooling/config.json", {"word_embedding_dimension": base.dimension, **modes})
        kinds = [("Transformer", ""), ("Pooling", "1_Pooling")]
        if projection is not None:
            _write_dense(building / "2_Dense", projection)
            kinds.append(("Dense", "2_Dense"))
        kinds.append(("Normalize", "3_Normalize"))
        (building / "3_Normalize").mkdir()
        modules = [
            {"idx": number, "name": str(number), "path": path, "type": _TYPES + kind}
            for number, (kind, path) in enumerate(kinds)
        ]
        _write(building / "modules.json", modules)
    return target


def _keep_dropout(target: Path, base: ModelFolder) -> None:
    """Have the configuration say the dropout of ``base``: training switched it off for itself."""
    config, former = (json.loads((folder / "config.json").read_text("utf-8")) for folder in (target, base.path))
    _write(target / "config.json", config | {key: former[key] for key in config if "dropout" in key and key in former})


def _has_pooler(base: ModelFolder) -> bool:
    """Whether the files of ``base`` hold a pooler; else transformers makes one up."""
    from safetensors import safe_open

    for file in weight_files(base.path):
        with safe_open(str(file), framework="numpy") as weights:
            if any("pooler." in name for name in weights.keys()):  # noqa: SIM118 (no dictionary)
                return True
    return False


def _write_dense(folder: Path, projection: Projection) -> None:
    from safetensors.numpy import save

    dimension, hidden = projection.weight.shape
    activation = "torch.nn.modules.linear.Identity"
    config = {"in_features": hidden, "out_features": dimension, "bias": False, "activation_function": activation}
    _write(folder / "config.json", config)
    (folder / DENSE_WEIGHTS).write_bytes(save({"linear.weight": projection.weight}))


def _write(file: Path, value: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
