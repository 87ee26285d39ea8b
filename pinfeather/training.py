"""Train and judge the student on a repository, or judge scorers on any file of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedders.bundle import StudentBundle
from embedders.evaluation.folds import query_groups
from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics, bm25_ranking
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE
from feature_repo.switchboard import checked, lexical_off, template_without, text_read
from materialize.releases import current_release, publish_release
from materialize.spaces import Space, live_space, load_space
from pinfeather.judged import judged_pairs
from pinfeather.pipeline import fit_lexical, read_blobs

if TYPE_CHECKING:
    from embedders.encoder import Encoder
    from embedders.training import PairFeatures

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Judged:
    """A repository's judged pairs with everything that training and evaluation read."""

    paths: RepoPaths
    pairs: PairSet
    space: Space
    statistics: LexicalStatistics
    encoder: Encoder
    features: PairFeatures
    without: tuple[str, ...] = ()
    """Sources that are off."""

    @classmethod
    def read(
        cls,
        paths: RepoPaths,
        encoder: Encoder | None = None,
        device: str = "auto",
        progress: Progress | None = None,
        space_name: str | None = None,
        without: Sequence[str] = (),
        reencode: bool = True,
    ) -> Judged:
        """Judged pairs, the release's statistics (fitted now if it names none) and the features of every pair.

        :param space_name: the space whose vectors the pairs get; default is the live one.
        :param without: sources to turn off; the statistics are then fitted on the catalogue without them.
        :param reencode: where the space's pin text reads a source that is off, encode the text without it; False
            leaves the pairs the vectors of the space, as serving has them.
        :raises UsageError: if there is no such space, or sources cannot be turned off.
        :raises PinfeatherError: without judgments, or before the first `materialize`.
        """
        from embedders.training import pair_features
        from materialize.encoders import Encoders

        off = checked(without)
        space = live_space(paths) if space_name in (None, "live") else load_space(paths, str(space_name))
        pairs, template = judged_pairs(paths, space.name), space.template
        if reencode and text_read(template, off):
            pairs, template = replace(pairs, pin_vectors=None), template_without(template, off)
        statistics = _statistics(paths, off)
        encoder = Encoders(device, given=encoder).of(space)
        features = pair_features(pairs, encoder, template, statistics, progress, off)
        return cls(paths, pairs, space, statistics, encoder, features, off)


def cross_validate_judged(
    judged: Judged, scorers: Sequence[str], folds: int = 5, seed: int = 0
) -> list[dict[str, Any]]:
    """Figures of each scorer on query-disjoint folds, and ``without``; the student is trained anew for each fold."""
    from embedders.training import cross_validate

    rows = cross_validate(
        judged.pairs,
        judged.encoder,
        judged.space.template,
        scorers,
        folds,
        seed,
        statistics=judged.statistics,
        features=judged.features,
    )
    return [{**row, "without": list(judged.without)} for row in rows]


def train_student(judged: Judged, name: str | None = None, seed: int = 0, live: bool | None = None) -> dict[str, Any]:
    """Fit the head on every judged pair and write the bundle; where it goes live, the next release names it.

    A bundle of another space goes live with its space: `pinfeather promote SPACE --bundle NAME`. Sources that
    ``judged`` was read without are off in the bundle for good; ``in_vectors`` names those that the vectors of the space
    are made of all the same.

    :param live: whether it goes live; None: if it is of the live space and no source is off, for a student without a
        source is an experiment. ``release`` is None for one that does not.
    :raises UsageError: if a bundle of that name exists (bundles are never overwritten), or ``live`` is asked of a
        space that is not live.
    """
    from embedders.training import train_student_head

    paths = judged.paths
    of_live = live_space(paths).name == judged.space.name
    if live and not of_live:
        raise UsageError(
            f"--live is for students of the live space: one of {judged.space.name} goes live with it, "
            f"`pinfeather promote {judged.space.name} --bundle NAME`. Leave --live out."
        )
    name = name or _free_name(paths)
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f"A bundle cannot be called {name!r}: give a plain name such as student-2.")
    if (paths.bundles / name).exists():
        raise UsageError(f"There is a bundle {name} in {paths.bundles} already: give another --name.")
    head, training = train_student_head(
        judged.pairs, judged.encoder, judged.space.template, judged.statistics, seed, features=judged.features
    )
    bundle = StudentBundle.make(
        name,
        head,
        judged.statistics,
        judged.space.template,
        query_tower=judged.encoder.fingerprint,
        spaces=(judged.space.name,),
        metrics={},
        training=training,
        without=judged.without,
    )
    folder = bundle.save(paths.bundles / name)
    if live is None:
        live = of_live and not judged.without
    release = publish_release(paths, bundle=name).number if live else None
    return {
        "bundle": name,
        "folder": str(folder),
        "space": judged.space.name,
        "release": release,
        **training,
        "without": list(judged.without),
        "in_vectors": list(text_read(judged.space.template, judged.without)),
    }


