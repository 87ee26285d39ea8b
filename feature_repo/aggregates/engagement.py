"""Counts and smoothed rates of a pin in the search log.

A rate is the mean of a Beta posterior: (k + a) / (n + a + b), with a fixed prior worth twenty impressions at 5 %
clicks or engagement and 2 % saves. The prior is fixed, and not fitted to the catalogue, because a fitted one would
change every pin whenever any pin is seen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_repo.aggregates.log import Log
from feature_repo.aggregates.session import Session

PRIOR_IMPRESSIONS = 20
PRIOR_CLICKS = 1.0
PRIOR_SAVES = 0.4
PRIOR_ENGAGED = 1.0
"""Engaged: a click or a save."""


def rate_sql(count: str, prior: float) -> str:
    """SQL of a smoothed rate of ``count`` over ``impressions``."""
    return f"(({count} + {prior}::DOUBLE) / (impressions + {PRIOR_IMPRESSIONS}))::FLOAT"


def rates(count: npt.NDArray[np.int64], prior: float, shown: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The same rates, bit for bit, of arrays of one length: ``count`` of ``shown`` impressions."""
    return ((count + prior) / (shown + PRIOR_IMPRESSIONS)).astype(np.float32)


def write_engagement(session: Session, log: Log) -> None:
    """Writes ``pin_engagement``, which stays as table ``engagement``.

    A pin has a row once it was in the log at any time; the counts are of the window, 0 where that has passed.
    """
    counts = ", ".join(f"coalesce({name}, 0) AS {name}" for name in ("impressions", "clicks", "long_clicks", "saves"))
    session.table(
        "engagement",
        f"""WITH filled AS (
              SELECT pin_id, {counts}, t
              FROM {log.table("times")} JOIN seen USING (p) LEFT JOIN {log.table("pin_sums")} USING (p))
            SELECT pin_id, impressions, clicks, long_clicks, saves, {rate_sql("clicks", PRIOR_CLICKS)} AS click_rate,
              {rate_sql("saves", PRIOR_SAVES)} AS save_rate, t FROM filled""",
    )
    session.write("pin_engagement", "SELECT * FROM engagement")
