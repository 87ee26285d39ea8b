"""Spaces: one collection bound to one model fingerprint and one template.

What vectors are made of never changes in a manifest; status, coverage, recipe and who pins the space do, one writer at
a time (:func:`change_space`).
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE, PinTextTemplate
from materialize.files import write_json
from materialize.releases import LIVE_EMBEDDING, current_release

if TYPE_CHECKING:
    from materialize.stores.port import VectorStore

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_TAKEN = ("live", LIVE_EMBEDDING)


class Status(StrEnum):
    """What a run does with a space."""

    BUILDING = "building"  # pins that it has are kept fresh; `spaces backfill` adds the others
    READY = "ready"  # kept fresh in whole
    FROZEN = "frozen"  # deletions only
    DROPPING = "dropping"  # a drop was begun: nothing but `spaces drop` touches it


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
    query_model: str = ""
    """Folder of the query tower where it is another model than the pin tower; else empty."""
    bundle: str = ""
    """Student bundle of the repository that holds the towers; empty where they lie elsewhere."""
    tower: str = ""
    """Fingerprint of the whole model where the space holds a cut of its vectors; else empty."""
    status: Status = Status.READY
    thaws_to: str = ""
    """Status that a frozen space had before; empty for the others, and where an older version froze it."""
    coverage: float | None = None
    """Share of the pins with text that have a vector, as of the last run that kept the space; None before one."""
    pinned_by: Mapping[str, str] = field(default_factory=dict)
    """Who must not lose the space, to the time (ISO 8601) since when."""
    created_at: str = ""
    words: bool = False
    """Whether its points hold the words of the pins beside the vectors, see :mod:`materialize.words`."""

    @property
    def whole_fingerprint(self) -> str:
        """Fingerprint of the model whose vectors, whole or cut, the space holds."""
        return self.tower or self.model_fingerprint

    @property
    def query_fingerprint(self) -> str:
        """Fingerprint of the tower that makes query vectors, unless a client brings another one that is accepted."""
        return self.query_towers[0] if self.query_model else self.model_fingerprint

    @property
    def whole_query_fingerprint(self) -> str:
        """Fingerprint of the model whose vectors, whole or cut, the queries get."""
        return self.query_towers[0] if self.query_model else self.whole_fingerprint

    def check_pin_tower(self, fingerprint: str) -> None:
        """Refuse a model that is not the one whose vectors the space holds.

        :raises PinfeatherError: if ``fingerprint`` is not :attr:`model_fingerprint`.
        """
        if fingerprint != self.model_fingerprint:
            raise PinfeatherError(
                f"Space {self.name} holds vectors of the tower {self.model_fingerprint}, not of {fingerprint}: use the "
                "model that the space names, or make a space for this model (`pinfeather spaces create`)."
            )

    def check_query_tower(self, fingerprint: str) -> None:
        """Refuse a query tower that this space was not made for.

        :raises PinfeatherError: if ``fingerprint`` is not among :attr:`query_towers`.
        """
        if fingerprint not in self.query_towers:
            raise PinfeatherError(
                f"Space {self.name} takes query vectors of the towers {list(self.query_towers)}, not of {fingerprint}: "
                "use the model that the space names, or a release whose space belongs to this model."
            )


def space_name(model: str, model_fingerprint: str, template: PinTextTemplate, cut: int | None = None) -> str:
    """Physical name: model, eight digits of its fingerprint, template version and four digits of its fingerprint.

    :param cut: dimension, where the space holds the first components only.
    """
    stem = "minilm-l6-v2" if model == "packaged" else "model"
    name = f"{stem}-{model_fingerprint[:8]}-t{template.version}-{template.fingerprint[:4]}"
    return f"{name}-d{cut}" if cut else name


def check_space_name(name: str) -> str:
    """``name``, if a space may be called so.

    :raises UsageError: if not.
    """
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise UsageError(
            f"A space cannot be called {name!r}: give up to 80 lower-case letters, digits, dots, dashes and "
            f"underscores, a letter or digit first, and not one of {', '.join(_TAKEN)}."
        )
    return name


def space_names(paths: RepoPaths) -> list[str]:
    """Names of every space that has a manifest, in order."""
    return sorted(file.stem for file in paths.spaces.glob("*.json") if not file.name.startswith("."))


def load_space(paths: RepoPaths, name: str) -> Space:
    """The space called ``name``.

    :raises UsageError: if there is none.
    :raises PinfeatherError: if its manifest cannot be read.
    """
    path = paths.spaces / f"{name}.json"
    if not path.is_file():
        raise UsageError(f"There is no space {name!r}; there are: {', '.join(space_names(paths)) or 'none yet'}.")
    try:
        data = dict(json.loads(path.read_text()))
        template = PinTextTemplate.from_json(data.pop("template"))
        status = Status(data.pop("status", Status.READY))
        towers = tuple(data.pop("query_towers"))
        space = Space(**data, query_towers=towers, status=status, template=template)
        return _placed(space, paths.bundles / space.bundle) if space.bundle else space
    except (ValueError, TypeError, KeyError, PinfeatherError) as error:
        raise PinfeatherError(
            f"The manifest of space {name} at {path} cannot be read ({error!r}): put the file of a backup in "
            "its place. Without one: if the space is not live, move the file away and make another space by "
            "`pinfeather spaces create`."
        ) from error


def load_spaces(paths: RepoPaths) -> list[Space]:
    """Every space, in the order of their names."""
    return [load_space(paths, name) for name in space_names(paths)]


def save_space(paths: RepoPaths, space: Space) -> None:
    """Write the manifest as a whole; to change one that others may change too, use :func:`change_space`."""
    data = {**asdict(space), "template": space.template.to_json()}
    for key in ("query_model", "bundle", "words"):
        if not data[key]:
            del data[key]  # so that a Pinfeather from before it was there reads the manifest
    if space.bundle:  # its towers are named within it, so that the repository can be moved
        folder = paths.bundles / space.bundle
        data |= {key: str(Path(data[key]).relative_to(folder)) for key in ("model", "query_model") if key in data}
    write_json(paths.spaces / f"{space.name}.json", data)


def _placed(space: Space, bundle: Path) -> Space:
    """``space`` with the folders of its towers in full."""
    query = str(bundle / space.query_model) if space.query_model else ""
    return replace(space, model=str(bundle / space.model), query_model=query)


def change_space(paths: RepoPaths, name: str, change: Callable[[Space], Space]) -> Space:
    """Read the manifest, write what ``change`` makes of it and give that back; other processes wait meanwhile.

    :raises UsageError: if there is no such space.
    """
    with _manifests(paths):
        space = load_space(paths, name)
        changed = change(space)
        if changed != space:
            save_space(paths, changed)
        return changed


@contextmanager
def _manifests(paths: RepoPaths) -> Iterator[None]:
    paths.spaces.mkdir(parents=True, exist_ok=True)
    with (paths.spaces / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pin_space(paths: RepoPaths, name: str, who: str) -> Space:
    """Note that ``who`` reads the space: it stays, and stays fresh, until :func:`unpin_space`.

    :raises UsageError: if there is no such space, or ``who`` is empty.
    :raises PinfeatherError: if the space is frozen, or is being dropped.
    """
    if not who.strip():
        raise UsageError("Say who pins the space: --for NAME.")

    def pinned(space: Space) -> Space:
        if space.status in (Status.FROZEN, Status.DROPPING):
            raise PinfeatherError(
                f"Space {name} is {space.status}, and a pinned space stays fresh: run `pinfeather spaces unfreeze "
                f"{name}` first, or pin another one."
            )
        since = space.pinned_by.get(who) or datetime.now(UTC).isoformat(timespec="seconds")
        return replace(space, pinned_by={**space.pinned_by, who: since})

    return change_space(paths, name, pinned)


def unpin_space(paths: RepoPaths, name: str, who: str) -> Space:
    """Take the pin of ``who`` back.

    :raises UsageError: if there is no such space, or ``who`` does not pin it.
    """

    def unpinned(space: Space) -> Space:
        if who not in space.pinned_by:
            pins = ", ".join(sorted(space.pinned_by)) or "nobody"
            raise UsageError(f"{who!r} does not pin space {name}; it is pinned by {pins}.")
        return replace(space, pinned_by={key: since for key, since in space.pinned_by.items() if key != who})

    return change_space(paths, name, unpinned)


def freeze_space(paths: RepoPaths, name: str) -> Space:
    """From now on runs take deleted pins out of the space and do nothing else with it.

    :raises UsageError: if there is no such space.
    :raises PinfeatherError: if it is live, pinned, or being dropped.
    """

    def frozen(space: Space) -> Space:
        release = current_release(paths)
        if release and release.live_space == name:
            raise PinfeatherError(f"Space {name} is live, and a live space stays fresh: promote another one first.")
        if space.pinned_by:
            raise PinfeatherError(
                f"Space {name} is pinned by {', '.join(sorted(space.pinned_by))}, and a pinned space stays fresh: let "
                f"them go to another space, then `pinfeather spaces unpin {name} --for WHO`."
            )
        _not_dropping(space)
        before = space.thaws_to if space.status is Status.FROZEN else str(space.status)
        return replace(space, status=Status.FROZEN, thaws_to=before)

    return change_space(paths, name, frozen)


def unfreeze_space(paths: RepoPaths, name: str) -> Space:
    """Keep the space fresh again; the next run brings it up to date, or a backfill where it never was complete.

    :raises UsageError: if there is no such space.
    :raises PinfeatherError: if it is not frozen.
    """

    def thawed(space: Space) -> Space:
        if space.status is not Status.FROZEN:
            raise PinfeatherError(f"Space {name} is not frozen but {space.status}: there is nothing to undo.")
        ready = space.thaws_to == Status.READY if space.thaws_to else space.coverage == 1
        return replace(space, status=Status.READY if ready else Status.BUILDING, thaws_to="")

    return change_space(paths, name, thawed)


def empty_dropping(paths: RepoPaths, store: VectorStore) -> None:
    """Take points and vector log of every space whose drop was begun and killed.

    No run looks at its pins any more, so one that is deleted from now on would stay there until the drop is ended.
    """
    from materialize import vector_log  # with pyarrow, which a client that only reads does without

    for space in load_spaces(paths):
        if space.status is Status.DROPPING:
            store.drop(space.name)
            vector_log.drop(paths, space.name)


def _not_dropping(space: Space) -> None:
    if space.status is Status.DROPPING:
        raise PinfeatherError(
            f"Space {space.name} is being dropped: run `pinfeather spaces drop {space.name}` again to end that."
        )


BUNDLED = "bundle:"
"""Before the name of a student where a model is asked for: its towers are meant."""


def live_space(paths: RepoPaths, model: str | None = None) -> Space:
    """The space that the release names; before the first release, the one that a first run would make.

    :param model: ``packaged``, the folder of a model or tower, or ``bundle:NAME``, the towers and the template of a
        student, which is copied into the repository if it lies outside; must be the live space's own once there is one.
    :raises PinfeatherError: if ``model`` is not the one of the live space.
    """
    if model is not None and model.startswith(BUNDLED):
        from materialize.new_spaces import live_of_bundle

        return live_of_bundle(paths, model.removeprefix(BUNDLED))
    if model not in (None, "packaged"):
        model = str(Path(str(model)).expanduser().absolute())
    release = current_release(paths)
    if release and release.live_space:
        space = load_space(paths, release.live_space)
        if model and model != space.model:
            raise PinfeatherError(
                f"The live space {space.name} belongs to the model {space.model}, not to {model}. Leave --model out; "
                "another model needs a space of its own: `pinfeather spaces create --model DIR`."
            )
        return space
    from embedders.tower_folder import open_model

    model = model or "packaged"
    folder = open_model(model)
    fingerprint = folder.fingerprint()
    return Space(
        name=space_name(model, fingerprint, DEFAULT_TEMPLATE),
        dimension=folder.dimension,
        model=model,
        model_fingerprint=fingerprint,
        query_towers=(fingerprint,),
        template=DEFAULT_TEMPLATE,
        recipe={},
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        words=True,
    )
