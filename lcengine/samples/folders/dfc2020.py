"""DFC2020, the IEEE GRSS Data Fusion Contest 2020: SEN12MS's images with labels of 10 m.

As published (Schmitt et al. 2020, IEEE DataPort), in two releases: that of the contest with 986
patches for validation, `ROIs0000_validation/s2_validation/ROIs0000_validation_s2_0_p0.tif`, and
5128 for the test, `ROIs0000_test/s2_0/ROIs0000_test_s2_0_p0.tif`; and that of the whole data set by
season and city, `ROIs0000_winter/s2_MexicoCity/ROIs0000_winter_s2_MexicoCity_p440.tif`. Beside `s1`
and `s2` lie `dfc`, the labels of 10 m in one band, and `lc`, those of SEN12MS.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from lcengine.errors import InputError
from lcengine.legends import SEN12MS as SCHEMES
from lcengine.legends import Legend
from lcengine.legends.published import DFC2020 as CLASSES
from lcengine.samples.folders.near import BUFFER
from lcengine.samples.folders.sentinel import Triplets, led_to

LABELS = ("dfc", "lc")


class Dfc2020(Triplets):
    """Either release.

    `labels`: dfc, the contest's of 10 m, or lc, MODIS IGBP of 500 m. `legend`: dfc2020, or one that
    a crosswalk leads to from it (dfc2020-no-savanna, crop). `inputs`, `buffer`: see `Triplets`.

    Patches without a place on Earth have their region in the file name as group, which in the
    contest's release is the whole of validation or test: nothing tells which are neighbours.
    """

    kind = "dfc2020"
    seasons = re.compile(r"ROIs0000_[a-z]+")
    example = "ROIs0000_test/s2_0/ROIs0000_test_s2_0_p0.tif"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        labels: str = "dfc",
        legend: str = CLASSES.name,
        inputs: Sequence[str] = ("s1", "s2"),
        buffer: float = BUFFER,
        skip_unpaired: bool = False,
    ) -> None:
        if labels not in LABELS:
            raise InputError(f"labels are {labels!r}, expected {' or '.join(LABELS)}")
        super().__init__(
            path,
            legend=led_to("DFC2020", (CLASSES,), legend),
            inputs=inputs,
            buffer=buffer,
            skip_unpaired=skip_unpaired,
        )
        self.label = labels
        self.label_bands = (1,) if labels == "dfc" else (1, len(SCHEMES))
        self.options |= {"labels": labels}

    @property
    def published(self) -> Legend:
        """The legend of the label images."""
        return CLASSES if self.label == "dfc" else SCHEMES[0]

    def mask_bands(self) -> Sequence[int] | None:
        """The only band, or that of IGBP."""
        return (1,)
