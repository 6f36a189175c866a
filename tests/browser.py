"""Chromium as the tests drive it: the system's, headless, with a camera that is made up.

`chromium` is a fixture; `tests/conftest.py` hands it out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)


@pytest.fixture(scope="module")  # for longer, its event loop would be in the way of others
def chromium() -> Iterator[Any]:
    """A running Chromium, for `new_page`; tests that need it are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium here: `make browser` installs it on Debian")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield running
        running.close()


def confine(page: Any, *sites: str) -> Sequence[str]:
    """Let a page reach these sites alone; what it asks of others is refused and listed here."""
    refused: list[str] = []

    def decide(route: Any) -> None:
        if route.request.url.startswith((*sites, "data:", "blob:")):
            route.continue_()
        else:
            refused.append(route.request.url)
            route.abort()

    page.route("**/*", decide)
    return refused
