"""Screening: what is refused and what must pass, rules of one's own, and no text that takes long."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.errors import PinfeatherError
from feature_repo.screening import Limits, Purpose, Screening, guess_language
from feature_repo.screening.patterns import PATTERNS, TRIGGERS
from feature_repo.text import normalise

PACKAGED = Screening()
BOARD, QUERY, CAPTION, LINK = Purpose.BOARD_TITLE, Purpose.QUERY, Purpose.CAPTION, Purpose.LINK

PERSONAL = {
    "mail address": [
        "jane.doe@example.com", "mail me: j+x@mail.example.co.uk please", "jane at gmail dot com",
        "jane (at) example.com",
        "Jane [at] example [dot] com", "如玉@sohu.com", "ｊａｎｅ＠ｅｘａｍｐｌｅ．ｃｏｍ",
        "jane.doe @ web.de", "jane @ web.de", "jane @gmail.com", "j_doe@ mail.example.org",
    ],
    "phone number": [
        "+49 170 1234567", "call 555-123-4567", "(555) 123-4567", "0049 30 901820", "06 12 34 56 78", "020 7946 0958",
        "13800138000 李", "tel: 62301919", "電話 ０９０-１２３４-５６７８", "电话62301919", "+1 (555) 123-4567",
        "Jane (415) 555 2671", "Call Jane 415 555 2671", "1 415 555 2671", "tel 555 1234", "call me 555-1234",
        "phone: 1234567", "Jane ٠١٥١ ٢٣٤٥ ٦٧٨٩", "+٤٩ ١٥١ ٢٣٤٥٦٧٨", "फ़ोन ०९८ ७६५४ ३२१०", "我的电话6230191",
        "tlf 12 34 56 78", "Phone no. 555 1234", "тел. 123-45-67", "☎ 555 1234",
        "电话6230191李", "0800 330 1000", "01 02 03 04 05", "415 555 2671 Jane",
    ],
    "payment card": ["4111 1111 1111 1111", "card 5500-0000-0000-0004", "378282246310005"],
    "bank account": ["DE89 3704 0044 0532 0130 00", "gb82west12345698765432"],
    "identity number": ["ssn 123-45-6789"],
    "handle": ["@jane_doe", "pics by @Jane.Doe", "follow @jane!"],
    "web address": ["see https://example.com/x", "example.com/shop now"],
}  # fmt: skip
INNOCENT = [
    "Scunthorpe", "Scunthorpe United", "cockatiel care", "Penistone", "shiitake recipes", "Essex classics", "Dickens",
    "take a bite", "apple bite cake", "Dick und Doof", "love @ first sight", "crafts @home", "16x20 24x36 30x40",
    "100 x 200 x 3000", "1/2 cup 200 g", "2021-06-15", "01/02/2024", "1990 2000 2010 2020", "1:12 scale",
    "ISBN 9780439023481",
    "9780439023481", "size 38-40", "24/7", "501 jeans", "$1,299.99 sofa", "50% off", "R2-D2", "AC/DC", "e.l.f. makeup",
    "node.js", "vol. 2.5", "苔庭", "北欧风格客厅", "مطبخ صغير", "con amor", "cul de sac", "pot holders", "kids' room",
    "color #ff00aa", "8-4-2 pattern", "bastard file", "4111 1111 1111 1112", "5,000,000 views",
    "1920x1080", "24 x 36 in", "since 1998 2004", "hotel 1998 2004", "phone 2022 2023 2024",
    "iphone 12 13 14 15 cases",
    "phone 12 13 14 15", "mobile 1080 1920 wallpaper", "200 300 1000 ml", "lego 750 755 2023", "640 480 1024 768",
    "intel 10900 12700", "call of duty 2 3 4", "handy 12345", "dinner @ 8.30pm", "party @ st.pauli",
    "٢٠٢٠ ٢٠٢١", "price 1299 1499", "levis 501 505 1990", "size 38 39 40 41", "hotel 12345678",
    "call me 5/12/2020", "phone 128 256 512 gb", "mobile 3200 4500 5001 mah",
]  # fmt: skip


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in PERSONAL.items() for text in texts])
def test_personal_data_is_refused_in_titles_queries_and_captions(reason, text):
    found = {PACKAGED.reason(normalise(text), purpose) for purpose in (BOARD, QUERY, CAPTION)}
    assert found == {reason}


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_like_it_passes(text):
    assert PACKAGED.reason(text, QUERY) is None
    assert PACKAGED.reason(text, BOARD) in (None, "no letters")


def test_an_address_is_a_way_to_a_shop_in_a_query_and_an_advertisement_in_a_title():
    assert PACKAGED.reason("ikea.com", QUERY) is PACKAGED.reason("www.ikea.com", QUERY) is None
    assert PACKAGED.reason("tea @ harrods.com", QUERY) is None
    assert PACKAGED.reason("ikea.com", BOARD) == PACKAGED.reason("www.ikea.com", CAPTION) == "web address"


PROFANE = ["holy shit", "FUCKING great", "Hurensohn", "putain de vie", "hijo de puta", "cazzo", "kurwa", "хуйня",
"操你妈",
           "这个傻逼", "엄마 씨발", "orospu çocuğu"]  # fmt: skip


@pytest.mark.parametrize("text", PROFANE)
@pytest.mark.parametrize("purpose", list(Purpose))
def test_profanity_is_refused_everywhere(text, purpose):
    assert PACKAGED.reason(text, purpose) == "profanity"


def test_a_word_that_is_innocent_elsewhere_counts_in_its_own_language_only():
    for lang, reason in (
        (None, None),
        ("en-US", None),
        ("frankish", None),
        ("fr", "profanity"),
        ("fr_CA", "profanity"),
    ):
        assert PACKAGED.reason("bite", BOARD, lang) == reason
    assert PACKAGED.reason("la bite de mon voisin est dans le jardin", BOARD) == "profanity"  # guessed to be French


def test_lengths_and_texts_without_letters():
    limits = PACKAGED.limits
    assert PACKAGED.reason("a" * limits.max_title_characters, BOARD) is None
    assert PACKAGED.reason("a" * (limits.max_title_characters + 1), BOARD) == "too long"
    assert PACKAGED.reason("a" * (limits.max_query_characters + 1), QUERY) == "too long"
    assert PACKAGED.reason("oak " * 2_500, LINK) is None
    for text in ("2024", "🌿", "---", ""):
        assert PACKAGED.reason(text, BOARD) == "no letters"
    assert PACKAGED.reason("501", QUERY) is PACKAGED.reason("🌿", QUERY) is None
    assert PACKAGED.reason("?!", QUERY) == "no letters"


@pytest.mark.parametrize("text", ["{{ title }}", "[object Object]", "undefined", "a\ufffdb\ufffdc", "<%= name %>"])
def test_broken_text_is_refused_everywhere(text):
    assert {PACKAGED.reason(text, purpose) for purpose in Purpose} == {"broken text"}


PAGES = {
    "error page": ["404 Not Found | Ikea", "Ikea - Page not found", "Error 404: page not found", "Just a moment...",
                   "Access Denied", "Attention Required! | Cloudflare", "Seite nicht gefunden", "页面不存在",
                   "Oops! That page isn't here. Page not found.", "This domain is for sale at Names Inc",
                   "Index of /pub/images", "Please enable JavaScript to continue", "Сайт - Страница не найдена"],
    "boilerplate": ["Home", "Untitled Document", "Home | Blog", "We use cookies to improve your visit. Accept all.",
                    "LOGIN", "首页", "Lorem ipsum dolor sit amet", "Startseite"],
    "domain for sale": ["example.com is for sale | Names"],
    None: ["How to fix 404 Not Found errors", "Oak table | Ikea", "Home office ideas", "Home | Oak tables",
           "Just a moment in time: poems", "Cookies without sugar", "Forbidden forest cake", "A shop of wonders"],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in PAGES.items() for text in texts])
def test_pages_that_say_nothing(reason, text):
    assert PACKAGED.reason(text, LINK) == reason
    assert PACKAGED.reason(text, QUERY) is None  # people may ask for anything


def test_an_error_message_deep_in_a_long_text_refuses_nothing():
    long = "Oak tables are made to last. " * 12
    assert PACKAGED.reason(long + "Page not found.", LINK) is None
    assert PACKAGED.reason("Page not found. " + long, LINK) == "error page"


# Rules of one's own ---------------------------------------------------------------------------------------------------


def rules(tmp_path, text):
    (tmp_path / "screening.yaml").write_text(text, encoding="utf-8")
    return Screening.load(tmp_path)


def test_without_a_file_the_packaged_rules_hold(tmp_path):
    assert Screening.load(tmp_path).fingerprint == PACKAGED.fingerprint == rules(tmp_path, "# nothing\n").fingerprint
    assert Screening.load(tmp_path).limits == Limits()


def test_the_example_in_the_docs_is_taken(tmp_path):
    text = (Path(__file__).resolve().parents[1] / "docs" / "screening.md").read_text(encoding="utf-8")
    own = rules(tmp_path, text.partition("```yaml\n")[2].partition("```")[0])
    assert own.limits == Limits()
    assert own.reason("ord-123456", BOARD) == "order number"
    assert own.reason("@jane_doe", BOARD) is None


def test_lists_are_replaced_extended_and_emptied(tmp_path):
    own = rules(
        tmp_path,
        r"""
