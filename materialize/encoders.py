"""The encoder of each space of a run: one model is loaded once, whole or cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from embedders.cut import CutEncoder, cut_fingerprint
from embedders.encoder import Encoder, load_encoder
from materialize.spaces import Space


def fitted(space: Space, encoder: Encoder) -> Encoder:
    """``encoder``, cut to the space's dimension where the space is a cut of its model.

    :raises PinfeatherError: if the space does not take its vectors.
    """
    cut = space.model_fingerprint != encoder.fingerprint and space.dimension < encoder.dimension
    if cut and space.model_fingerprint == cut_fingerprint(encoder.fingerprint, space.dimension):
        return CutEncoder(encoder, space.dimension)
    space.check_query_tower(encoder.fingerprint)
    return encoder


@dataclass
class Encoders:
    """Encoders by the fingerprint of their model, loaded when the first text needs one.

    :param given: used for every space instead of the space's own model.
    :param tell: called with words about device and precision for each model that is loaded or given.
    """

    device: str = "auto"
    precision: str = "auto"
    given: Encoder | None = None
    tell: Callable[[str], None] | None = None
    _loaded: dict[str, Encoder] = field(default_factory=dict)

    def of(self, space: Space) -> Encoder:
        """The encoder of ``space``.

        :raises PinfeatherError: if its model is not there or has changed, or the given one is not the space's.
        """
        whole = space.whole_fingerprint
        if whole not in self._loaded:
            encoder = self.given or load_encoder(
                space.model, device=self.device, precision=self.precision, expected_fingerprint=whole
            )
            fitted(space, encoder)
            self._loaded[whole] = encoder
            if self.tell:
                recipe = encoder.recipe
                self.tell(f"Encoding on {recipe.device} in {recipe.precision}: {recipe.reason}.")
        return fitted(space, self._loaded[whole])
