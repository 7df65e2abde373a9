"""Image files in folders: which are found, in which order, with which labels and splits."""

import io
import os
import pickle
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from invariance_jax.data import (
    DataError,
    FolderSource,
    Source,
    SplitError,
    batches_at,
    load_source,
    with_imagenet_labels,
)
from invariance_jax.errors import UserError


@pytest.fixture
def photos(tmp_path, image_pixels):
    """Writes files, each with an image of its own where the name is an image's."""

    def write(*names: str):
        for number, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.lower() == ".png":
                Image.fromarray(image_pixels(number)).save(path, "PNG")
            else:
                path.write_text("text")
        return tmp_path

    return write


def pixels(source, index) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(source[index]["image"])))


def test_folder_of_classes(photos, image_pixels):
    root = photos("dog/a.png", "cat/2.PNG", "cat/10.png", "cat/old/b.png", "ant eater/x.png")
    source = FolderSource(root)
    assert isinstance(source, Source)
    assert (source.name, source.split, source.has_labels) == (root.name, "all", True)
    assert (source.num_classes, source.class_names) == (3, ("ant eater", "cat", "dog"))
    names = ["ant eater/x.png", "cat/10.png", "cat/2.PNG", "cat/old/b.png", "dog/a.png"]
    assert source.names() == [source[i]["name"] for i in range(5)] == names
    assert source.labels().tolist() == [source[i]["label"] for i in range(5)] == [0, 1, 1, 1, 2]
    assert source.labels().dtype == np.int32
    for index, number in enumerate([4, 2, 1, 3, 0]):
        np.testing.assert_array_equal(pixels(source, index), image_pixels(number))
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(pixels(copy, 4), image_pixels(0))


def test_folder_without_classes(photos, image_pixels):
    source = FolderSource(str(photos("b.png", "a.png", "notes.txt")))
    assert source.names() == ["a.png", "b.png"]
    assert source.labels().tolist() == [-1, -1]
    assert (source.has_labels, source.num_classes, source.class_names) == (False, 0, ())
    (batch,) = batches_at(source, np.arange(2)[None], canvas_size=10)
    assert batch["label"].tolist() == [-1, -1]
    for row, number in enumerate((1, 0)):
        height, width = image_pixels(number).shape[:2]
        np.testing.assert_array_equal(batch["canvas"][row, :height, :width], image_pixels(number))


def test_hidden_and_other_files_are_left_out(photos):
    names = (".DS_Store", "._a.png", ".cache/x.png", "cat/.a.png", "cat/.old/a.png")
    root = photos(*names, "cat/a.png", "cat/a.png.txt", "cat/labels.csv", "README.md")
    assert FolderSource(root).names() == ["cat/a.png"]
    assert FolderSource(root).class_names == ("cat",)


def test_linked_folders_are_followed(photos, tmp_path):
    root = photos("elsewhere/a.png", "elsewhere/b.png")
    (root / "data").mkdir()
    os.symlink(root / "elsewhere", root / "data" / "cat")
    assert FolderSource(root / "data").names() == ["cat/a.png", "cat/b.png"]


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_subfolders_may_be_splits(photos, validation):
    root = photos(
        *("train/dog/1.png", "train/cat/2.png", "train/cat/3.png", "train/eel/4.png"),
        *(f"{validation}/eel/5.png", f"{validation}/cat/6.png", "docs/plan.txt"),
    )
    (root / validation / "dog").mkdir()
    for split, names, labels in [
        (
            "train",
            ["train/cat/2.png", "train/cat/3.png", "train/dog/1.png", "train/eel/4.png"],
            [0, 0, 1, 2],
        ),
        ("train[1:-1]", ["train/cat/3.png", "train/dog/1.png"], [0, 1]),
        ("validation", [f"{validation}/cat/6.png", f"{validation}/eel/5.png"], [0, 2]),
        ("validation[50%:]+train[:1]", [f"{validation}/eel/5.png", "train/cat/2.png"], [2, 0]),
    ]:
        source = load_source("folder", split, data_dir=str(root))
        assert (source.names(), source.labels().tolist()) == (names, labels)
        assert (source.split, source.class_names) == (split, ("cat", "dog", "eel"))
    assert len(FolderSource(root)) == len(FolderSource(root, "all")) == 6


def test_a_class_may_be_called_train(photos):
    source = FolderSource(photos("train/a.png", "boat/b.png"))
    assert (source.class_names, source.names()) == (
        ("boat", "train"),
        ["boat/b.png", "train/a.png"],
    )


def test_one_split_alone(photos):
    source = load_source("folder", "train", data_dir=str(photos("train/cat/a.png", "notes.txt")))
    assert (source.names(), source.class_names) == (["train/cat/a.png"], ("cat",))


