"""DeepGlobe 2018 land cover: RGB images of 50 cm in JPEG, masks of seven colours in PNG.

As published (Demir et al. 2018, DeepGlobe 2018: a challenge to parse the Earth through satellite
images, CVPR workshops): `train/<id>_sat.jpg` and `train/<id>_mask.png`, 2448 x 2448 pixels, 803
pairs; `valid` and `test` have images without masks. Masks are to be thresholded at 128 per channel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePosixPath

from lcengine.legends.published import DEEPGLOBE
from lcengine.samples.folders.base import Member, complete
from lcengine.samples.folders.images import COLOURS, IMAGE, ImageFolder
from lcengine.samples.source import LABEL

TOLERANCE = 127


class DeepGlobe(ImageFolder):
    """The folder that holds `train`, or that folder itself.

    Folders without any mask (`valid`, `test`) are left out; in others every image needs its mask,
    unless `skip_unpaired`. An image is a scene of its own, without a place on Earth.
    """

    kind = "deepglobe"

    def __init__(self, path: str | os.PathLike[str], *, skip_unpaired: bool = False) -> None:
        super().__init__(
            path,
            images="{}_sat.jpg",
            masks="{}_mask.png",
            legend=DEEPGLOBE,
            tolerance=TOLERANCE,
            bands=COLOURS,
            skip_unpaired=skip_unpaired,
        )
        self.options = {"skip_unpaired": skip_unpaired}

    @cached_property
    def members(self) -> Sequence[Member]:
        """The pairs of folders that have masks, in the order of their names."""
        pairs = self._pairs()
        masked = {PurePosixPath(key).parent for key, files in pairs.items() if LABEL in files}
        kept = [key for key in sorted(pairs) if not masked or PurePosixPath(key).parent in masked]
        found = [Member(key, pairs[key]) for key in kept]
        return complete(self.path, found, (IMAGE, LABEL), self._expected, self._skip)
