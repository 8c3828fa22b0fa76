"""Folders of images with labels, as data sets are published, as sources of samples.

open_folder("deepglobe", "land-train")
open_folder("sen12ms", "SEN12MS", legend="dfc2020")
open_folder("images", "fields", images="{}.jpg", masks="{}_mask.png", legend="crop")
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lcengine.errors import InputError
from lcengine.samples.folders.base import FolderSource
from lcengine.samples.folders.deepglobe import DeepGlobe
from lcengine.samples.folders.dfc2020 import Dfc2020
from lcengine.samples.folders.images import ImageFolder
from lcengine.samples.folders.sen12ms import Sen12MS

__all__ = [
    "LAYOUTS",
    "DeepGlobe",
    "Dfc2020",
    "FolderSource",
    "ImageFolder",
    "Sen12MS",
    "open_folder",
]

LAYOUTS: Mapping[str, type[FolderSource]] = {
    source.kind: source for source in (DeepGlobe, Sen12MS, Dfc2020, ImageFolder)
}
"""Layouts by name, which is the `kind` of their JSON."""


def open_folder(layout: str, path: str | os.PathLike[str], **options: Any) -> FolderSource:
    """The folder at `path` as a source of samples.

    `layout`: deepglobe, sen12ms, dfc2020 or images; `options` are those of its class. Raises
    `InputError` for another layout or option, and for a folder that is not in the layout.
    """
    if layout not in LAYOUTS:
        raise InputError(f"no layout is called {layout!r}; there are {', '.join(LAYOUTS)}")
    source = LAYOUTS[layout]
    known = list(source.__init__.__kwdefaults__ or {})
    strange = sorted(set(options) - set(known))
    if strange:
        raise InputError(f"layout {layout} has no option {strange[0]!r}; it has {', '.join(known)}")
    found: FolderSource = source(path, **options)
    if not found.members:
        raise InputError(f"{path} has no scene; give the folder that a data set was unpacked to")
    return found
