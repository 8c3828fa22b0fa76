"""Importing the package and asking for help stay instant; every public name resolves."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lcengine

HEAVY = {
    "dask",
    "distributed",
    "icechunk",
    "matplotlib",
    "numba",
    "obstore",
    "odc",
    "pandas",
    "pystac_client",
    "rasterio",
    "rioxarray",
    "stackstac",
    "torch",
    "xarray",
    "zarr",
}
REPORT = "import json, sys; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
HELP = """
import runpy, sys
sys.argv = ["lcengine", "--help"]
try:
    runpy.run_module("lcengine", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def python(code: str) -> str:
    """Standard output of `code` in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `code`."""
    return set(json.loads(python(f"{code}\n{REPORT}").splitlines()[-1]))


@pytest.mark.parametrize("code", ["import lcengine; dir(lcengine)", HELP], ids=["import", "help"])
def test_loads_nothing_heavy(code):
    assert not loaded_after(code) & HEAVY


@pytest.mark.parametrize("name", lcengine.__all__)
def test_public_name_resolves(name):
    assert getattr(lcengine, name) is not None
    assert name in dir(lcengine)


def test_a_local_product_needs_no_other_storage():
    assert not loaded_after("import lcengine; lcengine.open") & {"icechunk", "obstore"}


@pytest.mark.parametrize("task", ["labels", "evaluate", "predict"])
def test_workers_load_no_library_of_training(task):
    """A worker imports the task of its product: seconds for each process of each command."""
    assert not loaded_after(f"import lcengine.{task}.task") & {"matplotlib", "sklearn", "torch"}


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = lcengine.nonesuch


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(lcengine.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == lcengine._HOMES


@pytest.mark.parametrize("name", ["composite"])
def test_a_function_is_not_hidden_by_the_module_of_its_name(name):
    use = f"assert callable(lcengine.{name})"
    python(f"import lcengine.{name}; {use}")
    python(f"import lcengine; {use}; import lcengine.{name}; {use}")
    python(f"from lcengine.{name} import __name__ as home; assert home == 'lcengine.{name}'")
