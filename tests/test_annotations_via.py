"""VIA annotations as masks: both formats, all shapes, and what cannot be meant."""

from __future__ import annotations

import contextlib
import copy
import json
import math

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from skimage import draw as reference

from lcengine.classmap import read_classes
from lcengine.errors import InputError
from lcengine.labels import via
from lcengine.legends import legend

CROP = legend("crop")
NO, YES = CROP.codes
SHAPE = (60, 80)


def polygon(xs, ys, **attributes):
    shape = {"name": "polygon", "all_points_x": list(xs), "all_points_y": list(ys)}
    return {"shape_attributes": shape, "region_attributes": attributes}


def region(name, attributes=None, **numbers):
    return {
        "shape_attributes": {"name": name, **numbers},
        "region_attributes": attributes or {},
    }


def export(regions, filename="a.png", old=False):
    """A plain export of VIA 2, or of VIA 1, whose regions are numbered."""
    entry = {"filename": filename, "size": 1234, "file_attributes": {}}
    entry["regions"] = {str(i): r for i, r in enumerate(regions)} if old else list(regions)
    return {f"{filename}1234": entry}


def read(tmp_path, document):
    path = tmp_path / "via.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return via.read_via(path)


def mask(regions, tmp_path, shape=SHAPE, **options):
    drawing = via.Drawing(CROP, **{"code": YES, **options})
    (annotation,) = read(tmp_path, export(regions))
    return via.draw(annotation, shape, drawing)


def passed(xs, ys, slack, shape=SHAPE):
    """Pixels nearer than half a pixel, along row plus column, to the outline (and `slack`)."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    found = np.zeros(shape, bool)
    for x0, y0, x1, y1 in zip(xs, ys, np.roll(xs, -1), np.roll(ys, -1), strict=True):
        places = [np.zeros(shape), np.ones(shape)]  # along the edge: its ends, and where it
        places += [(x - x0) / (x1 - x0)] if x1 != x0 else []  # crosses the pixel's column
        places += [(y - y0) / (y1 - y0)] if y1 != y0 else []  # or row
        for place in (np.clip(place, 0, 1) for place in places):
            away = np.abs(x0 + place * (x1 - x0) - x) + np.abs(y0 + place * (y1 - y0) - y)
            found |= away <= 0.5 + slack
    return found


def filled(xs, ys, shape=SHAPE):
    """The plain fill of the reference, without the line of pixels along the outline."""
    expected = np.zeros(shape, bool)
    expected[reference.polygon(ys, xs, shape)] = True
    return expected


def painted(xs, ys, shape=SHAPE):
    """The pixels of a polygon."""
    outline = via.Region("a", "polygon", {"all_points_x": xs, "all_points_y": ys}, {})
    found = np.zeros(shape, bool)
    with contextlib.suppress(InputError):  # it lies beyond the image
        rows, cols, inside = via.covered(outline, shape)
        found[rows, cols] = inside
    return found


points = st.integers(-20, 100)


@given(corners=st.lists(st.tuples(points, points), min_size=3, max_size=9, unique=True))
def test_a_polygon_is_the_plain_fill_and_its_outline(corners):
    xs, ys = np.transpose(corners)
    found, plain = painted(xs, ys), filled(xs, ys)
    assert not (plain & ~found).any()
    # Where the outline passes amid two pixels, one of them is enough.
    assert not (passed(xs, ys, -1e-9) & ~found).any()
    assert not (found & ~plain & ~passed(xs, ys, 1e-9)).any()
    assert np.array_equal(found, painted(xs[::-1], ys[::-1]))


def test_of_two_pixels_beside_an_outline_the_greater_is_its():
    found = painted(np.array([0, 4, 0]), np.array([0, 2, 2]), (4, 6))
    assert found.astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_a_sliver_is_not_lost():
    """Thinner than a pixel, and between the middles of pixels: still a line of pixels."""
    found = painted([3.2, 60.4, 60.4], [4.4, 40.3, 40.6])
    assert found.any(axis=0)[3:61].all()
    assert painted([3.2, 3.3, 3.3], [4.4, 4.4, 4.3]).sum() == 1
    assert painted([-1e8, 1e8, 1e8], [5.0, 5.0, 1e8])[5].all()


def star(rng, size):
    """Corners of a polygon as wide as its image."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 40)))
    radius = rng.uniform(0.6, 1, len(angle)) * size / 2
    corners = size / 2 + np.stack([radius * np.cos(angle), radius * np.sin(angle)])
    return np.rint(corners).astype(int)


