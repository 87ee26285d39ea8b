"""Languages that screening guesses, and where it does not guess."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embedders.captions.gate import QualityGate
from feature_repo.screening import Screening, guess_language, other_language

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PACKAGED = Screening()


# Languages -----------------------------------------------------------------------------------------------------------

SENTENCES = {
    "en": "The cat is sitting on the table with a book", "de": "Die Katze sitzt auf dem Tisch und liest ein Buch",
    "fr": "Le chat est assis sur la table avec un livre",
    "es": "El gato está sentado en la mesa con un libro y una taza",
    "it": "Il gatto è seduto sul tavolo con un libro della nonna",
    "pt": "O gato não está sentado na mesa com um livro",
    "nl": "De kat zit op het tafeltje met een boek van opa", "pl": "Kot siedzi na stole i nie jest głodny",
    "cs": "Kočka sedí na stole a není hladová, protože se najedla",
    "tr": "Kedi masanın üzerinde bir kitap ile oturuyor ve çok mutlu",
    "sv": "Katten sitter på bordet och läser en bok som är min",
    "ru": "Кошка сидит на столе, и ей хорошо, потому что это её стол",
    "uk": "Кішка сидить на столі і читає", "zh": "猫坐在桌子上看书", "ja": "猫がテーブルの上に座っている",
    "ko": "고양이가 탁자 위에 앉아 있다",
    "ar": "القطة تجلس على الطاولة", "fa": "گربه روی میز نشسته است و کتاب می‌خواند", "th": "แมวนั่งบนโต๊ะ",
    "el": "Η γάτα κάθεται",
    "he": "החתול יושב על השולחן", "hi": "बिल्ली मेज पर बैठी है",
}  # fmt: skip


@pytest.mark.parametrize(("lang", "text"), SENTENCES.items())
def test_sentences_are_recognised(lang, text):
    assert guess_language(text) == lang


@pytest.mark.parametrize(
    "text",
    ["", "🌿", "404", "kitchen", "Oak table", "DIY", "苔庭", "rosa", "Pizza", "Toy Story", "Ω", "la la land", "no"],
)
def test_no_guess_where_nobody_can_be_sure(text):
    assert guess_language(text) is None


SHORT = {
    "hr": "Recept za kolač s jabukama i orasima koji se radi na brz način",
    "sl": "Recept za kolač, ki je na mizi, z jabolki in se ga naredi v pol ure",
    "sr": "Рецепт за колач са јабукама и орасима који се прави на брз начин и у рерни",
    "mk": "Рецепт за колач со јаболка и ореви на брз начин",
    "bg": "Рецепта за ябълков сладкиш с орехи и масло, който се пече на фурна",
    "be": "Пірог з яблыкамі і арэхамі на стале",
    "kk": "Алма мен жаңғақ қосылған бәліш және оның жасалуы і",
    "tt": "И нинди матур кыш көне, бик яхшы",
    "ps": "د مڼو او غوزانو کیک څنګه جوړ کړو",
}  # fmt: skip


@pytest.mark.parametrize("lang", ["sr", "mk", "bg", "be", "kk", "tt", "ps"])
def test_letters_and_words_of_other_languages_in_the_same_script_give_no_guess(lang):
    assert guess_language(SHORT[lang]) is None


@pytest.mark.parametrize(
    ("lang", "text", "other"),
    [
        *((lang, text, None) for lang, text in SHORT.items()),
        *(("en", text, lang) for lang, text in SENTENCES.items() if lang != "en"),
        ("de-AT", SENTENCES["de"], None), ("eng", SENTENCES["de"], None), (None, SENTENCES["de"], None),
        ("iw", SENTENCES["he"], None), ("ji", SENTENCES["he"], None), ("iw", SENTENCES["de"], "de"),
        ("in", "Resep kue yang enak dan mudah untuk keluarga dengan apel", None),
        ("et", "Õunakook ja pähklid on laual ei kui", None),
        ("af", "Die kat sit op het tafeltje met een boek van opa", None),
        ("sv", "Jord og potter til den lille altan og haven", None), ("fa", "القطة تجلس على الطاولة", None),
        ("sa", SENTENCES["hi"], None), ("uk", "Торт для мами на свято", None),
    ],
)  # fmt: skip
def test_another_language_only_where_ones_own_could_have_been_told(lang, text, other):
    assert other_language(text, lang) == other


def test_captions_in_a_language_that_cannot_be_told_are_not_flagged_for_it():
    for lang in ("hr", "mk", "be", "ps"):
        assert QualityGate(PACKAGED, lang).reason(SHORT[lang]) is None
    assert QualityGate(PACKAGED, "en-US").reason(SENTENCES["de"]) == "language de"


def test_captions_that_people_wrote_are_hardly_ever_taken_for_another_language():
    path = DATA / "multi30k" / "task1_translations.parquet"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    rows = pq.read_table(path).slice(0, 400)
    for lang in ("en", "de", "fr", "cs"):
        found = [guess_language(text) for text in rows[lang].to_pylist()]
        assert found.count(lang) > 0.75 * len(found), lang
        assert found.count(lang) + found.count(None) >= 0.995 * len(found), lang
