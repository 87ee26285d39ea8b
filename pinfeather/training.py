"""Train and judge the student on a repository, or judge scorers on any file of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedders.bundle import StudentBundle, load_manifest
from embedders.bundle_places import bundle_folder
from embedders.evaluation.folds import query_groups
from embedders.evaluation.pairs import PairSet
from feature_repo.errors import PinfeatherError, UsageError
from feature_repo.lexical import LexicalStatistics, bm25_ranking
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import DEFAULT_TEMPLATE
from feature_repo.switchboard import checked, lexical_off, template_without, text_read
from materialize.releases import current_release
from materialize.spaces import Space, live_space, load_space
from pinfeather.judged import NoJudgmentsError, judged_pairs
from pinfeather.pipeline import fit_lexical, read_blobs
from pinfeather.writable import check_writable

if TYPE_CHECKING:
    from embedders.encoder import Encoder
    from embedders.student_head import HeadTrainer
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
        encoders = Encoders(device, given=encoder)
        encoder = encoders.of_queries(space)
        pin_encoder = encoders.of(space) if pairs.pin_vectors is None else None
        features = pair_features(pairs, encoder, template, statistics, progress, off, pin_encoder)
        return cls(paths, pairs, space, statistics, encoder, features, off)

    @property
    def product_penalty(self) -> float | None:
        """Of a head on the space's vectors: fixed where their towers were trained on these judgments, else chosen."""
        from embedders.student_head import SEEN_PENALTY

        if not self.space.bundle:
            return None
        training = load_manifest(self.paths.bundles / self.space.bundle).training
        seen = training.get("towers") and self.pairs.source in str(training.get("source")).split(", ")
        return SEEN_PENALTY if seen else None

    def trainer(self, seed: int = 0) -> HeadTrainer:
        """What fits heads on these pairs."""
        from embedders.student_head import HeadTrainer

        return HeadTrainer(
            self.pairs, self.features, self.statistics, self.without, seed=seed, product_penalty=self.product_penalty
        )


def cross_validate_judged(
    judged: Judged, scorers: Sequence[str], folds: int = 5, seed: int = 0
) -> list[dict[str, Any]]:
    """Figures of each scorer on query-disjoint folds, and ``without``; the student is trained anew for each fold."""
    from embedders.cross_validation import cross_validate

    rows = cross_validate(judged.trainer(seed), scorers, folds)
    return [{**row, "without": list(judged.without)} for row in rows]


def _statistics(paths: RepoPaths, off: Sequence[str]) -> LexicalStatistics:
    """The release's snapshot, fitted now if it names none; with sources off, one of the catalogue without them."""
    if lexical := lexical_off(off):
        return LexicalStatistics.fit(read_blobs(paths)[1], lexical)
    release = current_release(paths)
    digest = (release.lexical if release else None) or fit_lexical(paths)["digest"]
    return LexicalStatistics.load(paths.lexical / f"{digest}.json")