limits: {max_title_characters: 10, early_seconds: 0}
patterns:
  handle: null
  order number: {pattern: '\bORD-\d{6}\b', purposes: [query]}
  phone number: '\b\d{3}-CALL\b'
profanity:
  en: {add: [zonk, dull thing], remove: [shit]}
  de: [mist]
  xx: [blorp]
error_pages: {add: ["gone fishing *"]}
boilerplate: null
generic_words: [oddments, bits and bobs]
""",
    )
    assert own.limits == Limits(max_title_characters=10, early_seconds=0)
    wanted = {
        "@jane_doe": None, "ord-123456": "order number", "555-call": "phone number", "+49 170 1234567": None,
        "zonk": "profanity", "a dull thing": "profanity", "dull": None, "shit": None, "fuck": "profanity",
        "mist": "profanity", "hurensohn": None, "blorp": "profanity",
    }  # fmt: skip
    assert {text: own.reason(text, QUERY) for text in wanted} == wanted
    assert own.reason("ord-123456", LINK) is None
    assert own.reason("long title here", BOARD) == "too long"
    assert own.reason("Gone fishing until May", LINK) == "error page"
    assert own.reason("Home", LINK) is None
    assert [own.generic(said) for said in (["oddments"], ["bits", "and", "bobs"], ["bits"], ["favorites"])] == [
        True, True, False, False,
    ]  # fmt: skip
    assert own.fingerprint != PACKAGED.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit: {}", r"unknown key limit\. Allowed: limits, patterns, profanity"),
        ("limits: {max_words: 3}", r"unknown key limits\.max_words\. Allowed: max_title_characters"),
        ("limits: {max_saves_a_day: 0}", r"limits\.max_saves_a_day is 0; a whole number of at least 1"),
        ("limits: {max_saves_a_day: true}", "is True; a whole number"),
        ("limits: 3", "limits is 3; a mapping"),
        ("patterns: {x: '('}", r"patterns\.x \('\('\) is no regular expression: missing \)"),
        ("patterns: {x: 'a*'}", r"patterns\.x is 'a\*'; a pattern that wants a character"),
        (
            "patterns: {handles: null}",
            r"patterns\.handles is null.* mail address, payment card, .*phone number, handle",
        ),
        ("patterns: {x: 3}", r"patterns\.x is 3; a mapping"),
        ("patterns: {x: {pattern: a, purposes: [titles]}}", "purposes is .*a list of board title, query, caption"),
        ("patterns: {x: {pattern: a, when: b}}", r"unknown key patterns\.x\.when\. Allowed: pattern, purposes"),
        ("profanity: {no: [a]}", 'language False; write a code as "en" or "no"'),
        ("profanity: {en: {plus: [a]}}", r"unknown key profanity\.en\.plus\. Allowed: add, remove"),
        ("profanity: {en: {remove: [daisy]}}", r"profanity\.en\.remove names 'daisy', which is not in the packaged"),
        ("error_pages: oops", "error_pages is 'oops'; a list of texts"),
        ("boilerplate: ['!']", r"boilerplate is \['!'\]; a list of texts with a letter or digit"),
        ("- a", "the file is .*a mapping"),
        ("a: [", r"screening\.yaml, line"),
    ],
)
def test_a_wrong_file_says_what_is_wrong_and_what_is_allowed(tmp_path, text, message):
    with pytest.raises(PinfeatherError, match=message):
        rules(tmp_path, text)


def test_a_pattern_that_never_ends_is_refused_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("feature_repo.screening.patterns.TIMEOUT_S", 0.05)
    with pytest.raises(
        PinfeatherError, match=r"screening\.yaml: The screening pattern 'slow' .*took longer than .*1,64"
    ):
        rules(tmp_path, "patterns: {slow: '(a|a)*c'}" if False else r"patterns: {slow: '(\w+\s?)+!{3}'}")


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.text(max_size=4), st.just(2.5))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["add", "remove", "en", "pattern", "purposes", "max_saves_a_day"]), SCALARS),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)
KEYS = ("limits", "patterns", "profanity", "error_pages", "boilerplate", "generic_words", "other")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_rules=st.one_of(VALUES, st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)))
def test_any_file_is_taken_or_refused_with_its_name(tmp_path, given_rules):
    try:
        own = rules(tmp_path, yaml.safe_dump(given_rules, allow_unicode=True))
    except PinfeatherError as error:
        assert "screening.yaml" in str(error)
    else:
        assert own.fingerprint == Screening.load(tmp_path).fingerprint


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=st.text(alphabet="ab(){}[]*+?|^$.,09<>P:=!-\\wduxN", min_size=1, max_size=12))
def test_any_pattern_is_taken_or_refused_with_its_name(tmp_path, monkeypatch, expression):
    monkeypatch.setattr("feature_repo.screening.patterns.TIMEOUT_S", 0.1)
    try:
        own = rules(tmp_path, yaml.safe_dump({"patterns": {"mine": expression}}))
    except PinfeatherError as error:
        assert "screening.yaml" in str(error)
        assert "mine" in str(error)
    else:
        assert own.reason("oak table", BOARD) in (None, "mine")


def test_fingerprints_follow_every_rule(tmp_path):
    texts = [
        "limits: {max_saves_a_day: 9}", "patterns: {handle: null}", "profanity: {en: {add: [zonk]}}",
        "boilerplate: [x]",
        "error_pages: [x]", "generic_words: [x]",
    ]  # fmt: skip
    assert len({rules(tmp_path, text).fingerprint for text in texts} | {PACKAGED.fingerprint}) == len(texts) + 1


# Any text ------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "a",
        "0",
        " ",
        "@",
        ".",
        "-",
        "+",
        "(",
        "<",
        "{{",
        "/",
        "苔",
        "é",
        "\ufffd",
        "404",
        "at",
        "de89",
        "www.",
        "!",
        "0 ",
        "a.",
        "tel ",
        " @ ",
        "415 ",
    ]
)


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(PIECES, min_size=1, max_size=6), repeat=st.integers(1, 20_000), tail=st.text(max_size=20))
def test_no_pattern_runs_into_its_time_limit_on_any_text_up_to_20_000_characters(pieces, repeat, tail):
    unit = "".join(pieces)
    text = normalise((unit * (1 + min(repeat, 20_000 // len(unit))))[:20_000] + tail)
    for purpose in Purpose:
        reason = PACKAGED.reason(text, purpose)
        assert reason is None or 0 < len(reason) < 40
    guess_language(text)


@given(text=st.text(alphabet="@.:/<{[(\ufffd\ue000aAdDoOtT0١ -+nulforsaei\n", max_size=60))
def test_the_fast_path_loses_nothing(text):
    for pattern in PATTERNS:
        found = pattern.compiled.search(text) is not None
        if found and pattern.usual:
            assert TRIGGERS.search(text), pattern.name
            assert not pattern.signs or any(sign in text for sign in pattern.signs), pattern.name
