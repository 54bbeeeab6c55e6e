"""The API page leaves nothing of the recorder and of the integrations out."""

from __future__ import annotations

from pathlib import Path

import pytest

from seeknal import tracking
from seeknal.integrations import dbt

API = Path(__file__).resolve().parents[2] / "docs" / "reference" / "api.md"


@pytest.mark.parametrize("module", [tracking, dbt], ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_api_page(module):
    page = API.read_text()
    assert [name for name in module.__all__ if f"`{name}" not in page] == []
