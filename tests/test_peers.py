"""The peers benchmark: its cases find what is wrong with an indexer, and refuse to report on what did not happen."""

import json

import pytest

from benchmarks.materialize import peers_vectors
from benchmarks.materialize.peers import cell
from benchmarks.materialize.peers_cases import base, cases, run_case
from benchmarks.materialize.peers_documents import FakeEncoder, Row, die, documents, vectors, verdict
from benchmarks.materialize.peers_vectors import VectorTable

CASES = {case.name: case for case in cases()}


class Naive:
    """Writes what its books do not name and never deletes; the books are a JSON file, written last."""

    def __init__(self, folder, dies_late=False) -> None:
        self.store, self.books, self.dies_late = folder / "vectors.db", folder / "books.json", dies_late

    def reset(self):
        self.store.unlink(missing_ok=True)
        self.books.unlink(missing_ok=True)

    def prepare(self, documents):
        pass

    def sync(self, documents, encoder, dies=None):
        table = VectorTable(self.store, die if dies == "store" and not self.dies_late else None)
        known = json.loads(self.books.read_text()) if self.books.exists() else {}
        new = [each for each in documents if known.get(each.id) != [each.text, each.tag]]
        made = encoder.encode([each.text for each in new]) if new else []
        table.upsert([(each.id, each.id, vector.tobytes(), each.tag) for each, vector in zip(new, made, strict=True)])
        table.close()
        self.books.write_text(json.dumps({each.id: [each.text, each.tag] for each in documents}))
        return {"written": len(new)}

    def stored(self):
        return list(peers_vectors.stored_rows(self.store))

    def lose(self, document):
        peers_vectors.lose(self.store, document.id)

    def alter(self, document, vector):
        peers_vectors.alter(self.store, document.id, vector)


@pytest.mark.parametrize(
    ("name", "wrong", "texts"),
    [
        ("two documents swap their texts", {}, 2),
        ("of two with one text, one changes", {}, 1),
        ("a document is deleted", {"orphan": 1}, 0),
        ("metadata alone changes", {}, 1),
        ("a vector is lost from the store", {"missing": 1}, 0),
        ("a vector is altered in the store", {"stale": 1}, 0),
        ("killed in the encoder, edit taken back", {}, 0),
        ("killed after the vector write, edit taken back", {"stale": 1, "orphan": 1}, 0),
    ],
)
def test_a_case_finds_what_an_indexer_gets_wrong(tmp_path, name, wrong, texts):
    found = run_case(lambda: Naive(tmp_path), CASES[name])
    assert (found["wrong"], found["encoded_texts"]) == (wrong, texts)


def test_a_case_whose_kill_did_not_happen_is_no_cell(tmp_path):
    with pytest.raises(RuntimeError, match=r"taken back.*not killed where it should be, exit code 0"):
        run_case(lambda: Naive(tmp_path, dies_late=True), CASES["killed after the vector write, edit taken back"])


def test_the_verdict_counts_each_kind():
    truth = list(documents(6))
    rows = [
        Row(each.id, vector, each.tag) for each, vector in zip(truth, vectors([t.text for t in truth]), strict=True)
    ]
    assert verdict(rows, truth) == {}
    wrong = [
        rows[1]._replace(vector=rows[2].vector),
        rows[2]._replace(tag="de"),
        rows[3],
        rows[3]._replace(vector=rows[4].vector),
        rows[4]._replace(id="nobody"),
        rows[5],
    ]
    assert verdict(wrong, truth) == {"missing": 2, "stale": 1, "double": 1, "old_tag": 1, "orphan": 1}


def test_the_base_shares_one_text_and_the_encoder_counts():
    assert len({each.text for each in base()}) == len(base()) - 1
    encoder = FakeEncoder()
    assert (encoder.encode(["a", "b"]) == vectors(["a", "b"])).all()
    assert (encoder.calls, encoder.texts) == (1, 2)


def test_a_cell_says_what_is_wrong_and_what_was_encoded():
    assert cell({"wrong": {}, "encoded_texts": 2}) == "right (2)"
    assert cell({"wrong": {"old_tag": 1, "orphan": 3}, "encoded_texts": 0}) == "1 old tag, 3 orphan (0)"
