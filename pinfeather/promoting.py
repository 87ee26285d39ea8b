"""The parts of a promotion that need a query tower: nDCG on the judgments, and the vectors that clients begin with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embedders.encoder import as_stored
from embedders.evaluation.folds import query_groups
from embedders.evaluation.metrics import ndcg_by_query
from feature_repo.paths import RepoPaths
from materialize.encoders import Encoders
from materialize.promotion import Judge, Warm
from materialize.spaces import Space
from materialize.warm import warm_space
from pinfeather.judged import NoJudgmentsError, judged_pairs

NO_VECTOR = -1.0
"""Cosine of a judged pin without a vector: it ranks last."""


def judge_by_cosine(paths: RepoPaths, encoders: Encoders) -> Judge:
    """What gives the nDCG@20 of a space on the judgments, each query's pins ranked by cosine; None without judgments.

    The pins' vectors come from the space's vector log, the queries' from its model.
    """

    def judge(space: Space) -> float | None:
        try:
            pairs = judged_pairs(paths, space.name)
        except NoJudgmentsError:
            return None
        names, groups = query_groups(pairs.queries)
        queries = as_stored(encoders.of_queries(space).encode(names))
        pins = np.asarray(pairs.pin_vectors, np.float32)[pairs.pin_of]
        cosine = np.einsum("nd,nd->n", queries[groups], pins)
        scores = np.where(np.isnan(cosine), NO_VECTOR, cosine)
        return float(ndcg_by_query(pairs.require_levels(), scores, groups).mean())

    return judge


def warm_head(paths: RepoPaths, count: int, encoders: Encoders, progress: Callable[[int, int | None], None]) -> Warm:
    """What makes the vectors of the ``count`` most searched queries for a space, see :mod:`materialize.warm`."""

    def warm(space: Space) -> int:
        return warm_space(paths, space, count, lambda: encoders.of_queries(space), progress)

    return warm
