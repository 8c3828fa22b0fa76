"""Named errors: each message says what was got, what was expected and the remedy, on one line."""

from __future__ import annotations


class LcengineError(Exception):
    """Base of every error a user can cause or meet; `exit_code` is the CLI's stable exit status.

    `permanent`: another attempt of the same tile cannot cure it.
    """

    exit_code = 1
    permanent = False


class InputError(LcengineError):
    """An argument or file that cannot be what the user meant."""

    exit_code = 2
    permanent = True


class AoiError(InputError):
    """An area of interest that is inverted, empty, swapped, too large or not representable."""


class NoItemsError(LcengineError):
    """A search that found nothing; the message repeats the query."""

    exit_code = 3
    permanent = True


class CatalogError(LcengineError):
    """A catalogue that cannot be read, or not completely."""

    exit_code = 4


class ContractError(LcengineError):
    """An asset whose pixel values cannot be turned into reflectance without guessing."""

    exit_code = 5
    permanent = True


class MissingBandError(InputError):
    """A band that an item or sensor does not have."""


class AssetError(LcengineError):
    """Base of what happens to one asset: `href` (redacted), and how often it was tried."""

    def __init__(self, message: str, *, href: str = "", attempts: int = 0) -> None:
        super().__init__(message)
        self.href = href
        self.attempts = attempts


class HrefError(AssetError):
    """An address that lcengine refuses to open."""

    exit_code = 5
    permanent = True


class ReadError(AssetError):
    """An asset that could not be read after all retries."""

    exit_code = 6


class StoreError(LcengineError):
    """A product or staging area in a state that the request cannot use."""

    exit_code = 7


class RunError(LcengineError):
    """A run that ended with failed tiles; what was finished is kept for the rerun."""

    exit_code = 8
