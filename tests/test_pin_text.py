"""The canonical pin text: what changes it and what does not."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedders.model_folder import ModelFolder
from embedders.tokens import TextTokenizer
from feature_repo.errors import PinfeatherError
from feature_repo.pin_text import DEFAULT_TEMPLATE, FieldRule, PinFields, PinTextTemplate
from feature_repo.text import canonical_query, first_words, normalise, words

texts = st.text(max_size=60)
titles = st.lists(texts, max_size=6).map(tuple)


def test_order_markers_and_missing_fields():
    fields = PinFields(title=" Oak  shelf ", caption="a shelf", board_titles=("Hallway", "Storage ideas"))
    assert DEFAULT_TEMPLATE.render(fields).text == "Oak shelf | a shelf | boards: Hallway, Storage ideas"
    assert DEFAULT_TEMPLATE.render(PinFields(description="", engaged_queries=(" ",))).text == ""


@given(titles, titles, texts)
def test_list_order_and_repeats_change_nothing(boards, queries, title):
    one = DEFAULT_TEMPLATE.render(PinFields(title=title, board_titles=boards, engaged_queries=queries))
    other = PinFields(title=title, board_titles=(*reversed(boards), *boards), engaged_queries=tuple(reversed(queries)))
    assert DEFAULT_TEMPLATE.render(other) == one


@given(texts, titles)
def test_unicode_form_and_whitespace_change_nothing(title, boards):
    nfd = PinFields(
        title=f"\t{unicodedata.normalize('NFD', title)}\n",
        board_titles=tuple(unicodedata.normalize("NFD", board) for board in boards),
    )
    nfc = PinFields(title=unicodedata.normalize("NFC", title), board_titles=boards)
    assert DEFAULT_TEMPLATE.render(nfd).fingerprint == DEFAULT_TEMPLATE.render(nfc).fingerprint


UNSEEN = "\xad\u061c\u180e\u200b\u200e\u200f\u202a\u202e\u2060\u2064\u2066\u206f\ufeff\ufff9\ufffb"


@given(st.text(st.sampled_from(UNSEEN + "a\u0301 é|红"), max_size=20))
def test_characters_that_nobody_sees_change_nothing(title):
    seen = "".join(character for character in title if character not in UNSEEN)
    assert DEFAULT_TEMPLATE.render(PinFields(title=title)) == DEFAULT_TEMPLATE.render(PinFields(title=seen))
    assert canonical_query(title) == canonical_query(seen)


def test_the_packaged_model_does_not_see_them_either():
    tokenizer = TextTokenizer(ModelFolder.open("packaged"))
    for character in UNSEEN:
        assert unicodedata.category(character) == "Cf"
        for text in ("fil{}igree hat", "red {} hat", "{}hat", "hat{}"):
            as_given, as_read = text.format(character), normalise(text.format(character))
            one, other = tokenizer.ids([as_given, as_read])
            assert one.tolist() == other.tolist()


def test_joiners_stay():
    family, flag = "\U0001f468\u200d\U0001f469", "\U0001f3f4\U000e0067\U000e007f"
    assert [normalise(text) for text in (family, flag, "\u0645\u06cc\u200c\u062e")] == [
        family,
        flag,
        "\u0645\u06cc\u200c\u062e",
    ]


def test_text_beyond_the_budget_changes_nothing_and_is_reported():
    words_24 = " ".join(f"w{n}" for n in range(24))
    short, long = PinFields(title=words_24), PinFields(title=words_24 + " and more")
    assert DEFAULT_TEMPLATE.render(long).text == DEFAULT_TEMPLATE.render(short).text
    assert (DEFAULT_TEMPLATE.render(short).truncated, DEFAULT_TEMPLATE.render(long).truncated) == (False, True)


def test_lists_keep_whole_items_within_the_budget():
    template = PinTextTemplate(1, (FieldRule("board_titles", 4),))
    rendered = template.render(PinFields(board_titles=("aa bb", "cc dd ee", "ff gg")))
    assert (rendered.text, rendered.truncated) == ("aa bb, ff gg", True)
    assert template.render(PinFields(board_titles=("a b c d e f",))).text == "a b c d"


@given(texts)
def test_whatever_comes_in_encodes_as_utf8(title):
    rendered = DEFAULT_TEMPLATE.render(PinFields(title=title + "\ud800\x00", board_titles=("\udfff",)))
    assert rendered.text.encode() is not None
    assert "\x00" not in rendered.text


def test_an_ablation_is_a_template_of_its_own():
    ablated = DEFAULT_TEMPLATE.without("board_titles", "caption")
    fields = PinFields(title="Oak shelf", caption="a shelf", board_titles=("Hallway",))
    assert ablated.render(fields).text == "Oak shelf"
    assert ablated.fingerprint != DEFAULT_TEMPLATE.fingerprint
    assert PinTextTemplate.from_json(ablated.to_json()) == ablated


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((), "each at most once and in this order"),
        ((FieldRule("caption", 5), FieldRule("title", 5)), "each at most once and in this order"),
        ((FieldRule("titel", 5),), "allowed are"),
        ((FieldRule("title", 0),), "at least 1"),
    ],
)
def test_templates_that_cannot_be(rules, message):
    with pytest.raises(PinfeatherError, match=message):
        PinTextTemplate(1, rules)


def test_unknown_fields_cannot_be_turned_off():
    with pytest.raises(PinfeatherError, match=r"Cannot turn off \['captions'\]"):
        DEFAULT_TEMPLATE.without("captions")


def test_words_are_single_characters_where_a_script_has_no_spaces():
    assert words("红色 sofa für's Wohn-zimmer 2") == ["红", "色", "sofa", "für", "s", "Wohn", "zimmer", "2"]
    assert first_words("红色沙发 sofa", 3) == ("红色沙", True)


combining = st.lists(st.tuples(st.characters(), st.text(st.characters(categories=["Mn"]), max_size=2)), max_size=6)


@given(texts | combining.map(lambda pairs: "".join(map("".join, pairs))))
@example("H\u0331at")
@example("I\u0307\u0323")
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)
    assert canonical_query(canonical_query(text)) == canonical_query(text)
