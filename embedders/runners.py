"""Token batches through a torch model: several one-thread workers on a processor, one stream on a GPU."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedders.projection import Projection
from embedders.recipe import MAX_WORKERS, EncodingRecipe
from embedders.tokens import TokenBatch

Block = tuple[NDArray[np.intp], NDArray[np.float32]]
Item = TypeVar("Item")
TokenVectors = Callable[[Any, Any], Any]
"""A model: token ids and mask [b, n] to token vectors [b, n, hidden], torch tensors on its device."""
_END = object()


class Runner(Protocol):
    """Computes batches in any order: yields ``(rows [b], vectors [b, dimension])``."""

    def run(self, batches: Iterator[TokenBatch]) -> Generator[Block, None, None]:
        """The vectors of each batch, lazily."""
        ...


@dataclass(frozen=True, eq=False)
class Head:
    """What makes one vector of a text's token vectors: pooling, and a last linear layer where the model has one."""

    pooling: str
    """``mean`` or ``cls``."""
    weight: Any = None
    """[dimension, hidden] float32, a torch tensor on the model's device; None without a layer."""
    bias: Any = None
    """[dimension] or None."""
    tanh: bool = False

    @classmethod
    def of(cls, pooling: str, projection: Projection | None, device: str) -> Head:
        """The head on ``device``."""
        import torch

        if projection is None:
            return cls(pooling)
        weight = torch.from_numpy(np.array(projection.weight)).to(device)
        bias = None if projection.bias is None else torch.from_numpy(np.array(projection.bias)).to(device)
        return cls(pooling, weight, bias, projection.tanh)


def pooled(model: TokenVectors, ids: Any, mask: Any, head: Head) -> Any:
    """Unit vectors [b, dimension] in float32 from token ids and mask [b, length], both torch tensors on one device.

    Mean pooling is sum(h * mask) / sum(mask), then the last layer, then v / |v|; all in float32 whatever the model
    computes in.
    """
    import torch

    # Not around a yield: the mode belongs to the thread and would leak into the caller.
    with torch.inference_mode():
        hidden = model(ids, mask).float()
        if head.pooling == "cls":
            vectors = hidden[:, 0]
        else:
            weights = mask.unsqueeze(-1).float()
            vectors = (hidden * weights).sum(1) / weights.sum(1)
        if head.weight is not None:
            vectors = torch.nn.functional.linear(vectors, head.weight, head.bias)
            vectors = vectors.tanh() if head.tanh else vectors
        return torch.nn.functional.normalize(vectors, dim=1)


class CpuRunner:
    """A pool of workers, each with its own torch thread count, which torch keeps per thread.

    Workers with one thread each beat one worker with many: OpenMP threads spin while they wait for each other.
    """

    def __init__(self, model: TokenVectors, head: Head, recipe: EncodingRecipe) -> None:
        import torch

        self._model, self._head = model, head
        self._workers = min(recipe.threads, MAX_WORKERS)
        self._pool = ThreadPoolExecutor(
            self._workers,
            thread_name_prefix="encoder",
            initializer=torch.set_num_threads,
            initargs=(recipe.threads // self._workers,),
        )

    def run(self, batches: Iterator[TokenBatch]) -> Generator[Block, None, None]:
        """The vectors of each batch, in the order of the batches."""
        return in_pool(self._pool, self._workers, self._compute, batches)

    def _compute(self, batch: TokenBatch) -> NDArray[np.float32]:
        import torch

        ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
        return pooled(self._model, ids, mask, self._head).numpy()


def in_pool(
    pool: ThreadPoolExecutor,
    workers: int,
    compute: Callable[[TokenBatch], NDArray[np.float32]],
    batches: Iterator[TokenBatch],
) -> Generator[Block, None, None]:
    """What ``compute`` makes of each batch in a ``pool`` of ``workers``, in the order of the batches."""
    pending: deque[tuple[NDArray[np.intp], Future[NDArray[np.float32]]]] = deque()
    try:
        for batch in batches:
            pending.append((batch.rows, pool.submit(compute, batch)))
            if len(pending) > 2 * workers:  # keeps the workers busy while the next window is tokenised
                rows, future = pending.popleft()
                yield rows, future.result()
        while pending:
            rows, future = pending.popleft()
            yield rows, future.result()
    finally:
        for _, future in pending:
            future.cancel()


class CudaRunner:
    """One CUDA device. A background thread tokenises and pins while the device computes; copies do not block."""

    def __init__(self, model: TokenVectors, head: Head) -> None:
        self._model, self._head = model, head

    def run(self, batches: Iterator[TokenBatch]) -> Generator[Block, None, None]:
        """The vectors of each batch, in the order of the batches."""
        import torch

        pending: deque[tuple[NDArray[np.intp], Any, Any]] = deque()
        for rows, ids, mask in prefetch(map(_pinned, batches), depth=4):
            vectors = pooled(
                self._model, ids.to("cuda", non_blocking=True), mask.to("cuda", non_blocking=True), self._head
            )
            host = torch.empty(vectors.shape, dtype=torch.float32, pin_memory=True)
            host.copy_(vectors, non_blocking=True)
            done = torch.cuda.Event()
            done.record()
            pending.append((rows, host, done))
            if len(pending) > 2:
                yield self._finished(pending)
        while pending:
            yield self._finished(pending)

    @staticmethod
    def _finished(pending: deque[tuple[NDArray[np.intp], Any, Any]]) -> Block:
        rows, host, done = pending.popleft()
        done.synchronize()
        return rows, host.numpy()


def _pinned(batch: TokenBatch) -> tuple[NDArray[np.intp], Any, Any]:
    import torch

    return batch.rows, torch.from_numpy(batch.ids).pin_memory(), torch.from_numpy(batch.mask).pin_memory()


def prefetch(items: Iterator[Item], depth: int) -> Generator[Item, None, None]:
    """``items``, produced up to ``depth`` ahead by a background thread; its error is raised here.

    The thread ends when the items do, or when the caller stops listening.
    """
    ahead: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def offer(item: Any) -> bool:
        while not stopped.is_set():
            try:
                ahead.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not offer((item, None)):
                    return
            offer((_END, None))
        except BaseException as error:  # handed to the caller, who raises it
            offer((_END, error))

    thread = threading.Thread(target=produce, name="encoder-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ahead.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
