"""Fixtures and Hypothesis profiles shared by all tests."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine, so a red build is red for everyone; no deadline, because the
# first example of a kernel pays for its compilation. Hunt for new ones with
# `--hypothesis-profile=explore`.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40)
settings.register_profile("explore", deadline=None, max_examples=500, print_blob=True)
settings.load_profile("ci")

LONG = {
    "test_methods_product.py": 260,
    "test_readme.py": 230,
    "test_interrupt.py": 120,
    "test_composite.py": 110,
    "test_kills.py": 110,
    "test_composite_product.py": 100,
    "test_runs.py": 90,
    "test_periods_product.py": 80,
    "test_plan.py": 75,
    "test_cli_recovery.py": 70,
    "test_siege.py": 70,
    "test_cli.py": 60,
    "test_http_faults.py": 50,
    "test_pixel_models_memory.py": 45,
    "test_simulate.py": 45,
    "test_maps_engine.py": 35,
    "test_ssh.py": 33,
    "test_evaluate.py": 32,
    "test_export.py": 29,
    "test_predict.py": 28,
    "test_contract.py": 25,
    "test_predict_cli.py": 25,
    "test_train_run.py": 25,
    "test_trees_fit.py": 25,
}
"""Modules that take long: seconds of a core, what they compile included. A new one of more than
twenty-five belongs here."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules start first, so that at the end no process waits for another.

    A module is the unit of `--dist loadfile`; `--no-loadscope-reorder` keeps this order.
    """
    items.sort(key=lambda item: -LONG.get(item.path.name, 0))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets: `../shared/data` beside the checkout, or `LCENGINE_SHARED`."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LCENGINE_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"real data absent: no folder {folder} (set LCENGINE_SHARED to have it)")
    return folder


@pytest.fixture(scope="session")
def flanders(shared_data: Path) -> Path:
    """Real imagery of two years with labels."""
    folder = shared_data / "flanders-2018"
    if not folder.is_dir():
        pytest.skip(f"real data absent: no folder {folder}")
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """`lcengine …` in this process: (exit code, stdout, stderr)."""
    from lcengine import cli

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["lcengine", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return stop.value.code or 0, said.out, said.err

    yield command
    signal.signal(signal.SIGTERM, before)
