"""A browser for tests: what a page asks for, what its console says, and how wide it is."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


@dataclass
class Seen:
    """What happened while a page was open."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextmanager
def opened(address: str, *, width: int = 1280, scheme: str = "light", **more: Any) -> Iterator[tuple[Any, Seen]]:
    """The page at `address`, once nothing is loading, and what was seen."""
    from playwright.sync_api import sync_playwright

    seen = Seen()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, **more)
        page.on("request", lambda one: seen.requests.append(one.url))
        page.on("console", lambda one: seen.complaints.append(f"{one.type}: {one.text}"))
        page.on("pageerror", lambda one: seen.complaints.append(str(one)))
        page.on("dialog", lambda one: (seen.complaints.append(one.message), one.dismiss()))
        page.goto(address)
        page.wait_for_load_state("networkidle")
        yield page, seen
        browser.close()


def elsewhere(seen: Seen, address: str) -> list[str]:
    """What was asked for but the page itself."""
    return [one for one in seen.requests if one != address and not one.startswith(("data:", "blob:"))]
