"""The command line as a user meets it: output, JSON keys, exit codes, messages."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import held_store

from embedders.model_folder import packaged_model_path
from materialize.releases import current_release
from pinfeather import cli

COUNTS = {"new", "changed", "payload_only", "unchanged", "gone", "rejected", "texts_to_encode", "encoder_calls"}
COUNTS |= {"encoded_texts", "upserted", "deleted", "seconds", "space"}
AUDIT = {"checked", "missing", "extra", "stale", "wrong_space", "corrupted", "ahead", "repaired"}
CHECKOUT = Path(__file__).resolve().parents[1]


def test_every_command_has_help_with_an_example_and_no_import_of_the_rest():
    for name in cli.COMMANDS:
        command = cli.cli.get_command(None, name)
        subs = list(command.commands.values()) if hasattr(command, "commands") else [command]
        for sub in subs:
            assert "Examples:" in sub.help, name
            assert all(
                option.help or option.name in ("pins", "seed", "limit", "folds")
                for option in sub.params[1:]
                if option.param_type_name == "option"
            ), name


def test_every_option_has_an_environment_variable(pinfeather):
    for name in cli.COMMANDS:
        command = cli.cli.get_command(None, name)
        subs = list(command.commands.values()) if hasattr(command, "commands") else [command]
        for sub in subs:
            for option in sub.params:
                if option.param_type_name == "option":
                    assert option.show_envvar, f"{name} {option.name}"


@pytest.mark.parametrize("words", [["plan", "--nonsense"], ["nonsense"], ["generate", "--pins", "7"]])
def test_wrong_usage_exits_with_2(pinfeather, words):
    code, out, err = pinfeather(*words)
    assert (code, out) == (2, "")
    assert "Error" in err or "No such command" in err


def test_a_repo_that_is_none_is_named_with_what_to_do(pinfeather, tmp_path):
    code, out, err = pinfeather("plan", "--repo", tmp_path)
    assert (code, out) == (2, "")
    assert f"--repo {tmp_path} is no Feast repository" in err
    assert "pinfeather init" in err


def test_a_file_that_cannot_be_written_is_one_message(pinfeather, catalogue):
    catalogue.put("a", "green velvet sofa").save()
    rejected = catalogue.paths.rejected
    shutil.rmtree(rejected)
    rejected.write_text("a file where the folder belongs")
    code, out, err = pinfeather("validate", "--repo", catalogue.paths.root)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"Error: {rejected}: File exists.")
    assert "run the same command again" in err


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x.db"), ["/data/x.db: No space left", "Free space"]),
        (PermissionError(errno.EACCES, "Permission denied", b"/data/x"), ["/data/x: Permission denied", "permission"]),
        (OSError(errno.EXDEV, "Cross-device link", "/a", None, "/b"), ["/a, /b: Cross-device link"]),
        (OSError("weights cannot\nbe read"), ["weights cannot"]),
        (OSError(), ["OSError"]),
    ],
)
def test_an_error_of_the_system_names_the_file_the_reason_and_what_to_do(pinfeather, monkeypatch, error, parts):
    def fail(**_):
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)
    code, out, err = pinfeather("plan")
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert all(part in err for part in parts)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
def test_output_to_a_full_disk_is_one_message():
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "pinfeather", "--help"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_init_never_overwrites(pinfeather, tmp_path):
    assert pinfeather("init", tmp_path / "mine")[0] == 0
    code, _, err = pinfeather("init", tmp_path / "mine")
    assert code == 1
    assert "nothing was overwritten" in err


def test_steps_out_of_order_say_which_comes_first(pinfeather, tmp_path, repo):
    pinfeather("init", tmp_path / "mine")
    assert "pinfeather apply" in pinfeather("plan", "--repo", tmp_path / "mine")[2]
    assert "pinfeather generate" in pinfeather("validate", "--repo", repo.root)[2]
    for command in (["audit"], ["train", "student"], ["search", "sofa"]):
        code, _, err = pinfeather(*command, "--repo", repo.root)
        assert code == 1
        assert "pinfeather materialize" in err, command


def test_a_first_day(pinfeather, catalogue):
    repo = catalogue.paths.root
    catalogue.put("a", "green velvet sofa").put("b", "oak dining table").put("c", None)
    catalogue.put("d", "\u202b\u0623\u0631\u064a\u0643\u0629 \U0001f6cb\ufe0f").save()

    code, out, err = pinfeather("plan", "--repo", repo, "--json")
    planned = json.loads(out)
    assert planned.keys() >= COUNTS
    assert (code, planned["new"], planned["rejected"], planned["texts_to_encode"]) == (3, 3, 1, 3)
    assert "1 pins are rejected" in err

    code, out, _ = pinfeather("materialize", "--repo", repo, "--json")
    ran = json.loads(out)
    assert (code, ran["encoded_texts"], ran["upserted"], ran["rejected"]) == (3, 3, 3, 1)
    assert ran.keys() >= COUNTS

    code, out, _ = pinfeather("audit", "--repo", repo, "--json")
    assert code == 0
    assert json.loads(out).keys() >= AUDIT

    code, out, _ = pinfeather("lexical", "fit", "--repo", repo, "--json")
    assert (code, json.loads(out)["documents"]) == (0, 4)

    code, out, _ = pinfeather("search", "couch", "--repo", repo, "--json", "--limit", "2")
    found = json.loads(out)
    assert (code, found["hits"][0]["pin_id"]) == (0, "a")
    assert found["degraded"]  # no student yet: it says so
    assert found["hits"][0]["content"]["pin_text__title"] == "green velvet sofa"

    code, out, _ = pinfeather("score", "sofa", "a", "nobody", "--repo", repo, "--scorer", "bm25", "--json")
    assert [pin["found"] for pin in json.loads(out)["pins"]] == [True, False]

    code, out, _ = pinfeather("related", "a", "--repo", repo, "--json")
    assert "a" not in [hit["pin_id"] for hit in json.loads(out)["hits"]]
    code, out, _ = pinfeather("home-feed", "a", "zzz", "--repo", repo, "--json")
    assert json.loads(out)["found"] == [True, False]
    code, out, _ = pinfeather("features", "a", "--repo", repo, "--json")
    assert json.loads(out)["columns"]["pin_text__title"] == ["green velvet sofa"]
    code, out, _ = pinfeather("embed", "sofa", "--repo", repo, "--json")
    assert len(json.loads(out)["vectors"][0]) == 384
    for words in (["search", "sofa"], ["related", "a"], ["home-feed", "a"], ["features", "a"], ["audit"], ["plan"]):
        code, out, _ = pinfeather(*words, "--repo", repo)
        assert out.strip(), words


def test_a_store_in_use_by_another_process_is_named(pinfeather, catalogue):
    catalogue.put("a", "green velvet sofa").save()
    with held_store(catalogue.paths) as pid:
        code, out, err = pinfeather("materialize", "--repo", catalogue.paths.root, "--lock-timeout", "0.1")
    assert (code, out) == (1, "")
    assert str(pid) in err


def test_a_model_folder_whose_weights_changed_is_refused(pinfeather, catalogue, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(packaged_model_path(), model)
    weights = model / "model.safetensors"
    repo = catalogue.put("a", "green velvet sofa").paths.root
    catalogue.save()
    assert pinfeather("materialize", "--repo", repo, "--model", model)[0] == 0
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    catalogue.put("b", "oak table").save()
    code, _, err = pinfeather("materialize", "--repo", repo)
    assert code == 1
    assert str(model) in err
    assert "space" in err


def test_another_model_for_a_live_space_is_refused(pinfeather, catalogue, tmp_path):
    repo = catalogue.put("a", "green velvet sofa").paths.root
    catalogue.save()
    pinfeather("materialize", "--repo", repo)
    code, _, err = pinfeather("plan", "--repo", repo, "--model", tmp_path)
    assert code == 1
    assert "belongs to the model packaged" in err


def test_a_copied_repository_does_not_read_the_files_of_the_first(pinfeather, catalogue, tmp_path):
    catalogue.put("a", "green velvet sofa").save()
    shutil.copytree(catalogue.paths.root, tmp_path / "copy")
    code, _, err = pinfeather("plan", "--repo", tmp_path / "copy")
    assert code == 1
    assert f"pinfeather apply --repo {tmp_path / 'copy'}" in err


def test_scores_never_overwrite_the_pairs(pinfeather, repo, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,title,level\nsoup,lentil soup,5\n")
    code, _, err = pinfeather("evaluate", "--repo", repo.root, "--pairs", pairs, "--scores", pairs)
    assert code == 2
    assert "would be overwritten" in err
    assert pairs.read_text().count("level") == 1
    code, _, err = pinfeather("evaluate", "--repo", repo.root, "--pairs", pairs, "--scores", tmp_path / "no" / "s.csv")
    assert code == 2
    assert "there is no folder" in err


def test_a_failed_import_leaves_nothing_behind(pinfeather, tmp_path):
    (tmp_path / "train.csv").write_text("nothing,of,use\n1,2,3\n")
    assert pinfeather("import", "crowdflower", tmp_path / "train.csv", tmp_path / "new")[0] == 1
    assert not (tmp_path / "new").exists()
    assert pinfeather("init", "")[0] == 2


def test_as_of_must_be_a_time(pinfeather, repo):
    code, _, err = pinfeather("aggregate", "--repo", repo.root, "--as-of", "yesterday")
    assert code == 2
    assert "ISO 8601" in err
    code, _, err = pinfeather("aggregate", "--repo", repo.root, "--as-of", "2999-01-01")
    assert code == 2
    assert "lies in the future" in err


def test_statistics_of_no_pin_are_refused(pinfeather, catalogue):
    catalogue.put("a", "green velvet sofa").save()
    repo = catalogue.paths.root
    code, out, err = pinfeather("lexical", "fit", "--repo", repo, "--as-of", "1900-01-01", "--json")
    assert (code, out) == (2, "")
    assert "No pin is as old as 1900-01-01" in err
    assert current_release(catalogue.paths) is None  # nothing was published
    (catalogue.paths.views / "pin_relevance.parquet").write_bytes(b"PAR1")
    code, out, err = pinfeather("lexical", "fit", "--repo", repo)
    assert (code, out) == (1, "")
    assert "`pinfeather aggregate` writes it again" in err


def test_an_empty_name_of_a_repository_is_not_the_present_folder(pinfeather):
    code, out, err = pinfeather("validate", "--repo", "")
    assert (code, out) == (2, "")
    assert err == "Error: --repo is empty: name a folder with feature_store.yaml.\n"


def test_a_student_that_cannot_be_is_refused_before_anything_is_encoded(pinfeather, catalogue, monkeypatch):
    from pinfeather.training import Judged

    monkeypatch.setattr(Judged, "read", lambda *_, **__: pytest.fail("read the pairs"))
    repo = catalogue.paths.root
    wrong = {"../x": ["--name", "../x"], "name one with --teacher": ["--human-share", "0.5"]}
    for words, options in {**wrong, "there are none of any teacher yet": ["--teacher", "t"]}.items():
        code, _, err = pinfeather("train", "student", "--repo", repo, *options)
        assert code == 2
        assert words in err
