"""The pictures of the web page in the README, taken of the real service in headless Chromium.

    apt-get install chromium chromium-driver
    pinfeather demo --pins 1500 --dir build/demo
    python -m benchmarks.screenshots --repo build/demo

They go to docs/screenshots/. The generated catalogue has no pictures of its own, so the page draws some.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.browser import browser, look_through, missing
from feature_repo.errors import PinfeatherError

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "screenshots"
QUERY = "desk setup"
_SECONDS = 30


@dataclass(frozen=True)
class Picture:
    """One picture: an address, a window, and what is done before it is taken."""

    name: str
    address: str
    width: int
    height: int
    ready: str
    """CSS selector of what must be there."""
    press: str | None = None
    """CSS selector of what is pressed then."""
    then: str | None = None
    """CSS selector of what must be there after that."""
    dark: bool = False
    phone: bool = False


PICTURES = (
    Picture("search", "", 1200, 860, ".pin", ".why summary", ".why[open]"),
    Picture("compare", "&compare=yes&scorer=student&scorer2=bm25", 1200, 860, ".column + .column .pin"),
    Picture("related", "", 1200, 860, ".pin", "[data-related]", "dialog .pin", dark=True),
    Picture("phone", "", 360, 740, ".pin", phone=True),
)


def take(driver: Chrome, origin: str, picture: Picture) -> bytes:
    """The PNG of a picture."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def wait(selector: str) -> None:
        found: Callable[[Chrome], object] = lambda page: page.find_elements(By.CSS_SELECTOR, selector)  # noqa: E731
        WebDriverWait(driver, _SECONDS).until(found, f"no {selector} in the page of {picture.name}")

    look_through(driver, picture.width, picture.height, dark=picture.dark, phone=picture.phone)
    driver.get(f"{origin}/?q={QUERY.replace(' ', '+')}{picture.address}")
    wait(picture.ready)
    wait("#status dl")
    if picture.press and picture.then:
        driver.find_element(By.CSS_SELECTOR, picture.press).click()
        wait(picture.then)
    content: bytes = driver.get_screenshot_as_png()
    return content


@contextmanager
def service(repo: Path) -> Iterator[str]:
    """The address of a service over ``repo``, run in a thread."""
    from serving_client import PinClient
    from serving_client.http.app import create_app
    from serving_client.http.server import Server, address_of, listen

    with PinClient(repo) as client:
        opened = listen("127.0.0.1", 0)
        server = Server(create_app(client), drain_delay=0, drain_seconds=5)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        try:
            yield address_of(opened)
        finally:
            server.should_exit = True
            thread.join()


def main() -> None:
    """Take every picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True, help="a repository that is ready to serve, as a demo's")
    parser.add_argument("--only", choices=[picture.name for picture in PICTURES], help="take this one alone")
    options = parser.parse_args()
    if lacking := missing():
        raise PinfeatherError(f"No pictures without a browser: {lacking}.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, service(options.repo) as origin, browser(Path(folder)) as driver:
        for picture in PICTURES:
            if options.only in (None, picture.name):
                content = take(driver, origin, picture)
                (FOLDER / f"{picture.name}.png").write_bytes(content)
                print(f"{picture.name}.png, {len(content):,} bytes")


if __name__ == "__main__":
    main()
