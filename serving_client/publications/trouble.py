"""What is known of a newest publication that cannot be loaded while the last one goes on serving."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from feature_repo.errors import PinfeatherError
from materialize.stores.errors import BadInputError, StoreError, StoreSlowError
from serving_client.degraded import UnavailableError, reason

logger = logging.getLogger(__name__)


class Trouble:
    """Since when there is trouble, and the last error; logged when it comes, changes and goes.

    :param clock: seconds, of a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.error: PinfeatherError | None = None
        """None where all is well."""
        self._clock = clock
        self._since = 0.0

    def has(self, error: Exception, serving: int | None) -> PinfeatherError:
        """Remember ``error``; returns it as clients see it.

        :param serving: number of the publication that goes on, None if there is none.
        """
        seen: PinfeatherError
        if isinstance(error, PinfeatherError):
            seen = error
        elif isinstance(error, BadInputError):  # of the configuration, and not of a request
            seen = PinfeatherError(str(error))
        elif isinstance(error, StoreError):
            seen = UnavailableError(str(error), "store_slow" if isinstance(error, StoreSlowError) else "store_gone")
        else:
            seen = UnavailableError(f"The newest publication cannot be loaded ({type(error).__name__}: {error}).")
        before = self.error
        if before is None:
            self._since = self._clock()
        if serving is not None and str(before) != str(seen):
            logger.warning("publication %d goes on serving: %s", serving, seen)
        self.error = seen
        return seen

    def over(self) -> None:
        """The newest publication could be loaded, or serves."""
        if self.error is not None:
            logger.warning("the newest publication can be loaded again")
            self.error = None

    def stale(self, number: int, made: datetime | None) -> str:
        """The reason that answers of publication ``number``, made at ``made``, give while there is trouble."""
        age = f", made {_words(datetime.now(UTC) - made)} ago," if made else ""
        since = _words(timedelta(seconds=self._clock() - self._since))
        return reason("stale", f"publication {number}{age} answers: for {since} no newer one can be loaded")


def _words(age: timedelta) -> str:
    seconds = max(age.total_seconds(), 0.0)
    for name, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
