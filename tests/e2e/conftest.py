"""What tests of whole commands share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..browser import CHROMIUM, Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()
