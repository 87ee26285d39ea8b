"""Spaces: one collection bound to one model fingerprint and one template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedders.model_folder import ModelFolder
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinTextTemplate
from materialize.files import write_json
from materialize.releases import current_release


@dataclass(frozen=True)
class Space:
    """The manifest of a space. Vectors of different spaces never meet in one product."""

    name: str
    dimension: int
    model: str
    """``packaged`` or the folder of the pin tower."""
    model_fingerprint: str
    query_towers: tuple[str, ...]
    """Fingerprints of the query towers it accepts; a client refuses any other."""
    template: PinTextTemplate
    recipe: Mapping[str, Any]
    """Encoding recipe of the first run; device and precision are no part of the fingerprint."""

    def check_query_tower(self, fingerprint: str) -> None:
        """Refuse a query tower that this space was not made for.

        :raises PinfeatherError: if ``fingerprint`` is not among :attr:`query_towers`.
        """
        if fingerprint not in self.query_towers:
            raise PinfeatherError(
                f"Space {self.name} takes query vectors of the towers {list(self.query_towers)}, not of {fingerprint}: "
                "use the model that the space names, or a release whose space belongs to this model."
            )


def space_name(model: str, model_fingerprint: str, template: PinTextTemplate) -> str:
    """Physical name: model, eight digits of its fingerprint, template version and four digits of its fingerprint."""
    stem = "minilm-l6-v2" if model == "packaged" else "model"
    return f"{stem}-{model_fingerprint[:8]}-t{template.version}-{template.fingerprint[:4]}"


def load_space(paths: RepoPaths, name: str) -> Space:
    """The space called ``name``.

    :raises PinfeatherError: if there is none or its manifest cannot be read.
    """
    path = paths.spaces / f"{name}.json"
    if not path.is_file():
        known = sorted(file.stem for file in paths.spaces.glob("*.json"))
        raise PinfeatherError(f"There is no space {name!r}; there are: {known or 'none yet'}.")
    try:
        data = json.loads(path.read_text())
        template = PinTextTemplate.from_json(data.pop("template"))
        return Space(**{**data, "query_towers": tuple(data["query_towers"])}, template=template)
    except (ValueError, TypeError, KeyError) as error:
        raise PinfeatherError(f"The manifest of space {name} at {path} cannot be read ({error!r}).") from error


def save_space(paths: RepoPaths, space: Space) -> None:
    """Write the manifest; a space is never changed afterwards."""
    write_json(paths.spaces / f"{space.name}.json", {**asdict(space), "template": space.template.to_json()})


def live_space(paths: RepoPaths, model: str | None = None) -> Space:
    """The space that the release names; before the first release, the one that a first run would make.

    :param model: ``packaged`` or the folder of a model; must be the live space's own once there is one.
    :raises PinfeatherError: if ``model`` is not the one of the live space.
    """
    if model not in (None, "packaged"):
        model = str(Path(str(model)).expanduser().absolute())
    release = current_release(paths)
    if release and release.live_space:
        space = load_space(paths, release.live_space)
        if model and model != space.model:
            raise PinfeatherError(
                f"The live space {space.name} belongs to the model {space.model}, not to {model}. Leave --model out; "
                "another model needs a space, and so a repository, of its own."
            )
        return space
    model = model or "packaged"
    folder = ModelFolder.open(model)
    fingerprint = folder.fingerprint()
    return Space(
        name=space_name(model, fingerprint, DEFAULT_TEMPLATE),
        dimension=folder.dimension,
        model=model,
        model_fingerprint=fingerprint,
        query_towers=(fingerprint,),
        template=DEFAULT_TEMPLATE,
        recipe={},
    )
