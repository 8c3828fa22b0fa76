"""Signing hooks: `href -> href with a short-lived token`, called inside the task that reads.

A plan carries only the import path `module:function`, so a token never reaches a plan, a log or a
product. The Planetary Computer's hook is `planetary_computer:sign_url`
(`pip install "lcengine[planetary-computer]"`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from lcengine.errors import InputError


def sign(href: str, hook: str) -> str:
    """The signed address of `href` by the hook `module:function`."""
    return _function(hook)(href)


@lru_cache(maxsize=8)
def _function(hook: str) -> Callable[[str], str]:
    module, _, name = hook.partition(":")
    try:
        return cast(Callable[[str], str], getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"signing hook {hook!r} cannot be imported ({error}); expected module:function, for "
            'the Planetary Computer `pip install "lcengine[planetary-computer]"`'
        ) from error
