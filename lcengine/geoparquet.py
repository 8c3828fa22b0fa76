"""STAC items as one table: stac-geoparquet (its specification 1.0), local files.

A property that an item lacks and one that is null are the same there, so both are absent on
reading. The library is imported when a table is read or written: it brings pandas along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcengine.errors import InputError

SUFFIXES = (".parquet", ".geoparquet")
HEAD = b"lcengine"
"""Key of the file's metadata that holds what `Items.save` writes beside the items."""


def is_table(path: str) -> bool:
    """Whether a file is named as a table."""
    return path.lower().endswith(SUFFIXES)


def write(items: Sequence[Mapping[str, Any]], head: Mapping[str, Any], path: Path) -> None:
    """Write STAC items and, in the file's metadata, `head`; `InputError` where there is no item."""
    if not items:
        raise InputError(
            f"there are no items to write into {path}, and a table takes its columns from them; "
            "save them as .json"
        )
    import pyarrow.parquet as pq  # noqa: PLC0415
    from stac_geoparquet import arrow  # noqa: PLC0415

    arrow.to_parquet(arrow.parse_stac_items_to_arrow([dict(item) for item in items]), path)
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, HEAD: json.dumps(head).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def read(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """(STAC items, what `write` laid beside them or None); `InputError` for anything else."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415
    from stac_geoparquet import arrow  # noqa: PLC0415

    try:
        table = pq.read_table(path)
        head = (table.schema.metadata or {}).get(HEAD)
        items = [_bare(item) for item in arrow.stac_table_to_items(table)]
        saved = None if head is None else json.loads(head)
        if not (saved is None or isinstance(saved, dict)):
            raise ValueError(f"its metadata {HEAD.decode()} is no object")
        return items, saved
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no stac-geoparquet ({type(error).__name__}: {error}); write one with "
            "`lcengine search … -o items.parquet`"
        ) from error


def _bare(value: Any) -> Any:
    """JSON values without the null members of objects."""
    if isinstance(value, dict):
        return {name: _bare(v) for name, v in value.items() if v is not None}
    return [_bare(v) for v in value] if isinstance(value, list) else value
