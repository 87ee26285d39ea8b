"""Spaces on the command line: JSON keys, exit codes, words; and a backfill that is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import click
import pytest
from test_materialize import CHECKOUT, run
from test_quarantine import BAD, Poisonable
from test_spaces import vectors_in
from test_spaces_release import add_titles

from feature_repo.switchboard import TEXT_SOURCES
from materialize.releases import current_release
from materialize.run import RunOptions
from materialize.space_admin import backfill, create_space
from materialize.spaces import Status, freeze_space, load_space, save_space
from pinfeather.cli import cli
from pinfeather.options import FiniteRange

LISTED = {"name", "live", "status", "points", "coverage", "dimension", "model", "model_fingerprint", "fields"}
LISTED |= {"template", "words", "pinned_by", "view", "created_at"}
SWITCH = {"space", "former_space", "release", "former_release", "switched", "bundle", "lexical", "apply_needed"}


@pytest.fixture
def hats(written_pins):
    """Six pins in the live space, and a filled space of titles."""
    pins = {f"p{number}": {"title": f"hat {number}", "description": f"wool {number}"} for number in range(6)}
    return written_pins(pins, then=add_titles)


def answer(pinfeather, *words, code=0):
    done, out, err = pinfeather(*words, "--json")
    assert done == code, err
    return json.loads(out)


def test_the_life_of_a_space_on_the_command_line(pinfeather, hats, tmp_path):
    root = hats.paths.root
    listed = answer(pinfeather, "spaces", "list", "--repo", root)["spaces"]
    assert [set(row) for row in listed] == [LISTED] * 2
    assert [(row["name"], row["live"], row["points"], row["status"]) for row in listed][1] == (
        "titles",
        False,
        6,
        "ready",
    )
    live = listed[0]["name"]
    created = answer(pinfeather, "spaces", "create", "small", "--dimension", "8", "--repo", root)
    assert (created["status"], created["dimension"], created["apply_needed"]) == ("building", 8, True)
    assert answer(pinfeather, "spaces", "pin", "titles", "--for", "ads", "--repo", root)["pinned_by"].keys() == {"ads"}
    code, _, err = pinfeather("spaces", "drop", "titles", "--repo", root)
    assert (code, "ads pins it since" in err) == (1, True)
    assert answer(pinfeather, "spaces", "unpin", "titles", "--for", "ads", "--repo", root)["pinned_by"] == {}
    assert answer(pinfeather, "spaces", "freeze", "titles", "--repo", root)["status"] == "frozen"
    assert answer(pinfeather, "spaces", "unfreeze", "titles", "--repo", root)["status"] == "ready"
    found = answer(pinfeather, "spaces", "diff", "live", "titles", "--repo", root)
    assert set(found) == {"a", "b", "points_a", "points_b", "common", "coverage_a", "coverage_b", "sample", "seed"} | {
        "overlap@10",
        "mean_cosine",
    }
    assert (found["common"], found["overlap@10"]) == (6, 1.0)  # of five others, all are among the ten nearest
    switched = answer(pinfeather, "promote", "titles", "--repo", root)
    assert set(switched) == SWITCH | {"checks", "warmed"}
    assert {check["name"] for check in switched["checks"]} == {"coverage", "overlap@10", "ndcg@20"}
    back = answer(pinfeather, "rollback", "--repo", root)
    assert (set(back), back["space"]) == (SWITCH, live)
    exported = answer(pinfeather, "export", "vectors", "--since", "0", "--out", tmp_path / "out", "--repo", root)
    assert set(exported) == {
        "space",
        "model_fingerprint",
        "dimension",
        "since",
        "next_since",
        "vectors",
        "deletions",
    } | {"files"}
    assert exported["vectors"] == 6
    restored = answer(pinfeather, "restore", "--repo", root)["spaces"]
    assert [row["restored"] for row in restored] == [0, 0, 0]
    assert set(restored[0]) == {"space", "restored", "not_in_log", "features", "coverage", "seconds"}
    dropped = answer(pinfeather, "spaces", "drop", "titles", "--repo", root)
    assert dropped == {"space": "titles", "points": 6, "apply_needed": False}


@pytest.mark.slow
def test_a_backfill_on_the_command_line_takes_the_real_model(pinfeather, hats):
    root = hats.paths.root
    answer(pinfeather, "spaces", "create", "small", "--dimension", "8", "--repo", root)
    filled = answer(pinfeather, "spaces", "backfill", "small", "--turn", "4", "--repo", root)
    assert (filled["new"], filled["encoded_texts"], filled["turns"], filled["status"]) == (6, 6, 2, "ready")
    assert filled["coverage"] == 1.0


@pytest.mark.slow
def test_a_backfill_says_what_it_rejects_and_asks_before_many_pins_go(pinfeather, hats):
    root = hats.paths.root
    hats.put("empty").put("bad", BAD).save()
    create_space(hats.paths, "small", dimension=8)
    list(backfill(hats.paths, "small", RunOptions(encoder=Poisonable())))
    filled = answer(pinfeather, "spaces", "backfill", "small", "--repo", root, code=3)
    assert (filled["new"], filled["rejected"], filled["quarantined"]) == (0, 2, 1)
    for number in range(6):
        hats.put(f"p{number}", None, description=f"wool {number}")
    hats.save()
    code, _, err = pinfeather("spaces", "backfill", "titles", "--repo", root)
    assert (code, "run again with --allow-deletes" in err) == (1, True)
    code, _, err = pinfeather("spaces", "backfill", "titles", "--allow-deletes", "--repo", root)
    assert (code, "8 pins are rejected" in err, "1 of them are in quarantine" in err) == (3, True, True)


def test_a_promotion_that_fails_its_gate_exits_with_1_and_shows_the_checks(pinfeather, hats):
    hats.put("p9", "another").save()
    code, out, err = pinfeather("promote", "titles", "--repo", hats.paths.root, "--json")
    assert code == 1
    assert json.loads(out)["switched"] is False
    assert [check["passed"] for check in json.loads(out)["checks"]] == [False, True, True]
    assert "6 of 7 pins with text" in err
    assert "Space titles is not promoted (coverage); release 1 goes on serving" in err
    code, out, _ = pinfeather("promote", "titles", "--repo", hats.paths.root, "--force")
    assert (code, "coverage" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spaces", "drop", "nothing"], "There is no space 'nothing'; there are:"),
        (["spaces", "create", "Big"], "lower-case"),
        (["promote", "titles", "--bundle", "x", "--no-bundle"], "exclude each other"),
        (["restore", "--space", "nothing"], "There is no space 'nothing'; there are:"),
        (["rollback", "--to", "50"], "There is no release 50"),
        (["promote", "live"], "is live already, by release 1"),
        (["spaces", "create", "--without", "titel"], "Cannot turn off titel: the sources are title, description"),
        (["spaces", "create", "--without", "engagement"], "engagement is no part of the pin text"),
        (["spaces", "create", *(word for name in TEXT_SOURCES for word in ("--without", name))], "leave one in"),
    ],
)
def test_wrong_usage_exits_with_2(pinfeather, hats, words, message):
    code, out, err = pinfeather(*words, "--repo", hats.paths.root)
    assert (code, out) == (2, "")
    assert message in err


def test_live_names_a_space_in_every_command(pinfeather, hats):
    root = hats.paths.root
    hats.put("p9", "a late hat").save()
    filled = answer(pinfeather, "spaces", "backfill", "live", "--repo", root)
    assert (filled["space"], filled["new"], filled["status"]) == (current_release(hats.paths).live_space, 1, "ready")
    assert answer(pinfeather, "spaces", "pin", "live", "--for", "ads", "--repo", root)["name"] == filled["space"]
    code, _, err = pinfeather("spaces", "drop", "live", "--repo", root)
    assert (code, "release 1 names it as the live space" in err) == (1, True)


@pytest.mark.slow
def test_after_a_loss_the_words_name_what_helps(pinfeather, hats):
    paths, root = hats.paths, hats.paths.root
    hats.put("p6", "hat 6").save()
    create_space(paths, "small", dimension=8)
    shutil.rmtree(paths.online)
    code, _, err = pinfeather("spaces", "diff", "live", "titles", "--repo", root)
    assert (code, "pinfeather restore" in err) == (1, True)
    freeze_space(paths, "titles")
    code, _, err = pinfeather("restore", "--repo", root)
    assert code == 0
    live = current_release(paths).live_space
    assert [
        f"space {name}: {todo}" in err
        for name, todo in (
            (live, "the next `pinfeather materialize` encodes them"),
            ("small", "`pinfeather spaces backfill small` encodes them"),
            ("titles", "it is frozen; `pinfeather spaces unfreeze titles` lets them in"),
        )
    ] == [True] * 3
    for broken in ("null", "{", '{"template": null}'):
        (paths.spaces / "titles.json").write_text(broken)
        code, _, err = pinfeather("spaces", "list", "--repo", root)
        assert (code, "titles.json cannot be read" in err, "a backup" in err) == (1, True, True), broken
    (paths.spaces / "titles.json").unlink()
    answer(pinfeather, "spaces", "create", "again", "--without", "description", "--repo", root)


def _options(command, words=()):
    for name in command.list_commands(None) if isinstance(command, click.Group) else ():
        yield from _options(command.get_command(None, name), (*words, name))
    yield from ((words, each) for each in command.params if isinstance(each.type, click.types.FloatParamType))


def test_no_option_takes_a_number_that_is_none(pinfeather):
    found = list(_options(cli))
    assert {option.name for _, option in found} >= {"max_gone", "lock_timeout", "overlap_min", "ndcg_drop_max"}
    assert [(words, option.name) for words, option in found if not isinstance(option.type, FiniteRange)] == []
    for words, option in found:
        code, out, err = pinfeather(*words, option.opts[0], "nan")
        assert (code, out, "nan is not a finite number" in err) == (2, "", True), words


def test_the_tables_for_people(pinfeather, hats):
    code, out, err = pinfeather("spaces", "list", "--repo", hats.paths.root)
    assert (code, err) == (0, "")
    assert "titles" in out
    save_space(hats.paths, replace(load_space(hats.paths, "titles"), words=False))
    code, _, err = pinfeather("spaces", "list", "--repo", hats.paths.root)
    assert (code, err.count("found by words")) == (0, 1)
    assert "Space titles is from before" in err
    code, out, _ = pinfeather("spaces", "diff", "live", "titles", "--repo", hats.paths.root)
    assert (code, "overlap@10" in out) == (0, True)


BACKFILL_KILLS = [
    ("conftest.CountingEncoder.encode", 12),
    ("materialize.vector_log.append", 12),
    ("Ledger.write", 8),  # the third batch is in the vector log
]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "left"), BACKFILL_KILLS, ids=["encode", "before the log", "before the ledger"])
def test_a_killed_backfill_goes_on_and_encodes_at_most_one_batch_twice(catalogue, encoder, target, left, monkeypatch):
    for number in range(20):
        catalogue.put(f"p{number:02}", f"hat {number}", description=f"wool {number}")
    run(catalogue, encoder)
    create_space(catalogue.paths, "titles", without=["description"])
    script = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import conftest, materialize.run
        from pathlib import Path
        from feature_repo.paths import RepoPaths
        from materialize.ledger import Ledger
        from materialize.space_admin import backfill
        plain = {target}
        calls = []
        def third(*args, **kwargs):
            calls.append(1)
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **kwargs)
        {target} = third
        materialize.run.BATCH_TEXTS = 4
        options = materialize.run.RunOptions(encoder=conftest.CountingEncoder())
        for turn in backfill(RepoPaths(Path({str(catalogue.paths.root)!r})), "titles", options, turn=16):
            pass
    """
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert load_space(catalogue.paths, "titles").status == Status.BUILDING
    encoder.calls = []
    monkeypatch.setattr("materialize.run.BATCH_TEXTS", 4)
    turns = list(backfill(catalogue.paths, "titles", RunOptions(encoder=encoder), turn=16))
    assert len(encoder.texts) == len(set(encoder.texts)) == left
    assert sum(turn.new + turn.changed for turn in turns) == 12  # two batches of four were committed
    assert load_space(catalogue.paths, "titles").status == Status.READY
    assert all(each is not None for each in vectors_in(catalogue.paths, "titles", *catalogue.pins))
    assert run(catalogue, encoder).quiet
