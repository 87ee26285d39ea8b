"""The service under requests that nobody thought of: from its OpenAPI document, and from arguments of every kind."""

import pytest
import schemathesis
from client_catalogue import WordEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance
from served import KEY, KEYS, in_process, served

from feature_repo.errors import PinfeatherError
from serving_client import PinClient
from serving_client.http.routes_state import STATE_PATHS
from serving_client.http.settings import Settings
from serving_client.methods import served_methods

pytest_plugins = ("client_repo",)
REFUSALS = {"expected-statuses": ["400", "401", "404", "405", "413", "415", "422"]}
LATE = {"expected-statuses": ["2xx", "3xx", "4xx", "504"]}  # cases may ask for a deadline of 1 ms
CHECKS = {"negative_data_rejection": REFUSALS, "not_a_server_error": LATE}
CONFIG = SchemathesisConfig.from_dict({"checks": CHECKS})
ANY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def pins(built):
    with PinClient(built, encoder=WordEncoder()) as client:
        yield client


@pytest.fixture(scope="module")
def document(pins):
    """Sends a case of an operation to the real service, and checks the answer by the service's own document."""
    with served(pins, Settings(KEYS, max_candidates=50)) as (url, _):
        key = {"X-Api-Key": KEY}
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=key, config=CONFIG)

        def check(data, verb, path):
            mode = data.draw(st.sampled_from(GenerationMode))
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
@settings(max_examples=150, **ANY)
def test_the_document_is_kept_thoroughly(document, verb, path, data):
    document(data, verb, path)


KNOWN = ["", "sofa0", "fern1", "twin", "velvet sofa", "\x00", "ﷺ" * 300, "../../x"]
texts = st.text(max_size=12) | st.sampled_from(KNOWN)
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


@given(calls())
@settings(max_examples=100, **ANY)
def test_the_service_never_fails_at_a_body(pins, call):
    method, arguments = call
    http = http_of(pins)
    try:
        answer = http.request(method.verb, method.path, json=arguments)
    except ValueError:  # httpx writes no NaN
        return
    assert answer.status_code in (200, 400, 413, 422), (arguments, answer.text)
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


_services = {}


def http_of(pins):
    """One service for all examples."""
    if pins not in _services:
        _services[pins] = in_process(pins, Settings(max_candidates=50))
    return _services[pins]
