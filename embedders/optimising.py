"""What the teacher's and the towers' training share: batches, schedule, two replicas on a processor, checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedders.recipe import EncodingRecipe
from feature_repo.errors import PinfeatherError

POOL = 4096
"""Rows that are sorted by length together: enough for even batches, few enough that batches stay random."""
STATE, TENSORS = "state.json", "state.safetensors"

Batch = TypeVar("Batch")


def shuffled_batches(lengths: Sequence[int] | NDArray[np.integer], budget: int, seed: int, epoch: int) -> list[Any]:
    """Row numbers of one epoch in batches of at most ``budget`` padded tokens (one row at least), in random order.

    The same arguments give the same batches, so an interrupted epoch goes on where it was.

    :param lengths: [n] tokens of each row.
    """
    lengths = np.asarray(lengths)
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    batches: list[Any] = []
    for start in range(0, len(order), POOL):
        pool = order[start : start + POOL]
        pool = pool[np.argsort(-lengths[pool], kind="stable")]
        taken = 0
        while taken < len(pool):
            count = max(1, budget // max(1, int(lengths[pool[taken]])))
            batches.append(pool[taken : taken + count])
            taken += count
    return [batches[number] for number in random.permutation(len(batches))]


def sorted_batches(lengths: Sequence[int] | NDArray[np.integer], budget: int) -> Iterator[NDArray[np.intp]]:
    """Row numbers by falling length, in batches of at most ``budget`` padded tokens (one row at least)."""
    lengths = np.asarray(lengths)
    order = np.argsort(-lengths, kind="stable")
    taken = 0
    while taken < len(order):
        count = max(1, budget // max(1, int(lengths[order[taken]])))
        yield order[taken : taken + count]
        taken += count


def share_of_rate(step: int, steps: int, warmup: float) -> float:
    """The learning rate at ``step`` of ``steps`` as a share of its peak: a linear rise, then a linear fall to 0."""
    rise = max(1.0, warmup * steps)
    return min(1.0, (step + 1) / rise) * max(0.0, 1 - step / max(1, steps))


class Replicas:
    """One model computed by several threads, each on its own part of a step, with one set of weights.

    On a processor two threads with one core each train faster than one step on two cores: OpenMP threads wait for each
    other. On a GPU there is one.
    """

    def __init__(self, model: Any, count: int) -> None:
        import copy

        import torch

        self.count = count
        self._models = [model]
        self._pool: ThreadPoolExecutor | None = None
        for _ in range(count - 1):
            twin = copy.deepcopy(model)
            for own, other in zip(model.parameters(), twin.parameters(), strict=True):
                other.data = own.data  # shared storage: a step on the first is a step on all
            self._models.append(twin)
        if count > 1:
            self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def train(self, on: bool) -> None:
        """Switch every replica to training (or not)."""
        for model in self._models:
            model.train(on)

    def backward(self, parts: Sequence[Batch], loss: Callable[[Any, Batch], Any]) -> float:
        """Add the gradients of ``loss(model, part)``, summed over the parts, to the first model; gives the sum."""
        if self._pool is None or len(parts) == 1:
            return sum(_backward(self._models[0], part, loss) for part in parts)
        work = [
            self._pool.submit(_backward, model, part, loss) for model, part in zip(self._models, parts, strict=False)
        ]
        total = sum(done.result() for done in work)
        for twin in self._models[1:]:
            for own, other in zip(self._models[0].parameters(), twin.parameters(), strict=True):
                if other.grad is not None:
                    own.grad = other.grad if own.grad is None else own.grad.add_(other.grad)
                    other.grad = None
        return total

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


class Optimiser:
    """AdamW over replicas, its rates along a linear schedule, gradients cut at a norm of 1.

    :param groups: parameters with their peak rate ``lr``, as torch takes them.
    """

    def __init__(
        self, network: Any, groups: Sequence[dict[str, Any]], recipe: EncodingRecipe, warmup: float, decay: float = 0.01
    ) -> None:
        import torch

        self._network, self._warmup = network, warmup
        self.adam = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=decay)
        self._peaks = [group["lr"] for group in self.adam.param_groups]
        self.replicas = Replicas(network, min(2, recipe.threads) if recipe.device == "cpu" else 1)

    def step(self, number: int, of: int, parts: Sequence[Batch], loss: Callable[[Any, Batch], Any]) -> float:
        """Step ``number`` (from 0) of ``of``; the summed loss of the parts.

        :raises PinfeatherError: if it is not finite; nothing has changed then.
        """
        import torch

        for group, peak in zip(self.adam.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share_of_rate(number, of, self._warmup)
        self.replicas.train(True)
        value = self.replicas.backward(parts, loss)
        if not np.isfinite(value):
            raise PinfeatherError(f"The loss is not finite at step {number + 1}: lower the learning rate.")
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        return value


def _backward(model: Any, part: Batch, loss: Callable[[Any, Batch], Any]) -> float:
    value = loss(model, part)
    value.backward()
    return float(value.detach())


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """``batches``, ``size`` at a time; the last may be fewer."""
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


class Checkpoint:
    """The state of an unfinished training in a folder: replaced whole, so a kill leaves the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, model: Any, optimiser: Any, notes: Mapping[str, Any]) -> None:
        """Write trained tensors, the optimiser's moments, the random state and ``notes`` (JSON)."""
        import torch
        from safetensors.torch import save_file

        tensors = {f"model.{name}": value for name, value in trained(model).items()}
        numbers = {id(each): name for name, each in model.named_parameters()}
        for parameter, state in optimiser.state.items():
            for key, value in state.items():
                tensors[f"{key}.{numbers[id(parameter)]}"] = torch.as_tensor(value).detach().cpu().contiguous()
        tensors["random"] = torch.get_rng_state()
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{notes['step']}.safetensors"
        save_file({key: value.contiguous().clone() for key, value in tensors.items()}, str(file))
        temporary = self.folder / f".{STATE}.{os.getpid()}"
        temporary.write_text(json.dumps({**notes, "tensors": file.name}), encoding="utf-8")
        temporary.replace(self.folder / STATE)
        for old in self.folder.glob("*.safetensors"):
            if old != file:
                old.unlink()

    def load(self, model: Any, optimiser: Any, expected: str) -> dict[str, Any] | None:
        """Put the state back; None where there is none.

        :param expected: the fingerprint of settings and data in ``notes["of"]``.
        :raises PinfeatherError: if the state is of another training.
        """
        import torch
        from safetensors.torch import load_file

        try:
            notes: dict[str, Any] = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if notes["of"] != expected:
            raise other_training(self.folder)
        tensors = load_file(str(self.folder / notes["tensors"]))
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for key, value in tensors.items():
                kind, _, name = key.partition(".")
                if kind == "model":
                    parameters[name].copy_(value)
                elif name:
                    state = optimiser.state[parameters[name]]
                    state[kind] = value if kind == "step" else value.to(parameters[name].device)
        torch.set_rng_state(tensors["random"])
        return notes

    def remove(self) -> None:
        """The training is done."""
        import shutil

        shutil.rmtree(self.folder, ignore_errors=True)


def other_training(folder: Path) -> PinfeatherError:
    """What is said where ``folder`` has the state of another training."""
    return PinfeatherError(
        f"{folder} holds an interrupted training with other settings, pairs or base. Give the same ones to go on with "
        "it, another name, or remove the folder."
    )


def trained(model: Any) -> dict[str, Any]:
    """Tensors of ``model`` that training changes, by name, on the processor."""
    return {name: value.detach().cpu() for name, value in model.named_parameters() if value.requires_grad}
