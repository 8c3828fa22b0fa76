"""Two files or folders change places at once, where the system can."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

_HERE: Final = -100
"""AT_FDCWD of Linux: paths are relative to the working directory."""
_SWAP: Final = 2
"""RENAME_EXCHANGE of Linux's renameat2, and RENAME_SWAP of macOS's renamex_np."""


def exchange(one: Path, other: Path) -> bool:
    """Swap two paths of one file system atomically; False where that cannot be, and nothing is.

    renameat2 (Linux 3.15, glibc 2.28) and renamex_np (macOS 10.12); ext4, XFS, Btrfs, tmpfs,
    overlayfs and APFS can, NFS cannot.
    """
    library = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    first, second = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        swap = library.renameat2  # type: ignore[union-attr]
        swap.argtypes = (
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_uint,
        )
        return bool(swap(_HERE, first, _HERE, second, _SWAP) == 0)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        swap = library.renamex_np
        swap.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint)
        return bool(swap(first, second, _SWAP) == 0)
    return False