def _statistics(paths: RepoPaths, off: Sequence[str]) -> LexicalStatistics:
    """The release's snapshot, fitted now if it names none; with sources off, one of the catalogue without them."""
    if lexical := lexical_off(off):
        return LexicalStatistics.fit(read_blobs(paths)[1], lexical)
    release = current_release(paths)
    digest = (release.lexical if release else None) or fit_lexical(paths)["digest"]
    return LexicalStatistics.load(paths.lexical / f"{digest}.json")


def _free_name(paths: RepoPaths) -> str:
    number = 1
    while (paths.bundles / f"student-{number}").exists():
        number += 1
    return f"student-{number}"


@dataclass(frozen=True, eq=False)
class FileScores:
    """A scorer's answer on a file of pairs."""

    scorer: str
    probabilities: np.ndarray | None
    """[n, 5]; None where the scorer has no levels to calibrate on."""
    scores: np.ndarray | None
    """[n] raw score that ranks; None: the expected level does."""
    without: tuple[str, ...] = ()
    """Sources that this scorer was not shown."""


def score_file(
    pairs: PairSet,
    scorers: Sequence[str],
    repo: str,
    bundle_name: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    without: Sequence[str] = (),
) -> list[FileScores]:
    """Score the pairs of a file, each distinct text encoded once.

    The student is ``bundle_name`` (a bundle of the repository, or a folder), else that of the release. It is not
    trained anew for ``without``: the sources are masked, as are those that it was trained without. BM25 and zero-shot
    know nothing of any student: their levels come from the repository's judgments, where it has any, and BM25's
    statistics are the release's, else fitted on the file, without the sources that are off.

    :raises UsageError: if a bundle is named and no student asked for, or sources cannot be turned off.
    :raises PinfeatherError: if there is no student, or it is not of the live space.
    """
    from embedders.training import fit_statistics, pair_features, score_pairs

    asked = "student" in scorers
    if bundle_name is not None and not asked:
        raise UsageError("--bundle names a student, and none is asked for: add --scorer student, or leave it out.")
    paths = RepoPaths.open(repo) if bundle_name is None or (Path(repo) / "feature_store.yaml").is_file() else None
    off = checked(without)
    bundle = _bundle(paths, bundle_name) if asked else None
    encoder = _encoder(paths, bundle, device)
    answers: dict[str, FileScores] = {}
    features: PairFeatures | None = None
    if bundle is not None:
        masked = checked({*off, *bundle.manifest.without})
        template = template_without(bundle.template, off)
        features = pair_features(pairs, encoder, template, bundle.statistics, progress, masked)
        scored = score_pairs(pairs, bundle, encoder, features=features)
        answers["student"] = FileScores("student", scored, None, masked)
    if baselines := [scorer for scorer in scorers if scorer != "student"]:
        plain = live_space(paths).template if paths else bundle.template if bundle else DEFAULT_TEMPLATE
        release = current_release(paths) if paths else None
        statistics = _statistics(paths, off) if paths and release and release.lexical else fit_statistics(pairs, off)
        if features is not None and bundle is not None and plain == bundle.template:  # their vectors serve here, too
            features = replace(features, bm25=_bm25(pairs, statistics, off))
        else:
            features = pair_features(pairs, encoder, template_without(plain, off), statistics, progress, off)
        judged = _judgments(paths, encoder, off) if paths else None
        answers |= {scorer: _baseline(scorer, features, judged, off) for scorer in baselines}
    return [answers[scorer] for scorer in scorers]