def test_test_images_without_classes(photos):
    root = photos("train/cat/a.png", "test/b.png", "test/c.png")
    source = FolderSource(root, "test[1:]")
    assert (source.names(), source.labels().tolist()) == (["test/c.png"], [-1])
    assert (source.has_labels, source.class_names) == (False, ("cat",))
    with pytest.raises(UserError, match=r"without, as train/cat/a\.png and test/b\.png; "):
        FolderSource(root, "all")


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("all[:1]", ["a.png"]),
        ("all[34%:]", ["b.png", "c.png"]),
        ("all[2:]+all[:1]", ["c.png", "a.png"]),
    ],
)
def test_parts_of_one_split(photos, split, names):
    assert FolderSource(photos("a.png", "b.png", "c.png"), split).names() == names


def check_error(message, *arguments, kind=UserError):
    with pytest.raises(kind, match=message) as caught:
        FolderSource(*arguments)
    assert "\n" not in str(caught.value)


def test_unknown_split(photos):
    root = photos("train/a/1.png", "val/a/2.png")
    message = r"^split 'tain\[:3\]': unknown split 'tain'; did you mean 'train'\? one of: train"
    check_error(message, root, "tain[:3]", kind=SplitError)
    whole = root / "train"
    check_error(r"unknown split 'train'; one of: all$", whole, "train", kind=SplitError)
    check_error(r"'all\[9:\]'.*part of: all \(1 images\)", whole, "all[9:]", kind=SplitError)


def test_wrong_folders(photos):
    root = photos("data/a.png", "empty/cat/notes.txt", "mixed/cat/a.png", "mixed/b.png")
    check_error(r"^the image folder '' is not a folder here; expected one on this machine", "")
    check_error(r"^the image folder '.*nowhere' is not a folder here; ", root / "nowhere")
    check_error(r"a.png' is not a folder here but a file; expected", root / "data" / "a.png")
    check_error(r"^the image folder '.*empty' holds no image; expected files as x", root / "empty")
    check_error(r"with a class and without, as cat/a.png and b.png; exp", root / "mixed")


def test_folder_that_cannot_be_listed(photos, monkeypatch):
    """Its images would be missing, and nobody would know."""
    root, listed = photos("cat/a.png", "cat/old/b.png"), os.scandir

    def refuse(path):
        if str(path).endswith("old"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    check_error(r"^cannot list .*cat/old: Permission denied$", root)


def test_classes_that_differ_between_splits(photos):
    root = photos("train/cat/1.png", "val/images/2.png")
    check_error(r"val' holds 'images', which is none of the 1 classes of ", root, "validation")
    assert FolderSource(root, "train").names() == ["train/cat/1.png"]


def test_a_file_that_vanished_is_named(photos):
    source = FolderSource(photos("cat/a.png", "cat/b.png"))
    shutil.rmtree(source._root / "cat")
    with pytest.raises(DataError, match=r"^cannot read .*cat/b.png: No such file"):
        source[1]


def test_a_table_of_images(photos, image_pixels):
    root = photos("b/2.png", "1.png", "c.png")
    table = root / "set.csv"
    table.write_text("label,file,split\ndog,b/2.png,val\ncat,1.png,train\ndog,c.png,train\n")
    source = load_source("folder", "train", data_dir=str(table))
    assert (source.name, source.class_names, source.has_labels) == ("set", ("cat", "dog"), True)
    assert source.names() == ["1.png", "c.png"] and source.labels().tolist() == [0, 1]
    np.testing.assert_array_equal(pixels(source, 1), image_pixels(2))
    assert FolderSource(table, "validation")[0]["label"] == 1

    # Numbers are the classes' own, and none is needed.
    table.write_text("file,label\nc.png,3\n1.png,01\n")
    source = FolderSource(table)
    assert source.labels().tolist() == [3, 1] and source.num_classes == 4
    table.write_text("file\nc.png\n")
    source = FolderSource(table)
    assert not source.has_labels and source.labels().tolist() == [-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,1\n", "line 2: expected columns file, label and split"),
        ("file,label\na.png,1,2\n", "line 2: expected columns file, label and split"),
        ("file\n", "holds no image"),
        ("file,label\na.png,x\nb.png,\n", "holds images with a class and without"),
    ],
)
def test_mistakes_in_a_table(text, message, tmp_path):
    table = tmp_path / "set.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        FolderSource(table)
    with pytest.raises(UserError, match="cannot be read"):
        FolderSource(tmp_path / "none.csv")


def test_folders_called_by_wnids_have_imagenets_labels(photos):
    root = photos("n15075141/a.png", "n01443537/b.png")
    source = FolderSource(root)
    assert source.labels().tolist() == [0, 1]
    found = with_imagenet_labels(source, 1000)
    assert isinstance(found, Source) and found.names() == source.names()
    # The second and the last class.
    assert found.labels().tolist() == [each["label"] for each in map(found.__getitem__, (0, 1))]
    assert found.labels().tolist() == [1, 999] and found.num_classes == 1000
    assert found.class_names[0] == "n01440764" and found[1]["name"] == source[1]["name"]
    assert with_imagenet_labels(source, 2) is source
    assert with_imagenet_labels(FolderSource(photos("dog/a.png")), 1000).num_classes == 3