@pytest.mark.parametrize("size", [300, 1000])
def test_polygons_as_wide_as_their_image_agree_with_painted_outlines(size):
    rng = np.random.default_rng(4)
    for _ in range(5):
        xs, ys = star(rng, size)
        found = painted(xs, ys, (size, size))
        expected = filled(xs, ys, (size, size))
        expected[reference.polygon_perimeter(ys, xs, (size, size), clip=True)] = True
        assert (found == expected).mean() >= 0.999
        drawn = Image.new("1", (size, size))
        corners = list(zip(xs.tolist(), ys.tolist(), strict=True))
        ImageDraw.Draw(drawn).polygon(corners, fill=1)
        ImageDraw.Draw(drawn).line([*corners, corners[0]], fill=1)
        assert (found == np.asarray(drawn)).mean() >= 0.999


def test_rect_circle_ellipse_and_point(tmp_path):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]

    def near(holds):  # the middle, or half a pixel along row or column
        shifts = ((0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
        return np.any([holds(x + dx, y + dy) for dx, dy in shifts], axis=0)

    cases = {
        ("rect", ("x", 3), ("y", 4), ("width", 5), ("height", 2)): (
            (x >= 3) & (x <= 8) & (y >= 4) & (y <= 6)
        ),
        ("circle", ("cx", 30), ("cy", 20), ("r", 7)): near(
            lambda x, y: np.hypot(x - 30, y - 20) <= 7
        ),
        ("circle", ("cx", 30.4), ("cy", 20.4), ("r", 0)): (x == 30) & (y == 20),
        ("ellipse", ("cx", 30), ("cy", 20), ("rx", 12), ("ry", 5)): near(
            lambda x, y: ((x - 30) / 12) ** 2 + ((y - 20) / 5) ** 2 <= 1 + 1e-9
        ),
        ("point", ("cx", 30), ("cy", 20)): (x == 30) & (y == 20),
    }
    for (name, *numbers), expected in cases.items():
        found = mask([region(name, **dict(numbers))], tmp_path) == YES
        assert np.array_equal(found, expected), name
    assert (mask([region("point", cx=30, cy=20)], tmp_path, radius=3) == YES).sum() == 29


def test_round_shapes_agree_with_a_drawing_program(tmp_path):
    size = (1000, 1000)
    for name, box, numbers in (
        ("circle", (100, 100, 900, 900), {"cx": 500, "cy": 500, "r": 400}),
        ("ellipse", (50, 300, 950, 700), {"cx": 500, "cy": 500, "rx": 450, "ry": 200}),
    ):
        drawn = Image.new("1", size)
        ImageDraw.Draw(drawn).ellipse(box, fill=1)
        found = mask([region(name, **numbers)], tmp_path, size) == YES
        assert (found == np.asarray(drawn)).mean() >= 0.999, name


@pytest.mark.parametrize("theta", [0.0, 0.4, math.pi / 2, 2.5])
def test_a_turned_ellipse(theta, tmp_path):
    # skimage turns from the x axis the other way round, since its rows point down.
    shape = region("ellipse", cx=40, cy=30, rx=20.3, ry=8.2, theta=theta)
    found = mask([shape], tmp_path) == YES
    expected = np.zeros(SHAPE, bool)
    for dx, dy in ((0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)):
        place = reference.ellipse(30 + dy, 40 + dx, 8.2, 20.3, SHAPE, rotation=-theta)
        expected[place] = True
    assert np.array_equal(found, expected)


def test_a_polyline_has_a_width(tmp_path):
    line = region("polyline", all_points_x=[5, 25, 25], all_points_y=[10, 10, 30])
    thin, wide = mask([line], tmp_path) == YES, mask([line], tmp_path, width=5) == YES
    y, x = np.nonzero(thin)
    assert set(zip(y, x, strict=True)) == {(10, i) for i in range(5, 26)} | {
        (i, 25) for i in range(10, 31)
    }
    assert wide[8:13, 10].all()
    assert not wide[[7, 13], 10].any()


def test_old_and_new_files_are_the_same(tmp_path):
    regions = [polygon([1, 9, 9], [1, 1, i % 50 + 2], use="crop") for i in range(12)]
    new = export(regions)
    project = {"_via_settings": {}, "_via_img_metadata": new, "_via_attributes": {}}
    assert read(tmp_path, new) == read(tmp_path, project)
    old = read(tmp_path, export(regions, old=True))
    assert [r.where for r in old[0].regions] == [r.where for r in read(tmp_path, new)[0].regions]
    # In a file that was sorted as text, region 10 stands before region 2.
    shuffled = export(regions, old=True)
    entry = next(iter(shuffled.values()))
    entry["regions"] = {key: entry["regions"][key] for key in sorted(entry["regions"])}
    again = read(tmp_path, shuffled)
    heights = [max(r.numbers["all_points_y"]) for r in again[0].regions]
    assert heights == [i % 50 + 2 for i in range(12)]


def test_the_later_region_wins_unless_there_is_a_priority(tmp_path):
    square = {"x": 10, "y": 10, "width": 10, "height": 10}
    regions = [
        region("rect", {"use": "crop"}, **square),
        region("rect", {"use": "Non-crop"}, **square | {"x": 15}),
    ]
    by_name = {"attribute": "use", "code": None}
    assert mask(regions, tmp_path, **by_name)[12, 17] == NO
    first = mask(regions, tmp_path, **by_name, priority=("crop",))
    assert first[12, 17] == YES
    assert first[12, 22] == NO
    assert mask(regions, tmp_path, **by_name, background=NO)[0, 0] == NO


def test_values_become_codes(tmp_path):
    regions = [
        region("point", {"use": {"maize": True, "wheat": False}}, cx=1, cy=1),
        region("point", {"use": "road"}, cx=2, cy=1),
    ]
    found = mask(regions, tmp_path, attribute="use", code=None, mapping={"maize": YES, "road": NO})
    assert found[1, 1:3].tolist() == [YES, NO]
    with pytest.raises(InputError, match="region 1 has use 'road', which the mapping lacks"):
        mask(regions, tmp_path, attribute="use", code=None, mapping={"maize": YES})
    with pytest.raises(InputError, match=r"region 0: 'maize' is no class of legend crop"):
        mask(regions, tmp_path, attribute="use", code=None)
    made = via.legend_of(read(tmp_path, export(regions)), "use")
    assert made.names == ("maize", "road")
    assert made.codes == (1, 2)


def test_values_that_are_numbers_or_differ_in_case_are_classes_of_their_own(tmp_path):
    """Their codes are 1 ... K in sorted order, so "1" is another class than code 1."""
    texts = ["0", "1", "10", "2", "Maize", "maize"]
    regions = [region("point", {"use": text}, cx=i, cy=0) for i, text in enumerate(texts)]
    (annotation,) = read(tmp_path, export(regions))
    made = via.legend_of([annotation], "use")
    codes = via.draw(annotation, (1, 6), via.Drawing(made, attribute="use"))[0]
    assert [made.entry(code).name for code in codes] == texts


def test_masks_lie_on_the_grids_of_their_images(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)
    Image.fromarray(np.zeros((*SHAPE, 3), np.uint8)).save(images / "photo.png")
    with rasterio.open(
        images / "ç.tif", "w", driver="GTiff", width=80, height=60, count=1, dtype="uint8",
        crs="EPSG:32631", transform=transform,
    ) as file:  # fmt: skip
        file.write(np.zeros((1, *SHAPE), np.uint8))
    shape = region("rect", x=60, y=50, width=100, height=100)
    document = export([shape], "photo.png") | export([shape], "C:\\work\\ç.tif")
    annotations = read(tmp_path, document)
    drawing = via.Drawing(CROP, code=YES)
    written = via.write_masks(annotations, images, tmp_path / "masks", drawing)
    assert sorted(path.name for path in written) == ["photo.tif", "ç.tif"]
    with rasterio.open(tmp_path / "masks" / "ç.tif") as file:
        assert file.crs.to_epsg() == 32631
        assert file.transform == transform
    for path in written:
        codes = read_classes(path, CROP)
        assert codes.shape == SHAPE
        assert (codes == YES).sum() == 10 * 20
    flat = via.write_masks(annotations, images, tmp_path / "png", drawing, suffix=".png")
    assert np.array_equal(np.asarray(Image.open(flat[0])), read_classes(written[0], CROP))
    (images / "photo.png").unlink()
    with pytest.raises(InputError, match=r"image photo\.png of the annotations is not in"):
        via.write_masks(annotations, images, tmp_path / "masks", drawing)


def test_photographs_that_are_to_be_turned_are_named(tmp_path):
    """Browsers turn them, so VIA's coordinates are not those of the pixels."""
    image = Image.fromarray(np.zeros((*SHAPE, 3), np.uint8))
    annotations = read(tmp_path, export([region("point", cx=1, cy=1)], "a.jpg"))
    drawing = via.Drawing(CROP, code=YES)
    for orientation in (1, 6):
        exif = image.getexif()
        exif[0x112] = orientation
        image.save(tmp_path / "a.jpg", exif=exif)
        if orientation == 1:
            via.write_masks(annotations, tmp_path, tmp_path / "masks", drawing)
        else:
            with pytest.raises(InputError, match=r"a\.jpg is to be turned .* mogrify"):
                via.write_masks(annotations, tmp_path, tmp_path / "masks", drawing)


def test_images_are_never_written_over(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.zeros((*SHAPE, 3), np.uint8)).save(images / "a.tif")
    before = (images / "a.tif").read_bytes()
    annotations = read(tmp_path, export([region("point", cx=1, cy=1)], "a.tif"))
    drawing = via.Drawing(CROP, code=YES)
    with pytest.raises(InputError, match=r"a\.tif would be written over"):
        via.write_masks(annotations, images, images, drawing)
    assert (images / "a.tif").read_bytes() == before
    with pytest.raises(InputError, match=r"a\.tif cannot be made: File exists; give another"):
        via.write_masks(annotations, images, images / "a.tif", drawing)


WRONG = {
    r"is a 'star', expected one of polygon": region("star", cx=1, cy=1),
    r"region 0 is a polygon of 2 points, expected 3": polygon([1, 2], [1, 2]),
    r"of 3 x and 2 y": polygon([1, 2, 3], [1, 2]),
    r"is a circle with \{.*expected numbers": region("circle", cx=1, cy=1),
    r"is a circle with r -3": region("circle", cx=1, cy=1, r=-3),
    r"is a ellipse with rx 0": region("ellipse", cx=1, cy=1, rx=0, ry=1),
    r"is beyond any image": polygon([1, 2, math.nan], [1, 2, 3]),
    r"too large": polygon([1, 2, 10**400], [1, 2, 3]),
    r"all_points_x is no list": region("polygon", all_points_x="123", all_points_y="456"),
    r"has no shape_attributes": {"region_attributes": {}},
    r"\(rect\) lies beyond its image of 80 × 60": region("rect", x=90, y=3, width=9, height=9),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_regions_are_named(message, tmp_path):
    with pytest.raises(InputError, match=message):
        mask([WRONG[message]], tmp_path)


def test_wrong_files_are_named(tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text('{"a": ')
    with pytest.raises(InputError, match=r"broken\.json is not JSON"):
        via.read_via(broken)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        via.read_via(tmp_path / "none.json")
    for document in ([], {}, {"_via_img_metadata": {}}):
        with pytest.raises(InputError, match="has no annotated images"):
            read(tmp_path, document)
    with pytest.raises(InputError, match="image 'a' has no filename"):
        read(tmp_path, {"a": {"regions": []}})
    twice = export([])
    twice["again"] = copy.deepcopy(twice["a.png1234"])
    with pytest.raises(InputError, match=r"has image a\.png twice"):
        read(tmp_path, twice)
    with pytest.raises(InputError, match="region 0 has no attribute 'use'"):
        mask([region("point", {"uses": "x"}, cx=1, cy=1)], tmp_path, attribute="use", code=None)
    with pytest.raises(InputError, match="give attribute or code"):
        via.Drawing(CROP)
