"""Train and judge the student on a repository, or judge scorers on any file of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedders.bundle import StudentBundle
from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE
from materialize.releases import current_release, publish_release
from materialize.spaces import Space, live_space, load_space
from pinfeather.judged import judged_pairs
from pinfeather.pipeline import fit_lexical

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

    @classmethod
    def read(
        cls,
        paths: RepoPaths,
        encoder: Encoder | None = None,
        device: str = "auto",
        progress: Progress | None = None,
        space_name: str | None = None,
    ) -> Judged:
        """Judged pairs, the release's statistics (fitted now if it names none) and the features of every pair.

        :param space_name: the space whose vectors the pairs get; default is the live one.
        :raises UsageError: if there is no such space.
        :raises PinfeatherError: without judgments, or before the first `materialize`.
        """
        from embedders.training import pair_features
        from materialize.encoders import Encoders

        space = live_space(paths) if space_name in (None, "live") else load_space(paths, str(space_name))
        pairs = judged_pairs(paths, space.name)
        release = current_release(paths)
        digest = (release.lexical if release else None) or fit_lexical(paths)["digest"]
        statistics = LexicalStatistics.load(paths.lexical / f"{digest}.json")
        encoder = Encoders(device, given=encoder).of(space)
        features = pair_features(pairs, encoder, space.template, statistics, progress)
        return cls(paths, pairs, space, statistics, encoder, features)


def cross_validate_judged(
    judged: Judged, scorers: Sequence[str], folds: int = 5, seed: int = 0
) -> list[dict[str, Any]]:
    """Figures of each scorer on query-disjoint folds; the student is trained anew for each fold."""
    from embedders.training import cross_validate

    return cross_validate(
        judged.pairs,
        judged.encoder,
        judged.space.template,
        scorers,
        folds,
        seed,
        statistics=judged.statistics,
        features=judged.features,
    )


def train_student(judged: Judged, name: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Fit the head on every judged pair and write the bundle; if it is of the live space, the next release names it.

    A bundle of another space goes live with its space: `pinfeather promote SPACE --bundle NAME`. ``release`` is None
    then.

    :raises UsageError: if a bundle of that name exists: bundles are never overwritten.
    """
    from embedders.training import train_student_head

    paths = judged.paths
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
    )
    folder = bundle.save(paths.bundles / name)
    live = live_space(paths).name == judged.space.name
    release = publish_release(paths, bundle=name).number if live else None
    return {"bundle": name, "folder": str(folder), "space": judged.space.name, "release": release, **training}


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


def score_file(
    pairs: PairSet,
    scorers: Sequence[str],
    repo: str,
    bundle_folder: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> list[FileScores]:
    """Score the pairs of a file, each distinct text encoded once.

    The student is the bundle of ``bundle_folder``, else of the repository's release. BM25 and zero-shot get their
    levels from the repository's judgments, where it has any; BM25's statistics are the bundle's, else the release's,
    else fitted on the file.
    """
    from embedders.encoder import load_encoder
    from embedders.training import fit_statistics, pair_features, score_pairs
    from materialize.encoders import Encoders

    paths = RepoPaths.open(repo) if bundle_folder is None or (Path(repo) / "feature_store.yaml").is_file() else None
    bundle = _bundle(paths, bundle_folder, needed="student" in scorers)
    release = current_release(paths) if paths else None
    if bundle is not None:
        statistics, template = bundle.statistics, bundle.template
    else:
        template = live_space(paths).template if paths else DEFAULT_TEMPLATE
        snapshot = paths.lexical / f"{release.lexical}.json" if paths and release and release.lexical else None
        statistics = LexicalStatistics.load(snapshot) if snapshot else fit_statistics(pairs)
    encoder: Encoder
    if paths:
        encoder = Encoders(device).of(live_space(paths))
        if bundle and bundle.manifest.query_tower != encoder.fingerprint:
            raise PinfeatherError(
                f"Bundle {bundle.manifest.name} was trained with the query tower {bundle.manifest.query_tower}, the "
                f"live space has {encoder.fingerprint}: name a bundle of the live space."
            )
    else:
        expected = bundle.manifest.query_tower if bundle else None
        encoder = load_encoder("packaged", device=device, expected_fingerprint=expected)
    features = pair_features(pairs, encoder, template, statistics, progress)
    judged = None
    if paths and set(scorers) - {"student"}:
        judged = _judgments(paths, encoder)
    answers = []
    for scorer in scorers:
        if scorer == "student" and bundle is not None:
            answers.append(FileScores(scorer, score_pairs(pairs, bundle, encoder, features=features), None))
        else:
            answers.append(_baseline(scorer, features, judged))
    return answers


def _bundle(paths: RepoPaths | None, folder: str | None, *, needed: bool) -> StudentBundle | None:
    if folder is not None:
        return StudentBundle.load(folder)
    release = current_release(paths) if paths else None
    if release and release.bundle and paths:
        return StudentBundle.load(paths.bundles / release.bundle)
    if needed:
        raise PinfeatherError(
            "The release names no student: run `pinfeather train student` first, name a bundle with --bundle DIR, or "
            "score with --scorer zero-shot or --scorer bm25."
        )
    return None


def _judgments(paths: RepoPaths, encoder: Encoder) -> Judged | None:
    try:
        return Judged.read(paths, encoder)
    except PinfeatherError:
        return None  # no judgments: the baselines rank, but have no levels


def _baseline(scorer: str, features: PairFeatures, judged: Judged | None) -> FileScores:
    from embedders.student import LevelCalibrator

    def raw(each: PairFeatures) -> np.ndarray:
        return each.bm25 if scorer == "bm25" else each.cosine

    scores = raw(features)
    if judged is None:
        return FileScores(scorer, None, scores)
    calibrator = LevelCalibrator.fit(raw(judged.features), judged.pairs.require_levels())
    return FileScores(scorer, calibrator.probabilities(scores), scores)


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
