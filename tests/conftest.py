"""Fixtures and Hypothesis profiles shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine, so a red build is red for everyone; no deadline, because the
# first example of a kernel pays for its compilation. Hunt for new ones with
# `--hypothesis-profile=explore`.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40)
settings.register_profile("explore", deadline=None, max_examples=500, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets: `../shared/data` beside the checkout, or `LCENGINE_SHARED`."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LCENGINE_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"real data absent: no folder {folder} (set LCENGINE_SHARED to have it)")
    return folder
