"""Losses over five ordered levels. Targets are soft: [n, 5] probabilities; a level l is the row with a one in l."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

LOSSES = ("cross-entropy", "ordinal")
"""What :func:`level_loss` knows."""


def level_loss(name: str, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The weighted **sum** of the losses of n pairs; divide by the summed weights for a mean.

    ``cross-entropy`` is ``-sum_l t_l log softmax(logits)_l``. ``ordinal`` is the log-loss of the four questions "level
    k or more?", k = 2..5, each answered by the softmax's own tail sum, so that being off by three levels costs more
    than being off by one (the ranked probability score with logarithms in place of squares; Epstein, "A scoring system
    for probability forecasts of ranked categories", Journal of Applied Meteorology 8, 1969).

    :param logits: [n, 5]. :param targets: [n, 5]. :param weights: [n].
    :raises UsageError: for a name that is not in :data:`LOSSES`.
    """
    import torch

    logits = logits.float()
    if name == "cross-entropy":
        losses = -(targets * torch.log_softmax(logits, 1)).sum(1)
    elif name == "ordinal":
        chances = torch.softmax(logits, 1).flip(1).cumsum(1)[:, :-1].clamp(1e-6, 1 - 1e-6)  # P(>= 5), ... P(>= 2)
        wanted = targets.flip(1).cumsum(1)[:, :-1]
        losses = -(wanted * chances.log() + (1 - wanted) * (1 - chances).log()).sum(1)
    else:
        raise UsageError(f"There is no loss {name!r}: allowed are {', '.join(LOSSES)}.")
    return (losses * weights).sum()


def contrastive_loss(
    query_vectors: Tensor, pin_vectors: Tensor, positives: Tensor, scale: float, excluded: Tensor | None = None
) -> Tensor:
    """In-batch softmax from a query to the pins of the batch: the mean of ``-log softmax(scale * q.p)`` over positives.

    :param query_vectors: [Q, d] unit rows. :param pin_vectors: [P, d] unit rows.
    :param positives: [m, 2] numbers of query and pin that belong together. Other positives of the same query are no
        negatives of it.
    :param excluded: [Q, P] pairs that count neither way (for they were labelled and are not irrelevant).
    :returns: 0 where there are no positives.
    """
    import torch

    if not len(positives):
        return query_vectors.sum() * 0
    products = scale * (query_vectors @ pin_vectors.T)
    known = torch.zeros_like(products, dtype=torch.bool)
    known[positives[:, 0], positives[:, 1]] = True
    if excluded is not None:
        known |= excluded
    own = products[positives[:, 0], positives[:, 1]]
    others = products.masked_fill(known, float("-inf"))[positives[:, 0]]
    return (torch.logsumexp(torch.cat([own[:, None], others], 1), 1) - own).mean()
