"""Board titles and link texts computed row by row in plain Python, to compare the aggregates with."""

import math
import re
from collections import Counter, defaultdict
from datetime import UTC

from feature_repo.aggregates.link_gate import refusals
from feature_repo.screening import Purpose, Screening
from feature_repo.text import normalise

GENERIC_OF_WORLDS = {"my stuff", "to read"}


def title_key(title):
    """A title without case, emoji and punctuation; of the scripts that the worlds write."""
    plain = re.sub(r"[️⃣'’]", "", title).casefold()
    return " ".join(re.findall(r"[^\W_]+", re.sub(r"([一-鿿])", r" \1 ", plain)))


def expected_boards(pins, saves, min_users, as_of, limits=None, screened=None):
    """Rows of ``pin_board_titles``; counts of what is left out go to ``screened``."""
    screening = Screening()
    limits, screened = limits or screening.limits, Counter() if screened is None else screened
    known = [row for row in saves if row["saved_at"] <= as_of]
    secret = {row["board_id"] for row in known if row["secret"]}
    a_day = defaultdict(set)
    for row in known:
        a_day[row["user_id"], row["saved_at"].astimezone(UTC).date()].add(
            (row["board_id"], row["pin_id"], row["saved_at"])
        )
    said = []
    for row in (row for row in known if row["pin_id"] in pins):
        if _stands(row, known, secret, as_of) and row["board_title"] is not None:
            reason = _left_out(row, pins[row["pin_id"]], a_day, limits, screening)
            if reason:
                screened[reason] += 1
            else:
                said.append(row)
    said = _capped(said, limits.max_titles_per_user_and_pin, screened)
    ranked = _ranked(said, min_users)
    rows = []
    for name, moment in _times(known, as_of).items():
        if name in pins:
            titles = [found[-1] for found in sorted(ranked[name])[:10]]
            rows.append(
                {"pin_id": name, "board_titles": titles, "event_timestamp": moment, "created_timestamp": moment}
            )
    return rows


def _stands(row, known, secret, as_of):
    """Whether the save is neither secret nor taken back."""

    def gone(other):
        return other["removed_at"] and other["removed_at"] <= as_of

    place = ("board_id", "pin_id", "user_id")
    removed = any(
        gone(other) and other["removed_at"] >= row["saved_at"] and all(other[name] == row[name] for name in place)
        for other in known
    )
    return not (gone(row) or row["board_id"] in secret or removed)


def _left_out(row, pin, a_day, limits, screening):
    if len(a_day[row["user_id"], row["saved_at"].astimezone(UTC).date()]) > limits.max_saves_a_day:
        return "too many saves of a user in a day"
    born = pin.get("created_at")
    if born and (born - row["saved_at"]).total_seconds() > limits.early_seconds:
        return "before the pin was created"
    reason = screening.reason(normalise(row["board_title"]), Purpose.BOARD_TITLE)
    return reason and f"title: {reason}"


def _capped(said, most, screened):
    first = defaultdict(dict)
    for row in said:
        keys = first[row["pin_id"], row["user_id"]]
        key = title_key(row["board_title"])
        keys[key] = min(keys.get(key, row["saved_at"]), row["saved_at"])
    allowed = {place: sorted(keys, key=lambda key: (keys[key], key))[:most] for place, keys in first.items()}
    kept = [row for row in said if title_key(row["board_title"]) in allowed[row["pin_id"], row["user_id"]]]
    if len(kept) < len(said):
        screened["too many titles of a user on a pin"] += len(said) - len(kept)
    return kept


def _ranked(said, min_users):
    users, spelled = defaultdict(set), defaultdict(lambda: defaultdict(set))
    anywhere = defaultdict(set)
    for row in said:
        title = normalise(row["board_title"])
        users[row["pin_id"], title_key(title)].add(row["user_id"])
        spelled[row["pin_id"], title_key(title)][title].add(row["user_id"])
        anywhere[title].add(row["user_id"])
    with_word, with_title = defaultdict(set), defaultdict(set)
    for name, key in users:
        with_title[key].add(name)
        for word in key.split():
            with_word[word].add(name)
    total = len({name for name, _ in users})
    ranked = defaultdict(list)
    for (name, key), people in users.items():
        if len(people) < min_users:
            continue
        found = spelled[name, key]
        title = min(found, key=lambda text: (-len(found[text]), -len(anywhere[text]), text))
        logs = [math.log((len(with_word[word]) + 1) / (total + 1)) for word in sorted(set(key.split()))]
        rarity = (sum(logs) / len(logs) + math.log((len(with_title[key]) + 1) / (total + 1))) / 2
        score = (rarity - 0.5 * math.log(len(people))) * (0.25 if key in GENERIC_OF_WORLDS else 1)
        ranked[name].append((round(score * 1e6), -len(title_key(title).split()), -len(title), title))
    return ranked


def _times(known, as_of):
    parts = defaultdict(list)
    for row in known:
        gone = row["removed_at"] if row["removed_at"] and row["removed_at"] <= as_of else row["saved_at"]
        parts[row["pin_id"], row["board_id"]].append((row["secret"], max(row["saved_at"], gone)))
    times = {}
    for (name, _), found in parts.items():
        if not all(hidden for hidden, _ in found):
            latest = max(moment for _, moment in found)
            times[name] = max(latest, times.get(name, latest))
    return times


def expected_links(pins, root=None):
    """Rows of ``pin_link_text``, by the packaged rules or those in ``root``."""
    screening = Screening.load(root) if root else Screening()
    rows = []
    for name, row in pins.items():
        texts = {column: row.get(column) for column in ("link_url", "link_title", "link_description")}
        if any(text is not None for text in texts.values()):
            about = (row.get("title"), row.get("description"), row.get("lang"), row.get("link_url"))
            for field, _ in refusals(screening, texts["link_title"], texts["link_description"], *about):
                texts[field] = None
            fetched = row.get("link_fetched_at")
            moment = fetched or row["event_timestamp"]
            rows.append({"pin_id": name} | texts | {"event_timestamp": moment, "created_timestamp": moment})
    return rows