def free_name(paths: RepoPaths) -> str:
    """The first of student-1, student-2 ... that is no bundle yet."""
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
    teacher_name: str | None = None,
) -> list[FileScores]:
    """Score the pairs of a file, each distinct text encoded once.

    The student is ``bundle_name`` (a bundle of the repository, or a folder), else that of the release; one with towers
    of its own reads their vectors. It is not trained anew for ``without``: the sources are masked, as are those that it
    was trained without. BM25 and zero-shot know nothing of any student: their levels come from the repository's
    judgments, where it has any, and BM25's statistics are the release's, else fitted on the file, without the sources
    that are off.

    :param teacher_name: the teacher (of the repository, or a folder), as is ``bundle_name`` where no student is asked
        for; None: the only one of the repository.
    :raises UsageError: if a model is named and none of its kind asked for, or sources cannot be turned off.
    :raises PinfeatherError: if there is no such student or teacher, or the student is not of the live space.
    """
    from embedders.training import bundle_features, fit_statistics, pair_features, score_pairs
    from pinfeather.answers import named_models, teacher_answer

    asked = "student" in scorers
    own = (Path(repo) / "feature_store.yaml").is_file()
    paths = RepoPaths.open(repo) if own or (bundle_name is None and teacher_name is None) else None
    off = checked(without)
    bundle_name, teacher = named_models(paths, scorers, bundle_name, teacher_name)
    answers: dict[str, FileScores] = {}
    if teacher is not None:
        answers["teacher"] = teacher_answer(pairs, teacher, device, progress, off)
        if set(scorers) == {"teacher"}:
            return [answers["teacher"]]
    bundle = _bundle(paths, bundle_name) if asked else None
    shared = bundle is None or not bundle.towers  # its vectors are those of the baselines, too
    encoder = _encoder(paths, bundle, device) if shared else None
    features: PairFeatures | None = None
    if bundle is not None:
        query = encoder or bundle.encoder("query", device)
        masked = checked({*off, *bundle.manifest.without})
        pins = None if bundle.towers else _pin_encoder(paths, query, device)
        features = bundle_features(pairs, bundle, query, progress, off, pins)
        answers["student"] = FileScores("student", score_pairs(pairs, bundle, query, features=features), None, masked)
    if baselines := [scorer for scorer in scorers if scorer not in ("student", "teacher")]:
        plain = live_space(paths).template if paths else bundle.template if bundle else DEFAULT_TEMPLATE
        release = current_release(paths) if paths else None
        statistics = _statistics(paths, off) if paths and release and release.lexical else fit_statistics(pairs, off)
        encoder = encoder or _encoder(paths, None, device)
        if features is not None and bundle is not None and shared and plain == bundle.template:
            features = replace(features, bm25=_bm25(pairs, statistics, off))
        else:
            template, pins = template_without(plain, off), _pin_encoder(paths, encoder, device)
            features = pair_features(pairs, encoder, template, statistics, progress, off, pins)
        judged = _judgments(paths, off, device) if paths else None
        answers |= {scorer: _baseline(scorer, features, judged, off) for scorer in baselines}
    return [answers[scorer] for scorer in scorers]


def _bundle(paths: RepoPaths | None, name: str | None) -> StudentBundle:
    if name is not None:
        return StudentBundle.load(bundle_folder(name, paths))
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
    encoder: Encoder = Encoders(device).of_queries(live_space(paths))
    if bundle and bundle.manifest.query_tower != encoder.fingerprint:
        raise PinfeatherError(
            f"Bundle {bundle.manifest.name} was trained with the query tower {bundle.manifest.query_tower}, the "
            f"live space has {encoder.fingerprint}: name a bundle of the live space."
        )
    return encoder


def _pin_encoder(paths: RepoPaths | None, query: Encoder, device: str) -> Encoder | None:
    """The pin tower of the live space, where it is another model than ``query``."""
    from materialize.encoders import Encoders

    if paths is None or live_space(paths).model_fingerprint == query.fingerprint:
        return None
    return Encoders(device).of(live_space(paths))


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


def _judgments(paths: RepoPaths, off: Sequence[str], device: str) -> Judged | None:
    """What the baselines' levels are calibrated on; None where there is nothing yet: then they only rank."""
    release = current_release(paths)
    if release is None or release.live_space is None:
        return None
    try:
        return Judged.read(paths, device=device, without=off)
    except NoJudgmentsError:
        return None


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
    :raises PinfeatherError: if its folder cannot be written.
    """
    path = Path(out)
    if path.resolve() == Path(pairs).resolve():
        raise UsageError(f"--scores {out} is the file of pairs itself, which would be overwritten: name another file.")
    if not path.resolve().parent.is_dir():
        raise UsageError(f"--scores {out}: there is no folder {path.resolve().parent}; make it first.")
    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--scores {out}: the name must end in .parquet or .csv.")
    check_writable("--scores", path.resolve().parent)
    return path
