"""A source that is off is as one that the catalogue never had: pin text, lexical features, head, bundle, commands."""

import json
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from client_catalogue import WHEN, WordEncoder
from hypothesis import given
from hypothesis import strategies as st

from embedders.bundle import BundleError, StudentBundle, load_manifest
from embedders.evaluation.pairs import PairSet
from embedders.relevance import RelevanceInputs, relevance_features
from embedders.student_head import HeadTrainer
from embedders.training import fit_statistics, pair_features, score_pairs
from feature_repo.errors import UsageError
from feature_repo.lexical import LexicalStatistics, bm25_ranking, encode_blob, lexical_features
from feature_repo.pin_text import DEFAULT_TEMPLATE, FIELDS, LIST_FIELDS, PinFields
from feature_repo.switchboard import (
    SOURCES,
    TEXT_SOURCES,
    checked,
    lexical_off,
    template_without,
)
from feature_repo.validation import validate
from materialize.releases import current_release, publish_release
from materialize.spaces import live_space
from pinfeather.training import Judged, cross_validate_judged, score_file
from pinfeather.training_student import train_student
from serving_client import PinClient

pytest_plugins = ("client_repo",)

words = st.lists(st.sampled_from(["oak", "lamp", "Sofa", "日", "x-y", "100"]), max_size=6).map(" ".join)
texts = st.none() | words
lists = st.lists(words, max_size=4).map(tuple)
pins = st.builds(PinFields, texts, texts, texts, texts, texts, lists, lists)
some_off = st.sets(st.sampled_from(sorted(SOURCES))).filter(lambda names: not names.issuperset(TEXT_SOURCES))


def fields_without(pin, names):
    """The pin as one of which these sources know nothing."""
    off = {field for name in names for field in SOURCES[name].fields}
    empty = {one.name: () if one.name in LIST_FIELDS else None for one in fields(pin)}
    return replace(pin, **{name: value for name, value in empty.items() if name in off})


def test_the_sources_cover_every_field_once():
    assert [field for source in SOURCES.values() for field in source.fields] == list(FIELDS)
    assert checked(["queries", "title", "queries"]) == ("title", "queries")


@pytest.mark.parametrize(
    ("names", "allowed", "message"),
    [
        (["captions"], SOURCES, "Cannot turn off captions: the sources are title, description, caption, link, boards"),
        (["engagement"], TEXT_SOURCES, "engagement is no part of the pin text"),
        (TEXT_SOURCES, SOURCES, "leave one in"),
        (list(SOURCES), SOURCES, "leave one in"),
    ],
)
def test_what_cannot_be_off_is_refused_in_words(names, allowed, message):
    with pytest.raises(UsageError, match=message):
        checked(names, allowed)


@given(pins, some_off)
def test_the_pin_text_is_that_of_a_pin_without_the_source(pin, off):
    bare = fields_without(pin, off)
    assert template_without(DEFAULT_TEMPLATE, off).render(pin) == DEFAULT_TEMPLATE.render(bare)
    assert fields_without(bare, off) == bare


@given(st.lists(pins, max_size=5), words, some_off)
def test_lexical_features_are_those_of_a_catalogue_without_the_source(catalogue_pins, query, off):
    whole = [encode_blob(pin) for pin in catalogue_pins] + [None]
    bare = [encode_blob(fields_without(pin, off)) for pin in catalogue_pins] + [None]
    masked, never = LexicalStatistics.fit(whole, lexical_off(off)), LexicalStatistics.fit(bare)
    assert masked.digest == never.digest
    ours, names = lexical_features(query, whole, masked, lexical_off(off))
    np.testing.assert_array_equal(ours, lexical_features(query, bare, never)[0])
    np.testing.assert_array_equal(
        bm25_ranking(query, whole, masked, lexical_off(off)), bm25_ranking(query, bare, never)
    )
    for field in lexical_off(off):
        assert np.isnan(ours[:, [names.index(f"bm25_{field}"), names.index(f"match_{field}")]]).all()


def made_pairs() -> PairSet:
    """Pins that have every source, and levels that the rates and boards give away."""
    random = np.random.default_rng(3)
    vocabulary = np.array(["oak", "lamp", "sofa", "rug", "fern", "pasta", "linen", "brass"])
    queries, fields, levels = [], [], []
    for number in range(120):
        query = " ".join(random.choice(vocabulary, 2, replace=False))
        level = int(random.integers(1, 6))
        drawn = [" ".join(random.choice(vocabulary, 3)) for _ in range(5)]
        boards = (query, drawn[4]) if level > 3 else (drawn[4],)
        queries.append(f"{query} {number % 20}")
        fields.append(PinFields(*drawn[:4], drawn[0], boards, (query,) if level == 5 else ()))
        levels.append(level)
    pairs = PairSet.from_rows("made", queries, fields, levels)
    rates = np.linspace(0.01, 0.9, len(pairs.pins))
    return replace(pairs, click_rate=rates, save_rate=rates / 2)


