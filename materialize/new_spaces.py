"""What a new space is made of: a model, whole or cut, or the towers of a student bundle. Nothing is saved here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from embedders.bundle import check_files, load_manifest
from embedders.bundle_places import adopt_bundle
from embedders.cut import check_cut, cut_fingerprint
from embedders.model_folder import PACKAGED
from embedders.tower_folder import open_model
from feature_repo.errors import PinfeatherError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinTextTemplate
from feature_repo.switchboard import TEXT_SOURCES, checked, template_without
from materialize.releases import current_release
from materialize.spaces import Space, check_space_name, load_space, space_name


def space_of_model(model: str, name: str | None, without: Sequence[str], dimension: int | None) -> Space:
    """The space of one model, whole or cut; parameters and errors as :func:`materialize.space_admin.create_space`."""
    folder = open_model(model)
    model = PACKAGED if model == PACKAGED else str(folder.path)
    whole = folder.fingerprint()
    if dimension is not None:
        check_cut(dimension, folder.dimension)
    fingerprint = whole if dimension is None else cut_fingerprint(whole, dimension)
    template = template_without(DEFAULT_TEMPLATE, checked(without, TEXT_SOURCES))
    return Space(
        name=name or check_space_name(space_name(model, whole, template, dimension)),
        dimension=dimension or folder.dimension,
        model=model,
        model_fingerprint=fingerprint,
        query_towers=(fingerprint,),
        template=template,
        recipe={},
        tower="" if dimension is None else whole,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        words=True,
    )


def untrained_cut(space: Space) -> str | None:
    """What to say of a cut to a dimension that the model was not trained for; None if there is nothing to say."""
    if not space.tower:
        return None
    nested = open_model(space.model).nested
    if not nested or space.dimension in nested:
        return None
    return (
        f"The model was trained to be cut to {', '.join(map(str, nested))}, not to {space.dimension}: expect more loss "
        "than its report says."
    )


def space_of_bundle(paths: RepoPaths, bundle: str, name: str | None = None) -> Space:
    """The space, not yet saved, for the pin tower of a student that has towers of its own.

    :param bundle: as :func:`embedders.bundle_places.adopt_bundle` takes it; one from outside is copied.
    :param name: default is made of tower and template.
    :raises PinfeatherError: if there is no such bundle, it is damaged, or it has no towers.
    """
    own = adopt_bundle(paths, bundle)
    folder = paths.bundles / own
    manifest = load_manifest(folder)
    check_files(folder, manifest)
    if not manifest.towers:
        raise PinfeatherError(
            f"Bundle {own} has no towers of its own; it reads the spaces {', '.join(manifest.spaces)}: leave --bundle "
            "out, or name a student that was trained with towers."
        )
    template = PinTextTemplate.from_json(manifest.template)
    shared = manifest.towers["query"] == manifest.towers["pin"]
    model = str(folder / manifest.towers["pin"])
    return Space(
        name=name or check_space_name(space_name(model, manifest.pin_tower, template)),
        dimension=manifest.dimension,
        model=model,
        model_fingerprint=manifest.pin_tower,
        query_towers=(manifest.query_tower,),
        template=template,
        recipe={},
        query_model="" if shared else str(folder / manifest.towers["query"]),
        bundle=own,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        words=True,
    )


def live_of_bundle(paths: RepoPaths, bundle: str) -> Space:
    """The live space, which must have the towers of ``bundle``; before the first release, the one that it makes.

    :raises PinfeatherError: if the live space has others, or as :func:`space_of_bundle`.
    """
    wanted = space_of_bundle(paths, bundle)
    release = current_release(paths)
    if release is None or release.live_space is None:
        return wanted
    space = load_space(paths, release.live_space)
    if (space.bundle, space.model) != (wanted.bundle, wanted.model):
        raise PinfeatherError(
            f"The live space {space.name} belongs to the model {space.model}, not to the bundle {wanted.bundle}. Leave "
            f"--model out; other towers need a space of their own: `pinfeather spaces create --bundle {wanted.bundle}`."
        )
    return space
