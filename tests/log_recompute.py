"""What the search log should give, computed row by row in plain Python."""

from collections import Counter, defaultdict
from datetime import timedelta

import numpy as np

from feature_repo.screening import Purpose, Screening
from feature_repo.text import canonical_query


def stamps(moment):
    return {"event_timestamp": moment, "created_timestamp": moment}


def rate(count, prior, impressions):
    return float(np.float32((count + prior) / (impressions + 20)))


def visits_of(rows):
    """One fact of each (request, user, query, pin)."""
    visits = defaultdict(list)
    for row in rows:
        visits[row["request_id"], row["user_id"], canonical_query(row["query"]), row["pin_id"]].append(row)
    return [fact(*key, found) for key, found in visits.items()]


def fact(request, user, query, name, rows):
    clicks = [row for row in rows if row["action"] in ("click", "long_click")]
    latest = max(row["event_timestamp"] for row in rows)
    return {
        "request": request,
        "user": user,
        "query": query,
        "pin": name,
        "click": bool(clicks),
        "long": any(
            (row["dwell_s"] or 0) > 10 or (row["action"] == "long_click" and row["dwell_s"] is None) for row in clicks
        ),
        "save": any(row["action"] == "save" for row in rows),
        "lang": min((row["lang"] for row in rows if row["lang"] is not None), default=None),
        "t": latest,
        "day": latest.date(),
        "rows": len(rows),
    }


def fate(found, pins, bots, screening):
    """Why a visit counts nowhere; empty for one to no pin, None for one that counts."""
    if found["pin"] not in pins:
        return ""
    if not found["query"]:
        return "no text"
    if reason := screening.reason(found["query"], Purpose.QUERY):
        return reason
    created = pins[found["pin"]].get("created_at")
    if created and found["t"] < created - timedelta(seconds=screening.limits.early_seconds):
        return "before the pin was created"
    return "too many visits of a user in a day" if (found["user"], found["day"]) in bots else None


def expected_log(tables, pins, min_users, as_of, window, screening=None):
    """The four views of the log, and the rows that were screened, by reason."""
    screening = screening or Screening()
    visits = visits_of(row for row in tables["search_log"] if row["event_timestamp"] <= as_of)
    days = Counter((found["user"], found["day"]) for found in visits)
    bots = {key for key, count in days.items() if count > screening.limits.max_visits_a_day}
    present, facts, screened = [], [], Counter()
    for found in visits:
        why = fate(found, pins, bots, screening)
        if why != "":
            present.append(found)
        if why:
            screened[why] += found["rows"]
        if why is None and found["t"] >= as_of - timedelta(days=window):
            facts.append(found)
    topics = pin_topics(tables.get("pin_topics", []), as_of)
    return {
        "pin_engagement": engagement_rows(present, facts),
        "pin_engaged_queries": engaged_rows(present, facts, min_users),
        **query_rows(facts, min_users, topics),
    }, dict(screened)


def counts(facts):
    return {
        "impressions": len(facts),
        "clicks": sum(found["click"] for found in facts),
        "long_clicks": sum(found["long"] for found in facts),
        "saves": sum(found["save"] for found in facts),
    }


def rates(found):
    return {
        "click_rate": rate(found["clicks"], 1.0, found["impressions"]),
        "save_rate": rate(found["saves"], 0.4, found["impressions"]),
    }


def engagement_rows(present, facts):
    rows = []
    for name in {found["pin"] for found in present}:
        found = counts([one for one in facts if one["pin"] == name])
        latest = max(one["t"] for one in present if one["pin"] == name)
        rows.append({"pin_id": name} | found | rates(found) | stamps(latest))
    return rows


def engaged_rows(present, facts, min_users):
    rows = []
    engaged = [one for one in present if one["click"] or one["save"]]
    for name in {one["pin"] for one in engaged}:
        best, people, scores = {}, defaultdict(set), Counter()
        for one in facts:
            if one["pin"] == name and (one["click"] or one["save"]):
                key = one["query"], one["user"], one["day"]
                best[key] = max(best.get(key, 0), one["click"] + one["long"] + 3 * one["save"])
                people[one["query"]].add(one["user"])
        for (query, _, _), earned in best.items():
            scores[query] += earned
        kept = sorted((-score, query) for query, score in scores.items() if len(people[query]) >= min_users)[:20]
        latest = max(one["t"] for one in engaged if one["pin"] == name)
        rows.append({"pin_id": name, "engaged_queries": [query for _, query in kept]} | stamps(latest))
    return rows


def query_rows(facts, min_users, topics):
    queries = defaultdict(list)
    for found in facts:
        queries[found["query"]].append(found)
    asked = {q: found for q, found in queries.items() if len({one["user"] for one in found}) >= min_users}
    searches = {query: len({one["request"] for one in found}) for query, found in asked.items()}
    before, stats, pairs = 0, [], []
    for query in sorted(asked, key=lambda query: (-searches[query], query)):
        found = asked[query]
        share = before / sum(searches.values())
        langs = Counter(one["lang"] for one in found if one["lang"] is not None)
        row = {"query": query, "searches": searches[query]} | counts(found)
        del row["long_clicks"]
        row["users"] = len({one["user"] for one in found})
        row["lang"] = min(langs, key=lambda lang: (-langs[lang], lang), default=None)
        row["band"] = "head" if share < 0.5 else "torso" if share < 0.8 else "tail"
        interests, moment = interests_of(found, topics)
        stats.append(row | interests | stamps(max([*(one["t"] for one in found), *moment])))
        before += searches[query]
        for name in {one["pin"] for one in found}:
            mine = [one for one in found if one["pin"] == name]
            engaged = rate(sum(one["click"] or one["save"] for one in mine), 1.0, len(mine))
            row = {"query": query, "pin_id": name} | counts(mine) | {"engagement_rate": engaged} | rates(counts(mine))
            pairs.append(row | stamps(max(one["t"] for one in mine)))
    return {"query_stats": stats, "query_pin_engagement": pairs}


def pin_topics(rows, as_of):
    """Of each pin the parts per million of its topics, as last delivered."""
    known = defaultdict(list)
    for row in rows:
        if row["event_timestamp"] <= as_of:
            known[row["pin_id"]].append(row)
    topics = {}
    for name, mine in known.items():
        latest = max(row["event_timestamp"] for row in mine)
        weights = {}
        for row in mine:
            if row["event_timestamp"] == latest:
                weights[row["topic"]] = max(weights.get(row["topic"], 0), row["weight"])
        top = max(weights.values())
        parts = {topic: round(weight / top * 1e6) for topic, weight in weights.items() if weight > 0}
        topics[name] = ({topic: part * 10**6 // sum(parts.values()) for topic, part in parts.items()}, latest)
    return topics


def interests_of(found, topics):
    sums, moments = Counter(), []
    for one in found:
        if (one["click"] or one["save"]) and one["pin"] in topics and topics[one["pin"]][0]:
            parts, moment = topics[one["pin"]]
            sums.update(parts)
            moments.append(moment)
    kept = sorted(+sums, key=lambda topic: (-sums[topic], topic))[:5]
    shares = [float(np.float32(sums[topic] / sum(sums.values()))) for topic in kept]
    return {"interests": kept, "interest_shares": shares}, moments