def _bundle(paths: RepoPaths | None, name: str | None) -> StudentBundle:
    if name is not None:
        own = paths.bundles / name if paths else None
        return StudentBundle.load(own if own and own.is_dir() and not Path(name).is_dir() else name)
    release = current_release(paths) if paths else None
    if release and release.bundle and paths:
        return StudentBundle.load(paths.bundles / release.bundle)
    raise PinfeatherError(
        "The release names no student: run `pinfeather train student` first, name a bundle with --bundle NAME, or "
        "score with --scorer zero-shot or --scorer bm25."
    )


def _encoder(paths: RepoPaths | None, bundle: StudentBundle | None, device: str) -> Encoder:
    """The tower of the live space, else the packaged one; refused if the bundle was trained with another."""
    from embedders.encoder import load_encoder
    from materialize.encoders import Encoders

    if paths is None:
        return load_encoder(
            "packaged", device=device, expected_fingerprint=bundle.manifest.query_tower if bundle else None
        )
    encoder: Encoder = Encoders(device).of(live_space(paths))
    if bundle and bundle.manifest.query_tower != encoder.fingerprint:
        raise PinfeatherError(
            f"Bundle {bundle.manifest.name} was trained with the query tower {bundle.manifest.query_tower}, the "
            f"live space has {encoder.fingerprint}: name a bundle of the live space."
        )
    return encoder


def _bm25(pairs: PairSet, statistics: LexicalStatistics, off: Sequence[str]) -> np.ndarray:
    """[n] BM25 of the pairs, query by query."""
    pairs = pairs.with_blobs()
    names, groups = query_groups(pairs.queries)
    scores = np.empty(len(pairs), dtype=np.float32)
    for number, query in enumerate(names):
        rows = np.flatnonzero(groups == number)
        blobs = [(pairs.blobs or ())[pin] for pin in pairs.pin_of[rows]]
        scores[rows] = bm25_ranking(query, blobs, statistics, lexical_off(off))
    return scores


def _judgments(paths: RepoPaths, encoder: Encoder, off: Sequence[str]) -> Judged | None:
    try:
        return Judged.read(paths, encoder, without=off)
    except PinfeatherError:
        return None  # no judgments: the baselines rank, but have no levels


def _baseline(scorer: str, features: PairFeatures, judged: Judged | None, off: tuple[str, ...]) -> FileScores:
    from embedders.student import LevelCalibrator

    def raw(each: PairFeatures) -> np.ndarray:
        return each.bm25 if scorer == "bm25" else each.cosine

    scores = raw(features)
    if judged is None:
        return FileScores(scorer, None, scores, off)
    calibrator = LevelCalibrator.fit(raw(judged.features), judged.pairs.require_levels())
    return FileScores(scorer, calibrator.probabilities(scores), scores, off)


def write_scores(out: Path, pairs: PairSet, answer: FileScores) -> None:
    """One row per pair in the order of the file: query, title, five probabilities, expected level.

    :raises UsageError: if ``out`` ends neither in .parquet nor in .csv.
    :raises PinfeatherError: if the scorer has no levels, or the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    from embedders.training import score_columns

    if answer.probabilities is None:
        raise PinfeatherError(
            f"Scorer {answer.scorer} gives no levels without judgments to calibrate on: name a repository that has "
            "some with --repo, or use --scorer student."
        )
    table = pa.table(score_columns(pairs, answer.probabilities))
    try:
        whole = out.with_name(f".{out.name}.tmp")
        if out.suffix == ".csv":
            pyarrow.csv.write_csv(table, whole)
        else:
            pq.write_table(table, whole)
        whole.replace(out)
    except OSError as error:
        raise PinfeatherError(f"Cannot write {out} ({error}): name a file in a folder that can be written.") from error


def check_scores_path(out: str, pairs: str) -> Path:
    """``out`` as a path, before anything is computed.

    :raises UsageError: if it is the file of pairs, lies in no folder, or ends neither in .parquet nor in .csv.
    """
    path = Path(out)
    if path.resolve() == Path(pairs).resolve():
        raise UsageError(f"--scores {out} is the file of pairs itself, which would be overwritten: name another file.")
    if not path.resolve().parent.is_dir():
        raise UsageError(f"--scores {out}: there is no folder {path.resolve().parent}; make it first.")
    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--scores {out}: the name must end in .parquet or .csv.")
    return path