@pytest.mark.parametrize("off", [("boards",), ("title", "link", "engagement"), ("engagement",)])
def test_features_and_head_are_those_of_pairs_that_never_had_the_source(off):
    pairs = made_pairs()
    bare = replace(pairs, pins=tuple(fields_without(pin, off) for pin in pairs.pins), blobs=None)
    if "engagement" in off:
        bare = replace(bare, click_rate=None, save_rate=None)
    template = template_without(DEFAULT_TEMPLATE, off)
    masked, statistics = partial(pair_features, without=off), fit_statistics(pairs, off)
    ours = masked(pairs, WordEncoder(), template, statistics)
    never = pair_features(bare, WordEncoder(), DEFAULT_TEMPLATE, fit_statistics(bare))
    np.testing.assert_array_equal(ours.matrix, never.matrix)
    np.testing.assert_array_equal(ours.bm25, never.bm25)
    plain = pair_features(pairs, WordEncoder(), DEFAULT_TEMPLATE, fit_statistics(pairs))
    assert not np.array_equal(ours.matrix, plain.matrix, equal_nan=True)
    head = HeadTrainer(pairs, ours, statistics, off).fit()
    for name in ("click_rate", "save_rate", "no_engagement") if "engagement" in off else ():
        assert head.scale[head.names.index(name)] == 0


def a_bundle(without=(), space=None) -> StudentBundle:
    pairs, encoder = made_pairs(), WordEncoder()
    statistics = fit_statistics(pairs, without)
    template = space.template if space else DEFAULT_TEMPLATE
    features = pair_features(pairs, encoder, template, statistics, without=without)
    head = HeadTrainer(pairs, features, statistics, without).fit()
    tower = space.model_fingerprint if space else encoder.fingerprint
    names = (space.name if space else "space",)
    return StudentBundle.make("made", head, statistics, template, tower, names, {}, {}, without=without)


def test_a_bundle_remembers_what_it_was_trained_without(tmp_path):
    off = ("boards", "engagement")
    a_bundle(off).save(tmp_path / "masked")
    a_bundle().save(tmp_path / "plain")
    assert load_manifest(tmp_path / "masked").without == off
    assert load_manifest(tmp_path / "plain").without == ()
    # The manifest of a plain bundle is what it was before there were sources to turn off.
    assert "without" not in json.loads((tmp_path / "plain" / "manifest.json").read_text())
    bundle, pairs = StudentBundle.load(tmp_path / "masked"), made_pairs()
    other = replace(pairs, click_rate=np.zeros(len(pairs.pins)), save_rate=None)
    same = score_pairs(other, bundle, WordEncoder())
    np.testing.assert_array_equal(score_pairs(pairs, bundle, WordEncoder()), same)
    manifest = json.loads((tmp_path / "masked" / "manifest.json").read_text())
    (tmp_path / "masked" / "manifest.json").write_text(json.dumps({**manifest, "without": ["graph"]}))
    with pytest.raises(BundleError, match=r"no bundle manifest.*Cannot turn off graph"):
        StudentBundle.load(tmp_path / "masked")


@pytest.mark.parametrize(
    ("asked_for", "off"),
    [("living room velvet", ("boards", "queries")), ("green velvet sofa", ("title", "engagement"))],
)
def test_serving_masks_what_the_bundle_was_trained_without(client_shop, tower, asked_for, off):
    bundle = a_bundle(off, live_space(client_shop))
    bundle.save(client_shop.bundles / "made")
    publish_release(client_shop, bundle="made")
    asked = ["sofa0", "sofa1", "pasta0", "unknown"]
    with PinClient(client_shop.root, encoder=tower) as client:
        scores = client.score(asked_for, asked)
        stored = client.pin_features(asked, "relevance_v1", slow_path=True).columns
        vectors = client.pin_embeddings(asked).vectors
        query = client.embed_queries([asked_for]).vectors[0]
    rates = [np.array(stored[f"pin_relevance__{name}"], float) for name in ("click_rate", "save_rate")]
    inputs = RelevanceInputs(asked_for, query, vectors, stored["pin_relevance__tokens"], *rates)
    whole = relevance_features(inputs, bundle.statistics)[0]
    masked = relevance_features(replace(inputs, without=off), bundle.statistics)[0]
    assert not np.array_equal(whole[0], masked[0], equal_nan=True)
    assert scores.scorer == "student"
    assert np.abs(bundle.head.probabilities(whole)[:3] - bundle.head.probabilities(masked)[:3]).max() > 1e-4
    np.testing.assert_allclose(scores.probabilities[:3], bundle.head.probabilities(masked)[:3], atol=1e-6)


