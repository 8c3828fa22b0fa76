"""The product: a sharded Zarr v3 group whose tiles are staged, and published in one step.

`target` says where: a local path, `s3://bucket/key` or an Icechunk repository. A tile is done when
its marker (written last, with content hashes) exists; a finished staging area is published at
once. A killed run loses nothing: the next one finds the staging area by the output and goes on.
"""

from __future__ import annotations

import os
from typing import Any

from lcengine.errors import InputError, StoreError
from lcengine.store.local import LocalStaging, LocalTarget
from lcengine.store.product import (
    grid_of,
    is_repository,
    legend_of,
    locate,
    open,
    pick,
    sidecar,
    stored,
)
from lcengine.store.protocol import (
    Receipt,
    Staging,
    Target,
    bucket_of,
    differences,
    digest,
    require,
)
from lcengine.store.rows import Layout, Part, Rows, layout_of
from lcengine.store.template import Variable
from lcengine.store.verification import Fault, Verification, verify

__all__ = [
    "Fault",
    "Layout",
    "LocalStaging",
    "LocalTarget",
    "Part",
    "Receipt",
    "Rows",
    "Staging",
    "Target",
    "Variable",
    "Verification",
    "differences",
    "digest",
    "grid_of",
    "layout_of",
    "legend_of",
    "open",
    "pick",
    "place",
    "provenance",
    "sidecar",
    "stored",
    "target",
    "verify",
]

KINDS = ("zarr", "icechunk")


def target(output: str | os.PathLike[str], kind: str | None = None) -> Target:
    """Where a product is made: a local path or `s3://bucket/folder/out.zarr`.

    `kind`: `zarr` or `icechunk`, which keeps versions and can be overwritten on object stores too;
    by default what lies there, else `zarr`. Raises `InputError` for a kind or address that does
    not exist or lacks its library, `StoreError` where something else lies at the output.
    """
    if kind not in (None, *KINDS):
        raise InputError(f"store is {kind!r}, expected one of {', '.join(KINDS)}")
    bucket = bucket_of(output)
    if bucket is not None:
        require("obstore", "object-store")
    # Taken for plain Zarr, a repository would be removed as what a killed run left.
    repository = (bucket is not None or kind is None) and is_repository(output)
    if repository and kind == "zarr":
        raise StoreError(
            f"{output} exists and is not a product of plain Zarr but an Icechunk repository; "
            "choose another output, or leave --store out"
        )
    if kind == "icechunk" or repository:
        require("icechunk", "icechunk")
        from lcengine.store.icechunk import IcechunkTarget  # noqa: PLC0415 (an extra)

        return IcechunkTarget(output)
    if bucket is None:
        return LocalTarget(output)
    from lcengine.store.bucket import BucketTarget  # noqa: PLC0415 (an extra)

    return BucketTarget(f"s3://{bucket[0]}/{bucket[1]}")


def place(path: str | os.PathLike[str]) -> str:
    """Where the visible version of a product really lies: a folder, or the address."""
    return locate(path).place


def provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """How a product was made: its request, grid and counts; `InputError` for what is none."""
    return locate(path).provenance()
