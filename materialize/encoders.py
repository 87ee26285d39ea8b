"""The towers of spaces: what encodes their pins, and what encodes queries; one model is loaded once, whole or cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from embedders.cut import CutEncoder, cut_fingerprint
from embedders.encoder import Encoder, load_encoder
from materialize.spaces import Space


def fitted(space: Space, encoder: Encoder) -> Encoder:
    """``encoder`` for the pins of ``space``, cut to the space's dimension where the space is a cut of its model.

    :raises PinfeatherError: if the space does not hold its vectors.
    """
    cut = _cut(space, encoder)
    space.check_pin_tower(cut.fingerprint)
    return cut


def fitted_query(space: Space, encoder: Encoder) -> Encoder:
    """``encoder`` for queries to ``space``, cut likewise.

    :raises PinfeatherError: if the space does not take its vectors.
    """
    cut = _cut(space, encoder)
    space.check_query_tower(cut.fingerprint)
    return cut


def _cut(space: Space, encoder: Encoder) -> Encoder:
    cut = space.model_fingerprint != encoder.fingerprint and space.dimension < encoder.dimension
    if cut and space.model_fingerprint == cut_fingerprint(encoder.fingerprint, space.dimension):
        return CutEncoder(encoder, space.dimension)
    return encoder


@dataclass
class Encoders:
    """Encoders by the fingerprint of their model, loaded when the first text needs one.

    :param given: used for every space instead of the space's own model.
    :param few: encode as serving does, see :func:`embedders.encoder.load_encoder`: what is encoded now is compared with
        what a client will encode later.
    :param tell: called with words about device and precision for each model that is loaded or given.
    """

    device: str = "auto"
    precision: str = "auto"
    given: Encoder | None = None
    tell: Callable[[str], None] | None = None
    few: bool = False
    _loaded: dict[str, Encoder] = field(default_factory=dict)

    def of(self, space: Space) -> Encoder:
        """The encoder of the pins of ``space``.

        :raises PinfeatherError: if its model is not there or has changed, or the given one is not the space's.
        """
        return fitted(space, self._whole(space.model, space.whole_fingerprint, lambda one: fitted(space, one)))

    def of_queries(self, space: Space) -> Encoder:
        """The encoder of queries to ``space``; that of its pins, unless the space has another.

        :raises PinfeatherError: as :meth:`of`.
        """
        model, whole = space.query_model or space.model, space.whole_query_fingerprint
        return fitted_query(space, self._whole(model, whole, lambda one: fitted_query(space, one)))

    def _whole(self, model: str, fingerprint: str, check: Callable[[Encoder], Encoder]) -> Encoder:
        if fingerprint not in self._loaded:
            encoder = self.given or load_encoder(
                model, device=self.device, precision=self.precision, expected_fingerprint=fingerprint, few=self.few
            )
            check(encoder)  # before anything is told of it
            self._loaded[fingerprint] = encoder
            if self.tell:
                recipe = encoder.recipe
                self.tell(f"Encoding on {recipe.device} in {recipe.precision}: {recipe.reason}.")
        return self._loaded[fingerprint]
