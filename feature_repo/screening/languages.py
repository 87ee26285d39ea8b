"""A guess at the language of a text that would rather say nothing than something wrong.

Evidence: the script; letters that few languages have; function words, each counted once and the less the more
languages share it. A guess needs 1.5 points and a lead of one point over the next language, so single words and most
short titles get none. Kept small and readable on purpose: no model, no downloads, the same answer everywhere.
"""

from __future__ import annotations

from collections import defaultdict

import regex

from feature_repo.screening.folding import folded_words

_LEAST, _LEAD = 1.5, 1.0
_LOOKED_AT_CHARACTERS = 500
_MOSTLY = 0.5
"""Share of the letters that must be of a script for it to decide."""

_FUNCTION_WORDS = {
    "en": "the and of to is in that it with for on are this was as at by from his her he she an be or you your not we "
    "they their its has have had which what how who when can will my our his out up into there while through some "
    "these than them him near wearing sitting standing two people man woman a",
    "de": "der die das und ist im ein eine einen einem einer eines mit von auf für den dem des nicht sich auch aus bei "
    "nach wie wird zu zum zur über vor oder sind ich wir sie er es am an als dass kann mein meine ihr ihre durch unter "
    "gegen bis noch nur wenn werden hat während zwei mann frau vom beim neben trägt steht sitzt",
    "fr": "le la les des et est un une du de dans en que qui pour sur avec pas au aux ce cette ces son sa ses il elle "
    "ils elles nous vous je mon ma mes leur leurs ou où par plus sont être avoir fait comme mais très à deux homme "
    "femme sous devant près pendant l d qu",
    "es": "el la los las y es un una unos de del en que para con por no se su sus al lo como más pero este esta estos "
    "son mi mis muy o donde cuando ha hay fue ser sobre entre desde sin porque qué cómo tu yo hombre mujer dos",
    "it": "il lo la i gli le e è un una di del della dei delle in che per con non si su al alla da dal dalla come più "
    "ma questo questa sono mio mia anche nel nella ha era essere dove quando tra fra o uomo donna due",
    "pt": "o a os as e é um uma de do da dos das em no na nos nas que para com por não se seu sua ao à como mais mas "
    "este esta isso são meu minha muito ou foi ser também pelo pela entre quando onde você homem mulher dois",
    "nl": "de het een en van in is op te dat die voor met niet zijn aan er om ook als maar bij naar uit dan wordt door "
    "over ze hij zij we je mijn deze dit heeft worden kan nog wel geen hoe wat waar of twee vrouw",
    "sv": "och att det i en ett är som på av för med den till inte om har de jag var från vi kan men så eller man "
    "hur när mina min mitt vid två kvinna sitter står hon han ska här",
    "da": "og at det i en et er som på af for med den til ikke om har de jeg var fra vi kan men så eller man "
    "hvordan når mine min mit ved to kvinde sidder står hun han skal her",
    "pl": "i w na z do się nie to jest że o jak za po co dla od przez są ale czy jego jej ten ta te tym może tylko "
    "oraz moje mój moja bez pod przy który która które dwóch kobieta mężczyzna",
    "cs": "a v na je se s z do že k o jako pro po ve ale jsou by od nebo které který která jeho jej její si tak to "
    "být bez pod při před mezi muž žena dva dvě ze ke za u moje můj",
    "tr": "ve bir bu için ile de da çok olan gibi daha en kadar ne var değil mi olarak sonra ama her ben sen biz "
    "nasıl benim o iki adam kadın",
    "ro": "și si de la în un o cu pe din nu este care pentru că mai sau sunt ce al ale cum fi lui ei am are acest "
    "această doi",
    "fi": "ja on ei se että oli mutta kun niin ovat myös hän joka tai kuin mitä minun miten sekä vain jos ole tämä",
    "hu": "a az és egy hogy nem is ez van meg csak mint de már volt vagy ki mi el még kell ha én két férfi nő",
    "id": "yang dan di dengan untuk dari ini itu adalah pada ke tidak dalam juga akan saya kita atau bisa cara "
    "seorang sedang",
    "vi": "và của là có một trong cho không với các được những người này để từ đã khi cách làm",
}
_WORDS: dict[str, list[str]] = defaultdict(list)
for _lang, _said in _FUNCTION_WORDS.items():
    for _word in dict.fromkeys(_said.split()):
        _WORDS[_word].append(_lang)

_LETTERS = {
    "de": "ßäöü", "fr": "çèêàùûœî", "es": "ñ¿¡", "it": "òì", "pt": "ãõ", "sv": "åäö", "da": "åøæ", "pl": "łżźśńćąę",
    "cs": "řěůčšžď", "tr": "ğşı", "ro": "șțăâ", "fi": "äö", "hu": "őű", "vi": "đơư",
}  # fmt: skip
_SCRIPTS = {
    "kana": r"[\p{Hiragana}\p{Katakana}]", "ko": r"\p{Hangul}", "han": r"\p{Han}", "th": r"\p{Thai}",
    "el": r"\p{Greek}", "he": r"\p{Hebrew}", "arabic": r"\p{Arabic}", "hi": r"\p{Devanagari}",
    "cyrillic": r"\p{Cyrillic}",
}  # fmt: skip
_COMPILED = {name: regex.compile(expression) for name, expression in _SCRIPTS.items()}
_LETTER, _LATIN = regex.compile(r"\p{L}"), regex.compile(r"\p{Latin}")
# Characters that Chinese writes and Japanese does not, simplified and traditional function words.
_CHINESE = frozenset(
    "的了们这个为说时对吗让过还进开关么没给从边两红头发绿蓝黄车马鸟鱼门间问在是你她他它和我很也把被着這個們妳嗎裡呢吧"
)
_SURE_SCRIPTS = ("ko", "th", "el", "he", "hi")
# Letters that Arabic, Persian and Urdu lack, or Russian and Ukrainian: Pashto, Kurdish, Kazakh, Serbian and others.
_OTHER_ARABIC = frozenset("ټډړښږڼېۍۇۆۈۋڕڵێەٻڄڇڏڳڱ")
_OTHER_CYRILLIC = frozenset("әғқңөұүһҥҗҙҡҫӗӳҳҷӣӯўђјљњћџѓќѕ")
_RUSSIAN_ONLY = frozenset({"и", "с", "что", "как", "это", "из", "от", "или", "к", "мужчина", "женщина"})
"""Not Ukrainian or Belarusian; some are Bulgarian or Serbian, which have letters and words of their own."""
_RUSSIAN = _RUSSIAN_ONLY | {"в", "не", "на", "для", "по", "у", "о", "за"}
_BULGARIAN = frozenset({"се", "са", "е", "със", "най"})
_UKRAINIAN = frozenset({"і", "на", "з", "та", "що", "для", "до", "від", "як", "у", "в"})

