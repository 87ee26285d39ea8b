"""Training of the teacher: soft-label cross-entropy over pairs, on a processor or a GPU, resumable."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from embedders.calibration import fit_temperature
from embedders.cross_model import CrossSettings, check_settings, cross_network, logits_of, on_device
from embedders.encoder import Encoder
from embedders.evaluation.folds import query_folds
from embedders.evaluation.metrics import LEVELS, Floats
from embedders.evaluation.pairs import PairSet
from embedders.losses import LOSSES, level_loss
from embedders.optimising import Checkpoint, Optimiser, grouped, other_training, shuffled_batches, trained
from embedders.pair_tokens import PairBatch, PairTokenizer
from embedders.recipe import EncodingRecipe, choose_recipe
from embedders.student import softmax
from embedders.targets import balanced_weights
from embedders.teacher import Teacher, TeacherManifest, now, save_ensemble, save_teacher
from embedders.teacher_prior import TeacherPrior
from embedders.training_base import base_fingerprint
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinTextTemplate
from feature_repo.text import canonical_query

Tell = Callable[[str], None]
BEST = "best/best.safetensors"
"""In the folder of the state, out of the way of its own files."""
Pairs = list[tuple[NDArray[np.int64], int]]


@dataclass(frozen=True)
class TeacherTraining:
    """How a teacher is trained; every choice is ours, for none was published."""

    epochs: int = 2
    learning_rate: float = 1e-4
    head_learning_rate: float = 5e-4
    warmup: float = 0.06
    """Share of the steps in which the rate rises."""
    weight_decay: float = 0.01
    dropout: float = 0.0
    batch_tokens: int = 2_048
    """Padded tokens of one step."""
    loss: str = "cross-entropy"
    """One of :data:`embedders.losses.LOSSES`."""
    balance: float = 0.0
    """Power of :func:`embedders.targets.balanced_weights`; 0 leaves the levels as they come."""
    prior: str | None = "packaged"
    """Model of the prior's vectors; None trains the network from nothing but the labels."""
    held_back: float = 0.1
    """Share of the queries that are not trained on: they stop the training and fit the temperature."""
    evaluations: int = 4
    """Times per epoch that the pairs held back are scored."""
    patience: int = 4
    """Evaluations without a better loss after which the training stops; the best weights are kept."""
    gradient_checkpointing: bool = False
    checkpoint_steps: int = 200
    """Steps between two states that an interrupted training goes on from."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UsageError(f"There is no loss {self.loss!r}: allowed are {', '.join(LOSSES)}.")
        if self.seed < 0:
            raise UsageError(f"The seed must not be negative, got {self.seed}.")
        if not 0.02 <= self.held_back <= 0.5:
            raise UsageError(f"held_back {self.held_back} is not between 0.02 and 0.5: some queries must be held back.")
        for name in ("epochs", "batch_tokens", "evaluations", "patience", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")


def train_teacher(
    pairs: PairSet,
    folder: str | Path,
    name: str | None = None,
    settings: CrossSettings | None = None,
    training: TeacherTraining | None = None,
    template: PinTextTemplate = DEFAULT_TEMPLATE,
    device: str = "auto",
    precision: str = "auto",
    seeds: int = 1,
    tell: Tell | None = None,
    encoder: Encoder | None = None,
) -> TeacherManifest:
    """Train a teacher on judged pairs and write its folder; an interrupted training goes on where it was.

    :param seeds: more than one trains an ensemble, one member after the other.
    :param tell: called with words about the progress.
    :param encoder: the prior's model, if it was loaded before.
    :raises PinfeatherError: without levels, or with too few queries to hold some back.
    :raises UsageError: for settings that do not fit.
    """
    settings, training, folder = settings or CrossSettings(), training or TeacherTraining(), Path(folder)
    name = name or folder.name
    if seeds < 1:
        raise UsageError(f"An ensemble has at least 1 member, not {seeds}.")
    recipe = choose_recipe(device, precision)
    check_settings(settings, recipe.device)
    trainer = _Trainer(pairs, settings, training, template, recipe, tell or (lambda _: None), encoder)
    if seeds == 1:
        return trainer.run(folder, name, training.seed)
    work = folder.with_name(f".{folder.name}.members")
    members = [work / f"member-{number}" for number in range(1, seeds + 1)]
    for number, member in enumerate(members):
        done = work / f"{member.name}.of"
        of = trainer.identity(training.seed + number)
        if (member / "teacher.json").is_file() and done.is_file():
            if done.read_text("utf-8") != of:
                raise other_training(work)
            continue
        trainer.run(member, f"{name}-{number + 1}", training.seed + number)
        done.write_text(of, encoding="utf-8")
    manifest = trainer.ensemble(folder, name, members)
    shutil.rmtree(work, ignore_errors=True)
    return manifest


class _Trainer:
    """Pairs as tokens, split into those that are trained on and those held back."""

    def __init__(
        self,
        pairs: PairSet,
        settings: CrossSettings,
        training: TeacherTraining,
        template: PinTextTemplate,
        recipe: EncodingRecipe,
        tell: Tell,
        encoder: Encoder | None = None,
    ) -> None:
        self._encoder = encoder
        self.pairs, self.settings, self.training = pairs, settings, training
        self.template, self.recipe, self.tell = template, recipe, tell
        self.targets = pairs.require_targets()
        self.queries = [canonical_query(query) for query in pairs.queries]
        rendered = [template.render(pin).text for pin in pairs.pins]
        self.texts = [rendered[pin] for pin in pairs.pin_of]
        weights = np.ones(len(pairs)) if pairs.weights is None else np.asarray(pairs.weights, np.float64)
        self.weights = weights  # as they are where the loss stops the training and the temperature is fitted
        self._balance = balanced_weights(self.targets, training.balance)
        self.held = self._held_back()
        self._prior: TeacherPrior | None = None
        self._offsets: Floats = np.zeros((len(pairs), LEVELS))
        if training.prior is not None:
            self._fit_prior(training.prior)

    def _held_back(self) -> NDArray[np.bool_]:
        """The pairs of the queries that are held back."""
        held = query_folds(self.queries, 1_000, self.training.seed + 7919) < 1_000 * self.training.held_back
        if held.all() or not held.any():
            raise PinfeatherError(
                f"The {len(set(self.queries))} queries of {self.pairs.name} cannot be split into those to train on and "
                "those to stop and calibrate by: judge more queries (20 at least)."
            )
        return held

    def _fit_prior(self, model: str) -> None:
        from embedders.encoder import load_encoder

        self.tell("prior: cosine and words")
        encoder = self._encoder or load_encoder(model, device=self.recipe.device)
        self._prior, self._offsets = TeacherPrior.fit(
            self.queries, self.texts, self.targets, ~self.held, encoder, self.template, self.training.seed
        )
        self.tell(f"prior: loss {self._loss(np.zeros((int(self.held.sum()), LEVELS))):.4f} on the queries held back")

    def _loss(self, logits: Floats, temperature: float = 1.0) -> float:
        """Mean cross-entropy of the pairs held back, ``logits`` being the network's alone."""
        chances = softmax((logits + self._offsets[self.held]) / temperature)
        losses = -(self.targets[self.held] * np.log(np.maximum(chances, 1e-12))).sum(axis=1)
        return float(np.average(losses, weights=self.weights[self.held]))

    def run(self, folder: Path, name: str, seed: int) -> TeacherManifest:
        """Train one network and write its folder."""
        import torch

        torch.manual_seed(seed)
        device, training = self.recipe.device, self.training
        network = cross_network(self.settings, device, dropout=training.dropout)
        if self._prior is not None:
            torch.nn.init.zeros_(network.out.weight)  # the first step starts from the prior
        if training.gradient_checkpointing:
            network.backbone.gradient_checkpointing_enable()
            network.backbone.enable_input_require_grads()
        tokenizer = PairTokenizer(self.settings.base, network.pooling, self.settings.max_length)
        tokens = tokenizer(self.queries, self.texts)
        checkpoint = Checkpoint(folder.with_name(f".{folder.name}.training"))
        best = self._optimise(network, tokens, tokenizer.pad_id, checkpoint, seed)
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for key, value in best.items():
                parameters[key].copy_(value)
        network.eval()
        logits = self._held_logits(network, tokens, tokenizer.pad_id)
        temperature = fit_temperature(
            logits + self._offsets[self.held], self.targets[self.held], self.weights[self.held]
        )
        manifest = self._manifest(name, temperature, {"seed": seed, "held_back_loss": self._loss(logits, temperature)})
        saved = save_teacher(folder, manifest, best, self._prior)
        checkpoint.remove()
        return saved

    def _optimise(self, network: Any, tokens: Pairs, pad_id: int, checkpoint: Checkpoint, seed: int) -> dict[str, Any]:
        """The trained tensors with the least loss on the pairs held back."""
        training = self.training
        optimiser = Optimiser(network, _groups(network, training), self.recipe, training.warmup, training.weight_decay)
        parts = optimiser.replicas.count
        known = np.flatnonzero(~self.held)
        lengths = np.array([len(tokens[row][0]) for row in known])
        plan = [
            [known[rows] for rows in group]
            for epoch in range(training.epochs)
            for group in grouped(shuffled_batches(lengths, training.batch_tokens // parts, seed, epoch), parts)
        ]
        every = max(1, len(plan) // (training.epochs * training.evaluations))
        loss, of = self._loss_of(tokens, pad_id), self.identity(seed)
        state = checkpoint.load(network, optimiser.adam, of) or {"step": 0, "best": None, "worse": 0}
        best = _read_best(checkpoint.folder) if state["best"] is not None else {}
        while state["step"] < len(plan):
            step = state["step"]
            total = max(float(sum((self.weights * self._balance)[rows].sum() for rows in plan[step])), 1e-9)
            value = optimiser.step(step, len(plan), [(rows, total) for rows in plan[step]], loss)
            state["step"] = step + 1
            if state["step"] % every == 0 or state["step"] == len(plan):
                optimiser.replicas.train(False)
                found = self._loss(self._held_logits(network, tokens, pad_id))
                self.tell(f"step {step + 1} of {len(plan)}: loss {value:.4f}, held back {found:.4f}")
                if state["best"] is None or found < state["best"]:
                    state |= {"best": found, "worse": 0}
                    best = {key: tensor.clone() for key, tensor in trained(network).items()}
                    _write_best(checkpoint.folder, best)
                else:
                    state["worse"] += 1
                if state["worse"] >= training.patience:
                    self.tell(f"stopped: {training.patience} evaluations without a better loss")
                    state["step"] = len(plan)
            if state["step"] % training.checkpoint_steps == 0 or state["step"] == len(plan):
                checkpoint.save(network, optimiser.adam, {**state, "of": of})
        optimiser.replicas.close()
        return best

    def _loss_of(self, tokens: Pairs, pad_id: int) -> Callable[[Any, tuple[NDArray[np.intp], float]], Any]:
        """The loss of a model on (rows, the summed weights of the step)."""
        import torch

        device, name = self.recipe.device, self.training.loss
        targets, offsets = torch.from_numpy(self.targets).float(), torch.from_numpy(self._offsets).float()
        weights = torch.from_numpy(self.weights * self._balance).float()

        def loss(model: Any, part: tuple[NDArray[np.intp], float]) -> Any:
            rows, total = part
            batch = PairBatch.of(rows, tokens, pad_id)
            with torch.autocast(device, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
                logits = model(*on_device(batch, device))
            logits = logits.float() + offsets[rows].to(device)
            return level_loss(name, logits, targets[rows].to(device), weights[rows].to(device)) / total

        return loss

    def _held_logits(self, network: Any, tokens: Pairs, pad_id: int) -> Floats:
        """The network's logits of the pairs held back."""
        held = [tokens[row] for row in np.flatnonzero(self.held)]
        return logits_of(network, held, pad_id, self.recipe.device).astype(np.float64)

    def identity(self, seed: int) -> str:
        """xxh3-64 of everything that decides the training."""
        digest = xxhash.xxh3_64(
            json.dumps([asdict(self.training), self.settings.to_json(), self.template.to_json(), seed]).encode()
        )
        digest.update(base_fingerprint(self.settings.base).encode())
        digest.update("\x1f".join([*self.queries, *self.texts]).encode())
        digest.update(np.ascontiguousarray(self.targets).tobytes() + np.ascontiguousarray(self.weights).tobytes())
        return digest.hexdigest()

    def _manifest(self, name: str, temperature: float, more: Mapping[str, Any]) -> TeacherManifest:
        levels = self.pairs.levels if self.pairs.levels is not None else self.targets.argmax(axis=1) + 1
        report = {
            "pairs": len(self.pairs),
            "queries": len(set(self.queries)),
            "held_back_pairs": int(self.held.sum()),
            "levels": {str(level): int((levels == level).sum()) for level in range(1, LEVELS + 1)},
            "source": self.pairs.source or self.pairs.name,
            "device": self.recipe.device,
            "precision": self.recipe.precision,
            **{key: value for key, value in asdict(self.training).items() if key not in ("seed", "prior")},
            **more,
        }
        return TeacherManifest(
            name=name,
            created_at=now(),
            template=self.template.to_json(),
            settings=self.settings.to_json(),
            base_fingerprint=base_fingerprint(self.settings.base),
            temperature=temperature,
            training=report,
            prior=self.training.prior,
        )

    def ensemble(self, folder: Path, name: str, members: Sequence[Path]) -> TeacherManifest:
        """The members as one teacher, with a temperature of its own."""
        manifest = replace(self._manifest(name, 1.0, {"seed": self.training.seed, "seeds": len(members)}), prior=None)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            whole = Path(work) / name
            save_ensemble(whole, manifest, members)
            teacher = Teacher.load(whole, self.recipe.device)
            rows = np.flatnonzero(self.held)
            chances = teacher.probabilities([self.queries[row] for row in rows], [self.texts[row] for row in rows])
        logits = np.log(np.maximum(chances, 1e-12))
        temperature = fit_temperature(logits, self.targets[rows], self.weights[rows])
        losses = -(self.targets[rows] * np.log(np.maximum(softmax(logits / temperature), 1e-12))).sum(axis=1)
        found = float(np.average(losses, weights=self.weights[rows]))
        training = {**manifest.training, "held_back_loss": found}
        return save_ensemble(folder, replace(manifest, temperature=temperature, training=training), members)


def _groups(network: Any, training: TeacherTraining) -> list[dict[str, Any]]:
    """Backbone and head with their own rates."""
    own = [value for name, value in network.named_parameters() if name.startswith("backbone.") and value.requires_grad]
    head = [value for name, value in network.named_parameters() if not name.startswith("backbone.")]
    return [{"params": own, "lr": training.learning_rate}, {"params": head, "lr": training.head_learning_rate}]


def _write_best(folder: Path, tensors: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    (folder / BEST).parent.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{BEST}.tmp"
    save_file({key: value.contiguous() for key, value in tensors.items()}, str(temporary))
    temporary.replace(folder / BEST)


def _read_best(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(str(folder / BEST)))