def test_bm25_by_the_statistics_of_a_bundle_masks_what_they_were_fitted_without(client_shop, tower):
    off = ("title", "description")
    bundle = a_bundle(off, live_space(client_shop))
    bundle.save(client_shop.bundles / "made")
    release = publish_release(client_shop, bundle="made")
    with PinClient(client_shop.root, encoder=tower) as client:
        own = client.score("velvet", ["sofa0"], scorer="bm25")
    assert own.ranking[0] > 0  # by the release's snapshot
    assert own.degraded == ()
    from materialize.stores.publication import open_writer

    with open_writer(client_shop.online) as writer:
        writer.publish(replace(release, lexical=None).to_json())
    with PinClient(client_shop.root, encoder=tower) as client:
        masked = client.score("armchair", ["sofa1", "pasta0"], scorer="bm25")
    assert masked.ranking.tolist() == [0, 0]  # the word stands in a title only
    assert masked.degraded == ("lexical_masked: bm25 by the statistics of the bundle, without title, description",)


@pytest.fixture
def judged(client_shop):
    """The shop with judgments of two queries."""
    rows = [
        {"query": query, "pin_id": f"{topic}{number}", "level": level, "event_timestamp": WHEN}
        for query, good in (("velvet sofa", "sofa"), ("fresh pasta", "pasta"), ("fern pot", "fern"), ("sofa", "sofa"))
        for topic in ("sofa", "pasta", "fern")
        for number in range(5)
        for level in [5 if topic == good else 1]
    ]
    (client_shop.raw / "judgments").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), client_shop.raw / "judgments" / "part.parquet")
    validate(client_shop)
    return client_shop


def test_evaluation_encodes_each_changed_text_once_and_only_then(judged):
    queries = ["fern pot", "fresh pasta", "sofa", "velvet sofa"]
    plain, rates, off = WordEncoder(), WordEncoder(), WordEncoder()
    Judged.read(judged, plain)
    Judged.read(judged, rates, without=["engagement"])
    assert (plain.encoded, rates.encoded) == (queries, queries)  # vectors of the pins come from the space
    read = Judged.read(judged, off, without=["queries", "boards"])
    assert sorted(off.encoded) == sorted({*queries, *(pin.title for pin in read.pairs.pins)})
    assert len(off.encoded) == len(set(off.encoded))
    rows = cross_validate_judged(read, ("bm25", "zero-shot"), folds=2)
    assert [row["without"] for row in rows] == [["boards", "queries"]] * 2
    assert read.statistics.digest != Judged.read(judged, plain).statistics.digest


def test_a_student_trained_without_says_what_the_vectors_still_hold(judged):
    read = Judged.read(judged, WordEncoder(), without=["boards", "engagement"], reencode=False)
    trained = train_student(read, "no-boards")
    assert (trained["without"], trained["in_vectors"]) == (["boards", "engagement"], ["boards"])
    bundle = StudentBundle.load(judged.bundles / "no-boards")
    assert bundle.manifest.without == ("boards", "engagement")
    assert bundle.template == live_space(judged).template
    # Its statistics are of the catalogue without boards, its vectors those that serving reads.
    assert bundle.statistics.documents[4] == 0
    assert read.encoder.encoded == ["fern pot", "fresh pasta", "sofa", "velvet sofa"]


def test_a_file_of_pairs_is_scored_without_a_source(judged):
    pairs = PairSet.from_rows("file", ["velvet"], [PinFields(title="velvet sofa", description="a fern")], [5])
    bundle = a_bundle((), live_space(judged))
    bundle.save(judged.bundles / "made")
    publish_release(judged, bundle="made")
    bare = replace(pairs, pins=(PinFields(description="a fern"),))
    scorers = ("student", "bm25", "zero-shot")
    off = score_file(pairs, scorers, str(judged.root), device="cpu", without=["title"])
    never = score_file(bare, scorers, str(judged.root), device="cpu")
    whole = score_file(pairs, scorers, str(judged.root), device="cpu")
    np.testing.assert_array_equal(off[0].probabilities, never[0].probabilities)
    assert {one.without for one in off} == {("title",)}
    assert {one.without for one in whole} == {()}
    for masked, plain in zip(off[1:], whole[1:], strict=True):
        assert masked.scores[0] < plain.scores[0]
    assert off[1].scores[0] == 0  # velvet stands in the title only
    np.testing.assert_array_equal(off[2].scores, never[2].scores)


