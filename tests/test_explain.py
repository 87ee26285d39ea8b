"""``plan --explain``: old and new of every field, and who wrote the old."""

import json
from datetime import timedelta

import pytest
from test_materialize import killed_run, run

from materialize.definitions import load_definitions
from materialize.explain import explain
from materialize.ledger import Ledger
from materialize.runs import list_runs
from materialize.stores.layout import entity_collection, point_id
from materialize.stores.publication import open_writer


@pytest.fixture
def hats(written_pins):
    """Two pins written by run 1, one without text."""
    return written_pins({"a": {"title": "red hat", "description": "wool"}, "b": {"title": "blue hat"}, "empty": {}})


def field(found, name):
    (match,) = [each for each in found["fields"] if each["feature"] == name]
    return match


def test_a_changed_pin_shows_old_and_new_with_run_and_event_time(hats):
    later = hats.NOW + timedelta(days=2)
    hats.put("a", "red cap", description="wool", event_timestamp=later).save()
    found = explain(hats.paths, "a")
    assert found["state"] == "changed"
    assert found["text"] == {"old": "red hat | wool", "new": "red cap | wool"}
    title = field(found, "title")
    assert (title["old"], title["new"], title["changed"], title["pushed"]) == ("red hat", "red cap", True, False)
    (row,) = list_runs(hats.paths)
    assert (title["old_run"], found["written"]["run"], found["written"]["started"]) == (
        row["run"],
        row["run"],
        row["started"],
    )
    assert (title["old_event"], title["new_event"]) == (hats.NOW.isoformat(), later.isoformat())
    assert found["written"]["text_fp"] != found["source"]["text_fp"]
    assert [each["feature"] for each in found["fields"] if each["changed"]] == ["title"]


def test_the_run_of_each_field_is_the_one_that_wrote_its_row(hats, encoder):
    run(hats.put("a", "red cap"), encoder)
    hats.put("a", "red scarf", lang="de").save()
    runs = [row["run"] for row in list_runs(hats.paths)]
    found = explain(hats.paths, "a")
    assert (field(found, "title")["old_run"], found["written"]["run"]) == (runs[0], runs[0])
    assert explain(hats.paths, "b")["written"]["run"] == runs[1]
    assert (field(found, "lang")["old"], field(found, "lang")["new"]) == ("en", "de")


def test_states(hats, encoder):
    assert explain(hats.paths, "a")["state"] == "unchanged"
    assert explain(hats.paths, "empty")["state"] == "no_text"
    unknown = explain(hats.paths, "nobody")
    assert (unknown["state"], unknown["written"], unknown["source"]) == ("unknown", None, None)
    hats.put("a", "red hat", description="wool", country="DE").put("new", "green hat").put("b", "x" * 30_000).save()
    assert explain(hats.paths, "a")["state"] == "payload_only"
    new = explain(hats.paths, "new")
    assert (new["state"], new["written"], field(new, "title")["old"]) == ("new", None, None)
    assert new["text"] == {"old": None, "new": "green hat"}
    assert explain(hats.paths, "b")["state"] == "held"


def test_a_deleted_pin_says_since_when(hats):
    hats.put("a", "red hat", deleted_at=hats.NOW).save()
    found = explain(hats.paths, "a")
    assert (found["state"], found["source"]) == ("deleted", None)
    assert found["reason"] == f"deleted_at is {hats.NOW.isoformat()}"
    assert field(found, "title")["old"] == "red hat"


def test_a_pin_in_doubt_says_so(hats):
    hats.put("a", "red cap").save()
    killed_run(hats.paths, "materialize.vector_log.append = bang")
    assert explain(hats.paths, "a")["state"] == "doubtful"


def test_a_pushed_value_is_told_from_one_that_a_run_wrote(hats):
    project = load_definitions(hats.paths).project
    collection = entity_collection(project, ["pin_id"])
    with open_writer(hats.paths.online) as store:
        (point,) = store.get_many(collection, [point_id(project, "pin_text", {"pin_id": "a"})])
        del point.payload["fp"]
        point.payload["f"]["title"] = "pushed"
        store.upsert(collection, [point])
        store.publish()
    title = field(explain(hats.paths, "a"), "title")
    assert (title["old"], title["pushed"], title["old_run"]) == ("pushed", True, None)


def test_the_command_prints_a_table_and_loads_no_model(pinfeather, hats, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("materialize.encoders.load_encoder", never)
    hats.put("a", "red cap").save()
    repo = hats.paths.root
    code, out, err = pinfeather("plan", "--repo", repo, "--explain", "a")
    assert code == 0
    assert "its text has changed" in err
    (line,) = [line for line in out.splitlines() if "pin_text.title" in line]
    assert all(word in line for word in ("*", "red hat", "red cap"))
    code, out, _ = pinfeather("plan", "--repo", repo, "--explain", "nobody", "--json")
    assert (code, json.loads(out)["state"]) == (1, "unknown")


def test_a_pin_without_text_was_never_written(hats):
    assert explain(hats.paths, "empty")["written"] is None


def test_a_pin_that_validate_rejected_is_held_with_the_reason_though_it_was_never_written(hats, pinfeather):
    hats.put("long", "x" * 30_000).put("b", "y" * 30_000).save()
    for pin, old in (("long", None), ("b", "blue hat")):
        found = explain(hats.paths, pin)
        assert (found["state"], found["text"]["old"]) == ("held", old)
        assert "title" in found["reason"]
    code, out, err = pinfeather("plan", "--repo", hats.paths.root, "--json")
    counts = json.loads(out)
    assert (code, counts["held"], counts["rejected"]) == (3, 2, 3)
    assert "`validate` rejected" in err


def test_runs_that_end_beside_it_do_not_disturb_an_explanation(hats, monkeypatch):
    space = explain(hats.paths, "a")["space"]
    listed, calls = Ledger._listed, []

    def fold_after(ledger, name):
        found = listed(ledger, name)
        if name == space:
            calls.append(name)
            if len(calls) % 2:  # the first listing of the scan, then that of the entry
                with Ledger(hats.paths) as other, monkeypatch.context() as patch:
                    patch.setattr(Ledger, "_listed", listed)
                    other.doubt(space, 9, ["b"])
                    other.fold(space)
        return found

    monkeypatch.setattr(Ledger, "_listed", fold_after)
    found = explain(hats.paths, "a")
    assert (len(calls), found["state"], found["written"]["run"]) == (4, "unchanged", 1)
