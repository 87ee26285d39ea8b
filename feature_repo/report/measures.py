"""One row of small numbers per pin, made by DuckDB out of the view sources without holding a text in memory.

Texts are folded and counted as :mod:`feature_repo.text` does, in SQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feature_repo.aggregates.schemas import VIEW_SCHEMAS
from feature_repo.aggregates.session import parquet
from feature_repo.errors import PinfeatherError
from feature_repo.leftovers import scratch_folder
from feature_repo.paths import RepoPaths
from feature_repo.pin_text import FIELDS, LIST_FIELDS, PinTextTemplate
from feature_repo.switchboard import SOURCES

if TYPE_CHECKING:
    import duckdb

MEMORY = "1GB"
"""What DuckDB may hold; beyond it spills to disk."""

VIEW_OF: Mapping[str, str] = {
    "title": "pin_text",
    "description": "pin_text",
    "caption": "pin_captions",
    "link_title": "pin_link_text",
    "link_description": "pin_link_text",
    "board_titles": "pin_board_titles",
    "engaged_queries": "pin_engaged_queries",
}
"""Field of the pin text to the view that has it under the same name."""

BANDS: tuple[tuple[str, float], ...] = (
    ("under 1 week", 7),
    ("1-4 weeks", 28),
    ("1-3 months", 91),
    ("3-12 months", 365),
    ("1-2 years", 730),
    ("over 2 years", float("inf")),
)
"""Age bands of a pin: name, and the age in days below which a pin is in it."""

UNKNOWN = "unknown"
"""Language or age band of a pin whose table does not tell."""

_DAY = 86_400 * 10**6
_SCRIPTS = "".join(rf"\p{{{name}}}" for name in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"))
_UNSEEN = (
    r"[\x{ad}\x{61c}\x{180e}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2064}\x{2066}-\x{206f}\x{feff}"
    r"\x{fff9}-\x{fffb}]"
)
_MACROS = (
    # feature_repo.text.normalise
    rf"""CREATE TEMP MACRO folded(t) AS CASE WHEN t IS NULL THEN '' WHEN strlen(t) = length(t)
         THEN trim(CASE WHEN regexp_matches(t, '[\x00-\x1f\x7f]|  ')
           THEN regexp_replace(t, '[\x00-\x20\x7f]+', ' ', 'g') ELSE t END)
         ELSE trim(nfc_normalize(regexp_replace(
           regexp_replace(t, '{_UNSEEN}', '', 'g'), '[\s\p{{Z}}\x00-\x1f\x7f-\x9f]+', ' ', 'g'))) END""",
    # feature_repo.text.words: each character of a script without spaces is a word
    rf"""CREATE TEMP MACRO counted(t) AS len(regexp_extract_all(CASE WHEN strlen(t) = length(t) THEN t
         ELSE regexp_replace(t, '([{_SCRIPTS}]\p{{M}}*)', ' \1 ', 'g') END, '[\p{{L}}\p{{M}}\p{{N}}]+'))""",
)


@contextmanager
def measured(paths: RepoPaths, template: PinTextTemplate, as_of: int | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the tables ``measured``, one row per pin, ``events``, the age in days of each row of each view,
    and ``taken``, the moment that ages count from.

    ``measured`` has pin (64-bit hash of its id), lang, band, has_<source> for every source of the switchboard,
    words_<field>, words (of the cut text), truncated, and hashes: text (of the fields before a budget cuts them),
    caption, image; NULL where there is none.

    :param as_of: microseconds since 1970 that ages count from; None takes the latest event of any view.
    :raises PinfeatherError: if a view source is missing or cannot be read.
    """
    import duckdb

    files = {view: paths.views / f"{view}.parquet" for view in VIEW_SCHEMAS}
    if absent := [str(path) for path in files.values() if not path.is_file()]:
        raise PinfeatherError(f"{absent[0]} does not exist yet: run `pinfeather aggregate --repo {paths.root}` first.")
    with scratch_folder(paths.data, "report") as spill:
        con = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": str(spill)})
        try:
            con.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false; SET enable_progress_bar = false")
            for macro in _MACROS:
                con.execute(macro)
            sources = {view: parquet([path]) for view, path in files.items()}
            moment = latest_event(con, sources) if as_of is None else as_of
            con.execute(f"CREATE TEMP TABLE taken AS SELECT {moment}::BIGINT AS moment")
            con.execute(_events(sources, moment))
            con.execute(_measures(sources, template, moment))
            yield con
        except duckdb.Error as error:
            raise PinfeatherError(
                f"The views of {paths.root} cannot be read (DuckDB: {str(error).strip()}). Run `pinfeather aggregate`, "
                "which writes them anew; for want of memory or disk give it more."
            ) from error
        finally:
            con.close()


