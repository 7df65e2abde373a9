"""Where objects are: boxes, masks, and how they vary."""

import numpy as np
import pytest
from PIL import Image

from invariance_jax.errors import UserError
from invariance_jax.factors import foreground


def test_box_relative_to_its_image():
    found = foreground.of_corners((16, 8, 48, 24), 64, 32)
    assert found == (0.25, 0.25, 0.75, 0.75, 0.25, 0.5, 0.5)
    found = foreground.of_corners((0, 8, 16, 32), 64, 32)
    assert found == (0, 0.25, 0.25, 1, 0.1875, 0.125, 0.625)
    for corners in ((5, 0, 4, 1), (0, 0, 65, 1), (-1, 0, 4, 1)):
        with pytest.raises(UserError, match="is no box"):
            foreground.of_corners(corners, 64, 32)


def test_mask_by_hand():
    mask = np.zeros((4, 8))
    mask[1, 2:4] = 1.0
    mask[2, 3] = 0.5
    mask[0, 7] = 0.1  # not above the threshold
    found = foreground.of_mask(mask)
    assert found[:5] == (2 / 8, 1 / 4, 4 / 8, 3 / 4, 3 / 32)
    assert found.center_x == pytest.approx((2.5 + 3.5 + 0.5 * 3.5) / 2.5 / 8)
    assert found.center_y == pytest.approx((2 * 1.5 + 0.5 * 2.5) / 2.5 / 4)
    assert foreground.of_mask(np.full((3, 3), 0.1)) is None


def test_spread_by_hand():
    corners = {"a": [(0, 0, 2, 2), (0, 0, 4, 4), (2, 0, 4, 4)], "b": [(1, 1, 3, 3)]}
    boxes = foreground.collect(
        (name, foreground.of_corners(each, 4, 4)) for name in corners for each in corners[name]
    )
    found = foreground.spread(boxes)
    assert list(found.index) == ["all", "a", "b"] and list(found["objects"]) == [4, 3, 1]
    assert found.loc["a", ["area_25", "area_50", "area_75"]].tolist() == [0.375, 0.5, 0.75]
    assert found.loc["all", "x1_50"] == 0.875  # of .5, 1, 1, .75
    assert found.loc["a", "std_center_x"] == pytest.approx(np.std([0.25, 0.5, 0.75]))
    assert found.loc["a", "std_center_y"] == pytest.approx(np.std([0.25, 0.5, 0.5]))
    assert found.loc["b", "std_center_x"] == 0 and found.loc["b", "y0_50"] == 0.25
    assert found.loc["all", "std_center_x"] == pytest.approx(np.std([0.25, 0.5, 0.75, 0.5]))


def test_csv(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("file_name,x0,y0,x1,y1\nn01_0.JPEG,0,0,32,64\nn02/7.JPEG,16,0,48,32\n")
    found = foreground.read(path, 64)
    assert found["class_name"].tolist() == ["n01", "n02"]
    assert found["area"].tolist() == [0.5, 0.25] and found["center_x"].tolist() == [0.25, 0.5]
    with pytest.raises(UserError, match=r"boxes.csv, line 2: KeyError\('width'\)"):
        foreground.read(path)
    path.write_text("file_name,x0,y0,x1,y1,width,height\na_0,0,0,32,32,32,64\n")
    assert foreground.read(path)["y1"].tolist() == [0.5]
    path.write_text("file_name,x0,y0,x1,y1\nn01_0,0,0,70,64\n")
    with pytest.raises(UserError, match=r"line 2: \(0, 0, 70, 64\) is no box .* of 64 x 64 pixels"):
        foreground.read(path, 64)


OBJECT = (
    "<object><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def test_folder_of_imagenet_boxes(tmp_path):
    size = "<size><width>100</width><height>50</height></size>"
    for name, boxes in {
        "n01/a": [(10, 5, 60, 30), (0, 0, 100, 50)],
        "n02/b": [(50, 0, 100, 25)],
    }.items():
        path = tmp_path / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        objects = "".join(OBJECT.format(*each) for each in boxes)
        path.write_text(f"<annotation>{size}{objects}</annotation>")
    found = foreground.read(tmp_path)
    assert found["class_name"].tolist() == ["n01", "n01", "n02"]
    assert found["x0"].tolist() == [0.1, 0, 0.5] and found["area"].tolist() == [0.25, 1, 0.25]
    for damaged in ("<annotation>", "<annotation><object><bndbox/></object></annotation>"):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"b\.xml is no file of ImageNet's boxes"):
            foreground.read(tmp_path)


def test_folder_of_masks(tmp_path):
    (tmp_path / "n01").mkdir()
    mask = np.zeros((4, 4), np.uint8)
    Image.fromarray(mask).save(tmp_path / "n01/empty.png")
    with pytest.raises(UserError, match="no object in 1 boxes or masks"):
        foreground.read(tmp_path)
    mask[:, 2:] = 255
    mask[0, 0] = 25  # below a tenth
    Image.fromarray(mask).save(tmp_path / "n01/half.png")
    found = foreground.read(tmp_path)
    assert found["x0"].tolist() == [0.5] and found["area"].tolist() == [0.5]
    assert found["center_x"].tolist() == [0.75] and found.attrs["skipped"] == 1


def test_nothing_there(tmp_path):
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(UserError, match="holds no boxes; expected a CSV file"):
            foreground.read(path)


@pytest.mark.real_data
def test_shared_boxes(real_data):
    found = foreground.spread(foreground.read(real_data / "tiny_imagenet_boxes.csv", 64))
    assert found.loc["all", "objects"] == 50_000 and len(found) == 101
    assert (found["objects"].iloc[1:] == 500).all() and found["area_50"].between(0, 1).all()
