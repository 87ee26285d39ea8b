"""The service under requests that nobody thought of: from its OpenAPI document, and from arguments of every kind."""

import base64
import json

import pytest
import xxhash
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from served import KEY, KEYS, in_process, served

from feature_repo.errors import PinfeatherError
from serving_client.answers import Embeddings
from serving_client.http.routes_state import STATE_PATHS
from serving_client.http.settings import Settings
from serving_client.http.wire import ARROW, JSON, from_arrow
from serving_client.methods import served_methods

pytest_plugins = ("client_repo", "service_fixtures")
REFUSALS = {"expected-statuses": ["400", "401", "404", "405", "413", "415", "422"]}
LATE = {"expected-statuses": ["2xx", "3xx", "4xx", "504"]}  # cases may ask for a deadline of 1 ms
CHECKS = {"negative_data_rejection": REFUSALS, "not_a_server_error": LATE}
ANY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def document(pins):
    """Sends a case of an operation to the real service, and checks the answer by the service's own document."""
    import schemathesis  # takes seconds
    from schemathesis.config import SchemathesisConfig
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    config = SchemathesisConfig.from_dict({"checks": CHECKS})
    with served(pins, Settings(KEYS, max_candidates=50)) as (url, _):
        key = {"X-Api-Key": KEY}
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=key, config=config)

        def check(data, verb, path):
            mode = data.draw(st.sampled_from(schemathesis.GenerationMode))
            case = data.draw(schema[path][verb].as_strategy(generation_mode=mode))
            # What the document allows may name a space or a cursor that is not there, so a 400 is no fault.
            case.call_and_validate(headers=key, excluded_checks=[positive_data_acceptance])

        yield check


PATHS = [(method.verb, method.path) for method in served_methods().values()]
PATHS += [("GET", path) for path in STATE_PATHS]


@pytest.mark.parametrize(("verb", "path"), PATHS)
@given(st.data())
@settings(max_examples=6, derandomize=True, **ANY)
def test_the_document_is_kept(document, verb, path, data):
    """No 500, no status, media type or key that the document does not name, nothing without the key."""
    document(data, verb, path)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "path"), PATHS)
@given(st.data())
@settings(max_examples=150, phases=[Phase.generate], **ANY)  # over HTTP, making a case smaller takes minutes
def test_the_document_is_kept_thoroughly(document, verb, path, data):
    document(data, verb, path)


KNOWN = ["", "sofa0", "fern1", "twin", "velvet sofa", "\x00", "ﷺ" * 300, "../../x"]
texts = st.text(st.characters(), max_size=12) | st.sampled_from(KNOWN)  # halves of characters, which are no UTF-8, too
numbers = st.integers(-3, 60) | st.floats() | st.just(10**30)
lists = st.lists(texts | numbers, max_size=3)
odd = st.none() | st.booleans() | numbers | texts | lists | st.dictionaries(texts, texts, max_size=2)
TIMES = ["2026-01-01", "2026-99-01", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"]
SPECIFIC = {
    "scorer": st.sampled_from(["student", "zero-shot", "bm25"]),
    "retrieval": st.sampled_from(["hybrid", "vector", "lexical"]),
    "space": st.sampled_from(["live", "pin_student_embedding", ""]),
    "service": st.sampled_from(["pin_content_v1", "relevance_v1", "query_stats_v1"]),
    "limit": st.integers(1, 40),
    "candidates": st.integers(1, 40),
    "created_after": st.sampled_from(TIMES),
}


def argument(name, hint):
    """Mostly what fits the parameter, now and then anything."""
    batch = "Sequence[str]" in str(hint) or "Iterable" in str(hint) or name in ("boards", "ids")
    fitting = SPECIFIC.get(name, st.lists(texts, max_size=4) if batch else texts)
    if hint in (float, bool):
        fitting = st.floats(0, 1) if hint is float else st.booleans()
    return st.one_of(fitting, fitting, fitting, odd)


@st.composite
def calls(draw):
    """A method and its arguments."""
    method = draw(st.sampled_from(list(served_methods().values())))
    required = [name for name, each in method.parameters.items() if each.default is each.empty]
    others = [name for name in method.parameters if name not in required]
    chosen = required + (draw(st.lists(st.sampled_from(others), unique=True, max_size=4)) if others else [])
    return method, {name: draw(argument(name, method.hints[name])) for name in chosen}


@given(calls())
@settings(max_examples=150, **ANY)
def test_the_client_answers_or_says_what_is_wrong(pins, call):
    """Arguments of the declared types at least: others may raise TypeError or ValueError where they are first used."""
    method, arguments = call
    try:
        getattr(pins, method.name)(**arguments)
    except PinfeatherError as error:
        assert str(error)
    except (TypeError, ValueError, AttributeError, OverflowError):
        assert not fits(arguments)


def fits(arguments):
    """Whether every argument is of a type that its parameter takes, as far as its value shows."""
    words = ("query", "pin_id", "space", "cursor")
    return all(isinstance(value, str) for name, value in arguments.items() if name in words)


@given(calls(), st.sampled_from([JSON, ARROW]))
@settings(max_examples=100, **ANY)
def test_the_service_never_fails_at_a_body(pins, call, media):
    method, arguments = call
    content = json.dumps(arguments)  # in ASCII, with NaN and halves of characters as Python writes them
    headers = {"Content-Type": JSON, "Accept": media}
    answer = http_of(pins).request(method.verb, method.path, content=content, headers=headers)
    assert answer.status_code in (200, 400, 413, 422), (arguments, answer.text)
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]
    elif answer.headers["content-type"] == ARROW:
        assert method.answer is Embeddings
        assert len(from_arrow(answer.content).ids) == len(next(iter(arguments.values())))


ASKED = {"query": "velvet sofa", "limit": 2}
places = st.none() | st.booleans() | numbers | texts | lists


@given(
    parts=st.dictionaries(st.integers(0, 7), places, max_size=4),
    more=lists,
    damage=st.none() | st.tuples(st.integers(0, 99), st.characters(max_codepoint=300)),
)
@settings(max_examples=150, **ANY)
def test_no_forged_cursor_fails_or_shows_more_than_the_search(pins, parts, more, damage):
    """Nothing but a digest of their content protects cursors, so that whoever reads the code can write any."""
    whole = {hit.pin_id for hit in pins.search(**ASKED | {"limit": 40}).hits}
    content = base64.urlsafe_b64decode(pins.search(**ASKED).next_cursor + "==")[8:]
    body = [parts.get(place, value) for place, value in enumerate(json.loads(content))] + more
    content = json.dumps(body).encode()
    cursor = base64.urlsafe_b64encode(xxhash.xxh3_64_digest(content) + content).decode().rstrip("=")
    if damage:
        at = damage[0] % len(cursor)
        cursor = cursor[:at] + damage[1] + cursor[at + 1 :]
    content = json.dumps({**ASKED, "cursor": cursor})
    answer = http_of(pins).post("/v1/search", content=content, headers={"Content-Type": JSON})
    assert answer.status_code in (200, 400, 422), (body, answer.text)  # 422: longer than cursors are
    if answer.status_code == 200:
        shown = [hit["pin_id"] for hit in answer.json()["hits"]]
        assert len(shown) <= ASKED["limit"]
        assert set(shown) <= whole


_services = {}


def http_of(pins):
    """One service for all examples."""
    if pins not in _services:
        _services[pins] = in_process(pins, Settings(max_candidates=50))
    return _services[pins]