def test_baselines_on_a_file_know_nothing_of_the_student(judged):
    rows = [PinFields(title="velvet sofa", description="a fern"), PinFields(title="oak", description="velvet rug")]
    pairs = PairSet.from_rows("file", ["velvet", "velvet"], rows, [5, 2])
    root, baselines = str(judged.root), ("bm25", "zero-shot")
    before = score_file(pairs, baselines, root, device="cpu")
    a_bundle(("title", "engagement"), live_space(judged)).save(judged.bundles / "made")
    publish_release(judged, bundle="made")
    alone = score_file(pairs, baselines, root, device="cpu")
    student, *beside = score_file(pairs, ("student", *baselines), root, device="cpu")
    # Of another template: its vectors are not those that zero-shot asks for.
    other = replace(live_space(judged), template=live_space(judged).template.without("description"))
    a_bundle((), other).save(judged.bundles / "other")
    named = score_file(pairs, ("student", *baselines), root, "other", device="cpu")
    for answers in (alone, beside, named[1:]):
        for then, now in zip(before, answers, strict=True):
            np.testing.assert_array_equal(now.scores, then.scores)
            np.testing.assert_array_equal(now.probabilities, then.probabilities)
            assert now.without == ()
    assert (before[0].scores > 0).all()
    assert student.without == ("title", "engagement")
    masked = score_file(pairs, ("bm25", "student"), root, device="cpu", without=["description"])
    assert [one.without for one in masked] == [("description",), ("title", "description", "engagement")]
    with pytest.raises(UsageError, match="add --scorer student"):
        score_file(pairs, baselines, root, "made", device="cpu")


def test_the_command_says_what_each_scorer_was_not_shown(pinfeather, judged, tmp_path):
    a_bundle(("title",), live_space(judged)).save(judged.bundles / "made")
    (tmp_path / "pairs.csv").write_text("query,title,level\nsofa,velvet sofa,5\nsofa,oak,1\n")
    words = ["evaluate", "--repo", judged.root, "--pairs", tmp_path / "pairs.csv", "--bundle", "made"]
    code, out, err = pinfeather(*words, "--scorer", "bm25", "--scorer", "student", "--json")
    assert code == 0, err
    assert [(row["scorer"], row["without"]) for row in json.loads(out)] == [("bm25", []), ("student", ["title"])]


def test_a_student_without_a_source_goes_live_only_when_told(judged, pinfeather):
    words = ["train", "student", "--repo", judged.root]
    code, out, err = pinfeather(*words, "--name", "try", "--without", "boards")
    assert code == 0, err
    assert "Readers do not see it" in err + out
    assert "train student --without boards --live" in err + out
    assert current_release(judged).bundle is None
    for options, bundle in ([], "plain"), (["--no-live"], "plain"), (["--without", "boards", "--live"], "bare"):
        name = bundle if "--no-live" not in options else "spare"
        code, out, err = pinfeather(*words, "--name", name, *options, "--json")
        assert code == 0, err
        release = current_release(judged)
        assert release.bundle == bundle
        assert json.loads(out)["release"] == (None if "--no-live" in options else release.number)


def test_a_student_of_another_space_cannot_go_live_alone(judged):
    read = Judged.read(judged, WordEncoder(), reencode=False)
    other = replace(read, space=replace(read.space, name="other"))
    with pytest.raises(UsageError, match=r"promote other --bundle NAME`\. Leave --live out"):
        train_student(other, "made", live=True)
    assert not (judged.bundles / "made").exists()


@pytest.mark.parametrize("command", [["train", "student"], ["evaluate"], ["evaluate", "--pairs", "pairs.csv"]])
def test_commands_name_the_sources(pinfeather, client_shop, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.csv").write_text("query,title\nsoup,lentil soup\n")
    code, out, err = pinfeather(*command, "--repo", client_shop.root, "--without", "board_titles")
    assert (code, out) == (2, "")
    assert "Cannot turn off board_titles: the sources are title, description, caption, link, boards, queries" in err
    monkeypatch.setenv(f"PINFEATHER_{'_'.join(command[:2] if command[0] == 'train' else command[:1]).upper()}_WITHOUT",
                       " ".join(TEXT_SOURCES))  # fmt: skip
    code, _, err = pinfeather(*command, "--repo", client_shop.root)
    assert (code, "leave one in" in err) == (2, True)
