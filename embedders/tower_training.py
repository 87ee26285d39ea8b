"""Training of the student's towers: a query and a pin tower whose products, with words, give the five levels.

Each step encodes some pins, and the queries that they were labelled with; the loss is the soft-label cross-entropy of
one linear head over the features of :mod:`embedders.relevance`, once for every nested dimension (Kusupati et al.,
"Matryoshka representation learning", NeurIPS 2022), and an in-batch contrastive term. The head that serves is fitted
afterwards on the stored vectors (:func:`embedders.student.train_head`).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from embedders.encoder import Encoder, load_encoder
from embedders.evaluation.folds import query_groups
from embedders.evaluation.pairs import PairSet
from embedders.losses import contrastive_loss, level_loss
from embedders.merging import write_model
from embedders.model_folder import PACKAGED
from embedders.optimising import Checkpoint, Optimiser, grouped
from embedders.recipe import EncodingRecipe, choose_recipe
from embedders.relevance import SCALAR_NAMES
from embedders.student import RelevanceHead, train_head
from embedders.tokens import TextTokenizer
from embedders.tower_folder import TowerSettings, open_model, save_tower, tower_base
from embedders.tower_network import tower_network
from embedders.tower_start import Projected, Silent
from embedders.training import encoded, pair_features
from embedders.training_base import base_fingerprint
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics
from feature_repo.pin_text import PinTextTemplate

Tell = Callable[[str], None]
LOW_RANK_RATE, WHOLE_RATE = 5e-4, 5e-5
START_PAIRS = 6_000
"""Pairs of which the first projection and head are made."""


@dataclass(frozen=True)
class TowerTraining:
    """How towers are trained; every choice is ours, for none was published."""

    base: str = PACKAGED
    """``packaged`` or a model folder."""
    shared: bool = True
    """One backbone and projection for both towers, or one each."""
    dimension: int = 256
    nested: tuple[int, ...] = (256, 128, 64)
    """Prefixes that are trained to stand alone; the whole dimension is among them."""
    rank: int = 32
    """Of the low-rank differences to every linear layer; 0 trains all weights, and the tower holds a whole model."""
    epochs: int = 2
    learning_rate: float | None = None
    """None: :data:`LOW_RANK_RATE`, or :data:`WHOLE_RATE` where all weights are trained."""
    head_learning_rate: float = 2e-3
    warmup: float = 0.06
    batch_tokens: int = 4_096
    """Padded tokens of one step, pins and queries together."""
    max_length: int = 128
    """Tokens of a text that are read, in training and for ever after."""
    contrastive: float = 0.1
    """Weight of the in-batch term; 0 leaves it out."""
    contrastive_scale: float = 20.0
    checkpoint_steps: int = 200
    """Steps between two states that an interrupted training goes on from."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UsageError(f"rank must be at least 1, or 0 to train all weights, not {self.rank}.")
        for name in ("dimension", "epochs", "batch_tokens", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.dimension not in self.nested or max(self.nested) > self.dimension or min(self.nested) < 1:
            raise UsageError(
                f"Nested dimensions {list(self.nested)} must lie between 1 and {self.dimension} and hold it."
            )
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise UsageError(f"The learning rate must be above 0, got {self.learning_rate}.")
        if self.contrastive < 0:
            raise UsageError(f"The contrastive weight must not be negative, got {self.contrastive}.")

    @property
    def rate(self) -> float:
        """The peak learning rate of the backbone."""
        if self.learning_rate is not None:
            return self.learning_rate
        return LOW_RANK_RATE if self.rank else WHOLE_RATE


def train_towers(
    pairs: PairSet,
    folder: str | Path,
    template: PinTextTemplate,
    statistics: LexicalStatistics,
    training: TowerTraining | None = None,
    device: str = "auto",
    precision: str = "auto",
    tell: Tell | None = None,
    without: Sequence[str] = (),
    keep: bool = False,
) -> dict[str, Path]:
    """Train towers on pairs with targets and write tower folders; an interrupted training goes on where it was.

    :param folder: gets ``shared``, or ``query`` and ``pin``; with rank 0 the model of each, too: ``shared-base``.
    :param tell: called with words about the progress.
    :param without: sources whose tokens and rates count as missing.
    :param keep: keep the state of the last step, so that the same call gives the towers again without training;
        :func:`forget_towers` removes it.
    :returns: the tower folder of ``query`` and of ``pin``, which are one if they are shared.
    :raises PinfeatherError: for pairs without targets or without any text.
    :raises UsageError: for settings that do not fit, or without PEFT.
    :raises ModelFolderError: for a base that is a tower, or has a last linear layer or a prompt of its own.
    """
    training, folder = training or TowerTraining(), Path(folder)
    recipe, tell = choose_recipe(device, precision), tell or (lambda _: None)
    written = _Trainer(pairs, folder, template, statistics, training, recipe, tell, without).run()
    if not keep:
        shutil.rmtree(_state_of(folder), ignore_errors=True)
    return written


def forget_towers(folder: Path) -> None:
    """Remove what :func:`train_towers` wrote to ``folder``, and the state that it kept."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(_state_of(folder), ignore_errors=True)


def _state_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.training")


class _Trainer:
    def __init__(
        self,
        pairs: PairSet,
        folder: Path,
        template: PinTextTemplate,
        statistics: LexicalStatistics,
        training: TowerTraining,
        recipe: EncodingRecipe,
        tell: Tell,
        without: Sequence[str],
    ) -> None:
        base = Path(training.base).expanduser()
        if base.is_dir():
            training = replace(training, base=str(base.absolute()))
        tower_base(training.base)
        training = replace(training, learning_rate=training.rate)
        self.training, self.folder, self.tell = training, folder, tell
        self.recipe, self.without = recipe, tuple(without)
        self.targets = pairs.require_targets().astype(np.float32)
        self.weights = np.ones(len(pairs), np.float32) if pairs.weights is None else pairs.weights.astype(np.float32)
        self.queries, self.query_of = query_groups(pairs.queries)
        self.texts = [template.render(pin).text for pin in pairs.pins]
        self.pin_of = np.asarray(pairs.pin_of)
        usable = np.array([bool(self.texts[pin]) for pin in self.pin_of]) & np.array(
            [bool(self.queries[query]) for query in self.query_of]
        )
        self.rows = np.flatnonzero(usable)
        if len(self.rows) < 2:
            raise PinfeatherError(
                f"{pairs.name} holds {len(self.rows)} pairs with texts on both sides: give at least 2."
            )
        tokenizer = TextTokenizer(open_model(training.base, training.max_length))
        self.pad_id = tokenizer.pad_id
        self.pin_ids = tokenizer.ids([tokenizer.clean(text) for text in self.texts])
        self.query_ids = tokenizer.ids([tokenizer.clean(text) for text in self.queries])
        self.pooling = open_model(training.base).pooling
        self.tell("first head: base vectors of some pairs")
        encoder = load_encoder(training.base, device=self.recipe.device, max_length=training.max_length)
        self.projection = self._first_projection(encoder)
        self.features, self.head = self._features(pairs, template, statistics, encoder)
        self.of = self._identity()

    def _sample(self) -> NDArray[np.intp]:
        chosen = np.random.default_rng(self.training.seed).permutation(self.rows)[:START_PAIRS]
        return np.sort(chosen)

    def _first_projection(self, encoder: Encoder) -> NDArray[np.float32]:
        """[dimension, hidden]: the directions in which base vectors differ most, first ones first."""
        dimension, hidden = self.training.dimension, encoder.dimension
        if dimension > hidden:
            raise UsageError(
                f"Dimension {dimension} is more than the {hidden} of {self.training.base}: give at most that."
            )
        rows = self._sample()
        pins = np.unique(self.pin_of[rows])
        vectors = encoded([self.texts[pin] for pin in pins], encoder)
        queries = encoded([self.queries[query] for query in np.unique(self.query_of[rows])], encoder)
        self._base = dict(zip(pins.tolist(), vectors, strict=True))
        stacked = np.vstack([vectors, queries]).astype(np.float64)
        _, _, directions = np.linalg.svd(stacked.T @ stacked)
        return np.ascontiguousarray(directions[:dimension], np.float32)

    def _features(
        self, pairs: PairSet, template: PinTextTemplate, statistics: LexicalStatistics, encoder: Encoder
    ) -> tuple[NDArray[np.float32], RelevanceHead]:
        """Scalar features of all pairs [n, S] (those of the towers NaN), and a head fitted on the sample."""
        projected = Projected(encoder, self.projection)
        nothing = np.full((len(pairs.pins), projected.dimension), np.nan, np.float32)
        for pin, vector in self._base.items():
            nothing[pin] = projected.project(vector[None])[0]
        sample = self._sample()
        known = pair_features(
            replace(pairs, pin_vectors=nothing).subset(sample), projected, template, statistics, without=self.without
        )
        head = train_head(
            known.matrix, self.targets[sample], known.names, None, self.training.seed, product_penalty=1e3
        )
        flat = replace(pairs, pin_vectors=np.full((len(pairs.pins), 1), np.nan, np.float32))
        whole = pair_features(flat, Silent(self.recipe), template, statistics, without=self.without)
        return whole.matrix[:, : len(SCALAR_NAMES)], head

    def _identity(self) -> str:
        digest = xxhash.xxh3_64(json.dumps(asdict(self.training)).encode())
        digest.update(base_fingerprint(self.training.base).encode())
        digest.update("\x1f".join([*self.queries, *self.texts]).encode())
        for array in (self.query_of, self.pin_of, self.targets, self.weights, self.features):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def run(self) -> dict[str, Path]:
        """Train and write the folders."""
        import torch

        training, device = self.training, self.recipe.device
        torch.manual_seed(training.seed)
        network = tower_network(
            training.base, training.rank, training.shared, self.projection, self.head, self.pooling
        ).to(device)
        optimiser = Optimiser(network, _groups(network, training), self.recipe, training.warmup)
        parts = optimiser.replicas.count
        plan = [group for epoch in range(training.epochs) for group in grouped(self._batches(epoch, parts), parts)]
        checkpoint = Checkpoint(_state_of(self.folder))
        state = checkpoint.load(network, optimiser.adam, self.of) or {"step": 0}
        smooth = None
        for step in range(state["step"], len(plan)):
            total = max(float(sum(self.weights[rows].sum() for rows in plan[step])), 1e-9)
            value = optimiser.step(step, len(plan), [(rows, total, len(plan[step])) for rows in plan[step]], self._loss)
            smooth = value if smooth is None else 0.95 * smooth + 0.05 * value
            last = step + 1 == len(plan)
            if (step + 1) % 50 == 0 or last:
                self.tell(f"step {step + 1} of {len(plan)}: loss {smooth:.4f}")
            if (step + 1) % training.checkpoint_steps == 0 or last:
                checkpoint.save(network, optimiser.adam, {"step": step + 1, "of": self.of})
        optimiser.replicas.close()
        return self._write(network)

    def _batches(self, epoch: int, parts: int) -> list[NDArray[np.intp]]:
        """Pairs of one epoch, the pairs of a pin together, within the budget of padded tokens."""
        budget = self.training.batch_tokens // parts
        random = np.random.default_rng([self.training.seed, epoch])
        of_pin: dict[int, list[int]] = {}
        for row in self.rows:
            of_pin.setdefault(int(self.pin_of[row]), []).append(int(row))
        pins = random.permutation(list(of_pin))
        lengths = np.array([len(self.pin_ids[pin]) for pin in pins])
        batches: list[NDArray[np.intp]] = []
        for start in range(0, len(pins), 4_096):
            pool = pins[start : start + 4_096][np.argsort(-lengths[start : start + 4_096], kind="stable")]
            rows: list[int] = []
            queries: set[int] = set()
            width = query_width = count = 0
            for pin in pool:
                new = {int(self.query_of[row]) for row in of_pin[int(pin)]} - queries
                wide = max(width, len(self.pin_ids[pin]))
                query_wide = max([query_width, *(len(self.query_ids[query]) for query in new)])
                if rows and wide * (count + 1) + query_wide * (len(queries) + len(new)) > budget:
                    batches.append(np.array(rows))
                    rows, queries, count = [], set(), 0
                    new = {int(self.query_of[row]) for row in of_pin[int(pin)]}
                    wide, query_wide = len(self.pin_ids[pin]), max(len(self.query_ids[query]) for query in new)
                rows += of_pin[int(pin)]
                queries |= new
                width, query_width, count = wide, query_wide, count + 1
            if rows:
                batches.append(np.array(rows))
        return [batches[number] for number in random.permutation(len(batches))]

    def _loss(self, model: Any, part: tuple[NDArray[np.intp], float, int]) -> Any:
        import torch

        (rows, total, parts), device, training = part, self.recipe.device, self.training
        queries, query_rows = np.unique(self.query_of[rows], return_inverse=True)
        pins, pin_rows = np.unique(self.pin_of[rows], return_inverse=True)
        with torch.autocast(device, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            query_raw = model.encode("query", *_padded([self.query_ids[each] for each in queries], self.pad_id, device))
            pin_raw = model.encode("pin", *_padded([self.pin_ids[each] for each in pins], self.pad_id, device))
        at_query, at_pin = torch.from_numpy(query_rows).to(device), torch.from_numpy(pin_rows).to(device)
        targets = torch.from_numpy(self.targets[rows]).to(device)
        weights = torch.from_numpy(self.weights[rows]).to(device)
        scalars = torch.from_numpy(self.features[rows]).to(device)
        loss = torch.zeros((), device=device)
        for dimension in training.nested:
            query = torch.nn.functional.normalize(query_raw[:, :dimension].float(), dim=1)
            pin = torch.nn.functional.normalize(pin_raw[:, :dimension].float(), dim=1)
            logits = model.levels(query[at_query], pin[at_pin], scalars)
            loss = loss + level_loss("cross-entropy", logits, targets, weights) / total / len(training.nested)
            if training.contrastive and dimension == training.dimension:
                good = torch.nonzero(targets[:, 4] > 0.5)[:, 0]
                positives = torch.stack([at_query[good], at_pin[good]], 1)
                labelled = torch.zeros((len(queries), len(pins)), dtype=torch.bool, device=device)
                labelled[at_query, at_pin] = True
                term = contrastive_loss(query, pin, positives, training.contrastive_scale, labelled)
                loss = loss + training.contrastive * term / parts
        return loss

    def _write(self, network: Any) -> dict[str, Path]:
        names = ("shared",) if self.training.shared else ("query", "pin")
        for name in names:
            projection = network.projections[name].weight.detach().cpu().numpy().astype(np.float16)
            base, config, adapter = self._trained_part(name, network.backbones[name])
            settings = TowerSettings(
                base=base,
                pooling=self.pooling,
                max_length=self.training.max_length,
                dimension=self.training.dimension,
                nested=tuple(sorted(self.training.nested, reverse=True)),
            )
            save_tower(self.folder / name, settings, config, adapter, projection)
        first, last = self.folder / names[0], self.folder / names[-1]
        return {"query": first, "pin": last}

    def _trained_part(self, name: str, backbone: Any) -> tuple[str, dict[str, Any] | None, dict[str, Any] | None]:
        """Base, adapter's configuration and adapter of a tower; without an adapter the base is what was trained."""
        import torch

        if not self.training.rank:
            whole, base = self.folder / f"{name}-base", tower_base(self.training.base)
            for named, value in backbone.to(torch.float16).named_parameters():
                if not torch.isfinite(value).all():
                    raise PinfeatherError(
                        f"{named} of the {name} tower is too large for half precision: train with a lower learning "
                        "rate, or take low-rank differences (rank 1 or more)."
                    )
            write_model(whole, backbone, base, self.pooling, base.max_length)
            return f"../{whole.name}", None, None
        from peft import get_peft_model_state_dict

        adapter = {
            key: value.detach().cpu().numpy().astype(np.float16)
            for key, value in get_peft_model_state_dict(backbone).items()
        }
        return self.training.base, backbone.peft_config["default"].to_dict(), adapter


def _groups(network: Any, training: TowerTraining) -> list[dict[str, Any]]:
    kind = "lora_" if training.rank else "backbones."
    own = [value for name, value in network.named_parameters() if kind in name and value.requires_grad]
    layers = list(network.projections.parameters())
    head = [network.weights, network.bias]
    return [
        {"params": own, "lr": training.rate},
        {"params": layers, "lr": training.rate / 2 if training.rank else LOW_RANK_RATE / 2},
        {"params": head, "lr": training.head_learning_rate},
    ]


def _padded(ids: Sequence[NDArray[np.int64]], pad_id: int, device: str) -> tuple[Any, Any]:
    """Token ids and mask, [b, longest] each, as tensors."""
    import torch

    width = max(len(row) for row in ids)
    padded, mask = np.full((len(ids), width), pad_id, np.int64), np.zeros((len(ids), width), np.int64)
    for place, row in enumerate(ids):
        padded[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return torch.from_numpy(padded).to(device), torch.from_numpy(mask).to(device)
