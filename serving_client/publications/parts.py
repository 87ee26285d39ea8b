"""Parts of what serves (a bundle, statistics, a tower) that may fail to load and may be made good meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from feature_repo.errors import PinfeatherError

T = TypeVar("T")

RETRY_SECONDS = 2.0
"""What failed is tried again by the first request that comes so long afterwards; the others get the old error."""


class Part(Generic[T]):
    """Something loaded once, by the first who asks; a failure is remembered for :data:`RETRY_SECONDS`.

    :param what: begins the message of an error that is not ours, such as ``The bundle b3``.
    """

    def __init__(self, what: str, load: Callable[[], T], clock: Callable[[], float] = time.monotonic) -> None:
        self.what = what
        self._load = load
        self._clock = clock
        self._lock = threading.Lock()
        self._loaded: tuple[T] | None = None
        self._error: PinfeatherError | None = None
        self._again = float("-inf")

    def get(self) -> T:
        """The part.

        :raises PinfeatherError: if it cannot be loaded.
        """
        if self._loaded is None:
            with self._lock:
                if self._loaded is None:
                    self._loaded = (self._try(),)
        return self._loaded[0]

    def _try(self) -> T:
        if self._error is not None and self._clock() < self._again:
            raise self._error.with_traceback(None)
        try:
            return self._load()
        except PinfeatherError as error:
            self._error = error
        except Exception as error:  # a file that a library cannot read, out of memory
            self._error = PinfeatherError(f"{self.what} cannot be loaded ({type(error).__name__}: {error}).")
            self._error.__cause__ = error
        self._again = self._clock() + RETRY_SECONDS
        raise self._error