GUESSED = frozenset({*_FUNCTION_WORDS, *_SURE_SCRIPTS, "ja", "zh", "ar", "fa", "ur", "ru", "uk"})
"""What :func:`guess_language` can answer. Any other language it may take for a near one of these."""
# Languages too close for a guess to tell them apart for certain.
_CLOSE = ({"da", "sv"}, {"es", "pt"}, {"ar", "fa", "ur"})
_FORMER_CODES = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro"}


def guess_language(text: str) -> str | None:
    """ISO 639-1 code of the language that a normalised text is surely in, else None. Reads 500 characters at most."""
    text = text[:_LOOKED_AT_CHARACTERS].casefold()
    if text.isascii():
        return _latin(text)
    letters = len(_LETTER.findall(text))
    if len(_LATIN.findall(text)) > _MOSTLY * letters:
        return _latin(text)
    counts = {name: len(found.findall(text)) for name, found in _COMPILED.items()}
    if counts["kana"] and counts["kana"] + counts["han"] > _MOSTLY * letters:
        return "ja"
    script, most = max(counts.items(), key=lambda item: item[1])  # of equals the first, in the order above
    if most <= _MOSTLY * letters:
        return None
    if script in _SURE_SCRIPTS:
        return script if most > 1 else None
    if script == "han":
        return "zh" if not _CHINESE.isdisjoint(text) or most >= 12 else None
    if script == "arabic":
        return _arabic(text, most)
    return _cyrillic(text, most)


def language_code(lang: str | None) -> str | None:
    """The ISO 639-1 code in a language tag ("pt" of "pt-BR"), None for other ways to name a language.

    Withdrawn codes become today's: "iw" is "he".
    """
    code = (lang or "").strip().lower().replace("_", "-").partition("-")[0]
    return _FORMER_CODES.get(code, code) if len(code) == 2 and code.isalpha() else None


def other_language(text: str, lang: str | None) -> str | None:
    """The language that a normalised text is surely in, where that is not ``lang``; else None.

    None as well where ``lang`` is none of :data:`GUESSED` (Croatian would be taken for Czech), or close to the guess.
    """
    known = language_code(lang)
    if known not in GUESSED:
        return None
    guessed = guess_language(text)
    if guessed == known or any(known in close and guessed in close for close in _CLOSE):
        return None
    return guessed


def _arabic(text: str, letters: int) -> str | None:
    if not _OTHER_ARABIC.isdisjoint(text):
        return None
    if not frozenset("ٹڈڑےں").isdisjoint(text):
        return "ur"
    if not frozenset("پچژگکی").isdisjoint(text):
        return "fa"
    return "ar" if letters >= 4 else None


def _cyrillic(text: str, letters: int) -> str | None:
    if not _OTHER_CYRILLIC.isdisjoint(text):
        return None
    signs, said = frozenset(text), frozenset(folded_words(text))
    russian = not signs.isdisjoint("ыэё")
    if "і" in signs or "ї" in signs or "є" in signs or "ґ" in signs:  # і is Kazakh and Belarusian, too
        sure = not signs.isdisjoint("їєґ") or ("и" in signs and not said.isdisjoint(_UKRAINIAN))
        return "uk" if sure and not russian else None
    if russian:  # Belarusian has no и, Kyrgyz and Mongolian have none of the words
        return "ru" if "и" in signs and not said.isdisjoint(_RUSSIAN) else None
    if "ъ" in signs or signs.isdisjoint("йщьюя") or not said.isdisjoint(_BULGARIAN):
        return None  # и, на, с and у are Serbian, Macedonian and Bulgarian words, too
    sure = len(said & _RUSSIAN) > 1 and not said.isdisjoint(_RUSSIAN_ONLY)
    return "ru" if sure and letters >= 12 else None


def _latin(text: str) -> str | None:
    points = dict.fromkeys(_FUNCTION_WORDS, 0.0)
    for word in set(folded_words(text)):
        langs = _WORDS.get(word, ())
        for lang in langs:
            points[lang] += 1.0 if len(langs) == 1 else 0.5 if len(langs) <= 3 else 0.25
    if not text.isascii():
        signs = frozenset(text)
        for lang, letters in _LETTERS.items():
            points[lang] += 0.5 * len(signs.intersection(letters))
    second, most = sorted(points.values())[-2:]
    if most < _LEAST or most - second < _LEAD:
        return None
    return next(lang for lang, found in points.items() if found == most)
