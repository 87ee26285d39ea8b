"""Fixtures of the page's tests, a pytest plugin: a browser, a shop with hostile pins, and a reader over it."""

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from client_catalogue import WHEN, WordEncoder, copy_repository
from page_reader import HOSTILE, Page
from served import served
from test_client_scores import live, student

from benchmarks.browser import browser, look_through, missing
from feature_repo.aggregates import aggregate
from feature_repo.paths import RepoPaths
from feature_repo.validation import validate
from materialize.releases import publish_release
from materialize.run import RunOptions, materialize
from pinfeather.pipeline import fit_lexical
from serving_client import PinClient

NEXT_DAY = WHEN + timedelta(hours=12)


def add_pins(paths: RepoPaths) -> None:
    """Enough sofas for three pages, and two pins whose texts want to be more than text."""
    file = paths.raw / "pins" / "part.parquet"
    table = pq.read_table(file)
    table = table.append_column("safe", pa.nulls(len(table), pa.bool_()))
    rows = [
        {"pin_id": f"more{number:02}", "title": f"velvet sofa for room {number}", "lang": "fr", "country": "FR"}
        for number in range(16)
    ]
    rows += [
        {"pin_id": "hostile", "title": HOSTILE, "link_url": "javascript:window.hacked='link'", "lang": "en"},
        {"pin_id": "hostile2", "title": f"{HOSTILE} again", "description": "<b onclick=x>bold</b>", "lang": "en"},
        {"pin_id": "linked", "title": "velvet sofa with a link", "link_url": "https://example.org/sofa", "lang": "en"},
    ]
    rows[-1] |= {"created_at": NEXT_DAY, "event_timestamp": NEXT_DAY}
    for row in rows:
        row["safe"] = not row["pin_id"].startswith("hostile")
    full = [{name: None for name in table.column_names} | {"created_at": WHEN, "event_timestamp": WHEN} | row
            for row in rows]  # fmt: skip
    pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(full, schema=table.schema)]), file)


@pytest.fixture(scope="session")
def page_shop(built, tmp_path_factory) -> RepoPaths:
    """The client's catalogue with more pins and a student, for reading only."""
    paths = RepoPaths.open(copy_repository(built, tmp_path_factory.mktemp("page") / "repo"))
    add_pins(paths)
    validate(paths)
    aggregate(paths, as_of=NEXT_DAY + timedelta(hours=1))
    materialize(paths, RunOptions(encoder=WordEncoder()))
    fit_lexical(paths)
    student(live(paths)).save(paths.bundles / "made-up")
    publish_release(paths, bundle="made-up")
    return paths


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """One browser for all tests; they skip visibly where there is none."""
    if lacking := missing():
        pytest.skip(lacking)
    with browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="module")
def shop_url(page_shop):
    """The address of a service over the shop."""
    with PinClient(page_shop.root, encoder=WordEncoder()) as client, served(client) as (url, _):
        yield url


@pytest.fixture
def page(chromium, shop_url):
    """A reader of the page in a window of a desktop."""
    look_through(chromium, 1200, 900)
    return Page(chromium, shop_url)