def latest_event(con: duckdb.DuckDBPyConnection, sources: Mapping[str, str]) -> int:
    """Microseconds of the latest event of any view, 0 without any."""
    each = " UNION ALL ".join(
        f"SELECT max(epoch_us(event_timestamp)) AS t FROM {source}" for source in sources.values()
    )
    return int((con.execute(f"SELECT coalesce(max(t), 0) FROM ({each})").fetchone() or (0,))[0])


def _events(sources: Mapping[str, str], moment: int) -> str:
    each = " UNION ALL ".join(
        f"SELECT '{view}' AS view, (({moment} - epoch_us(event_timestamp)) / {_DAY})::FLOAT AS age FROM {source}"
        for view, source in sources.items()
    )
    return f"CREATE TEMP TABLE events AS {each}"


def _measures(sources: Mapping[str, str], template: PinTextTemplate, moment: int) -> str:
    """SQL that makes ``measured``: every view becomes words and hashes before it is joined."""
    joins: list[str] = []
    for view in dict.fromkeys(VIEW_OF.values()):
        fields = [field for field in FIELDS if VIEW_OF[field] == view]
        texts = ", ".join(f"folded({_text(field)}) AS {field}" for field in fields)
        small = ", ".join(
            f"counted({field})::INT AS n_{field}, CASE WHEN {field} <> '' THEN hash({field}) END AS h_{field}"
            for field in fields
        )
        more = "".join(f", {name}" for name in ("lang", "created_at", "image_sha256")) if view == "pin_text" else ""
        part = f"(SELECT pin_id{more}, {small} FROM (SELECT pin_id{more}, {texts} FROM {sources[view]})) AS {view}"
        joins.append(part if not joins else f"LEFT JOIN {part} USING (pin_id)")
    joins.append(f"LEFT JOIN (SELECT pin_id, TRUE AS seen FROM {sources['pin_engagement']}) AS engaged USING (pin_id)")
    has = {
        name: " OR ".join(f"h_{field} IS NOT NULL" for field in source.fields) or "coalesce(seen, FALSE)"
        for name, source in SOURCES.items()
    }
    rules = {rule.name: rule.budget for rule in template.rules}
    age = f"(({moment} - epoch_us(created_at)) / {_DAY})"
    bands = " ".join(f"WHEN {age} < {below} THEN '{name}'" for name, below in BANDS[:-1])
    columns = [
        "md5_number_lower(pin_id) AS pin",
        f"coalesce(nullif(trim(lang), ''), '{UNKNOWN}') AS lang",
        f"CASE WHEN created_at IS NULL THEN '{UNKNOWN}' {bands} ELSE '{BANDS[-1][0]}' END AS band",
        *(f"({condition}) AS has_{name}" for name, condition in has.items()),
        *(f"coalesce(n_{field}, 0) AS words_{field}" for field in FIELDS),
        " + ".join(f"least(coalesce(n_{field}, 0), {budget})" for field, budget in rules.items()) + " AS words",
        "(" + " OR ".join(f"coalesce(n_{field}, 0) > {budget}" for field, budget in rules.items()) + ") AS truncated",
        f"CASE WHEN coalesce({', '.join(f'h_{field}' for field in rules)}) IS NOT NULL "
        f"THEN hash({', '.join(f'h_{field}' for field in rules)}) END AS text",
        "h_caption AS caption",
        "CASE WHEN image_sha256 <> '' THEN hash(image_sha256) END AS image",
    ]
    return f"CREATE TEMP TABLE measured AS SELECT {', '.join(columns)} FROM {' '.join(joins)}"


def _text(field: str) -> str:
    # Whole lists as one text; the mark between two items is no word.
    return f"array_to_string(list_sort({field}), ' | ')" if field in LIST_FIELDS else field
