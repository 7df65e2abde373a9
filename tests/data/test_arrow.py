"""Tables of images: what Hugging Face's `datasets` saves and publishes, and plain parquet."""

import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from invariance_jax.data import DataError, Source, SplitError, batches_at, load_source
from invariance_jax.data.arrow import ArrowSource
from invariance_jax.errors import UserError

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture
def rows(image_pixels):
    """A table of the images of some numbers; `said` is what `datasets` says of the columns."""

    def of(numbers, labels=None, *, paths="{}.png", names=None, column="image", said=True):
        files = []
        for number in numbers:
            file = io.BytesIO()
            Image.fromarray(image_pixels(number)).save(file, "PNG")
            files.append({"bytes": file.getvalue(), "path": paths and paths.format(number)})
        columns, features = {column: pa.array(files, IMAGE)}, {column: {"_type": "Image"}}
        if labels is not None:
            columns["label"] = pa.array(labels)
            features["label"] = {"_type": "Value"}
            if names:
                features["label"] = {"_type": "ClassLabel", "names": names}
        table = pa.table(columns)
        told = {"huggingface": json.dumps({"info": {"features": features}})}
        return table.replace_schema_metadata(told) if said else table

    return of


def save(folder, *tables, more=()):
    """As Dataset.save_to_disk."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with (
            pa.OSFile(str(folder / name), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as to,
        ):
            to.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], **dict(more)}
    (folder / "state.json").write_text(json.dumps(state))


def check_images(source, numbers, image_pixels):
    assert len(source) == len(numbers)
    for index, number in enumerate(numbers):
        found = np.asarray(Image.open(io.BytesIO(source[index]["image"])))
        np.testing.assert_array_equal(found, image_pixels(number))


def test_a_saved_data_set(tmp_path, rows, image_pixels):
    names = ["cat", "dog", "eel"]
    save(tmp_path / "set", rows([5, 3, 4], [1, 0, 1], names=names), rows([7], [0], names=names))
    source = load_source("arrow", "all", data_dir=str(tmp_path / "set"))
    assert isinstance(source, Source)
    assert (source.name, source.split, source.has_labels) == ("set", "all", True)
    assert (source.num_classes, source.class_names) == (3, tuple(names))
    assert source.labels().tolist() == [source[i]["label"] for i in range(4)] == [1, 0, 1, 0]
    assert source.labels().dtype == np.int32
    assert source.names() == [source[i]["name"] for i in range(4)]
    assert source.names() == ["5.png", "3.png", "4.png", "7.png"]
    check_images(source, [5, 3, 4, 7], image_pixels)
    check_images(pickle.loads(pickle.dumps(source)), [5, 3, 4, 7], image_pixels)
    part = ArrowSource(tmp_path / "set", "all[2:]")
    assert (part.names(), part.labels().tolist()) == (["4.png", "7.png"], [1, 0])
    check_images(part, [4, 7], image_pixels)


def test_saved_splits(tmp_path, rows, image_pixels):
    save(tmp_path / "train", rows([1, 2], ["b", "a"]))
    save(tmp_path / "test", rows([3], ["c"]))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source = ArrowSource(tmp_path, "test+train[1:]")
    # The classes are those of all splits.
    assert source.class_names == ("a", "b", "c")
    assert source.labels().tolist() == [2, 0]
    check_images(source, [3, 2], image_pixels)


@pytest.mark.parametrize(
    "files",
    [
        [
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/val.parquet",
        ],
        ["train/0.parquet", "train/1.parquet", "validation/0.parquet"],
    ],
)
def test_parquet_as_it_is_published(tmp_path, rows, image_pixels, files):
    tables = rows([1, 2, 3], [0, 1, 4]), rows([4, 5], [2, 2]), rows([6], [0])
    for file, table in zip(files, tables, strict=True):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / file, row_group_size=2)
    source = ArrowSource(tmp_path, "train[1:]")
    assert source.class_names == ("0", "1", "2", "3", "4")
    assert source.labels().tolist() == [1, 4, 2, 2]
    assert source.names() == ["2.png", "3.png", "4.png", "5.png"]
    check_images(source, [2, 3, 4, 5], image_pixels)
    copy = pickle.loads(pickle.dumps(source))
    assert copy[3] == source[3] and copy[0] == source[0]
    (batch,) = batches_at(source, np.array([[3, 0]]), canvas_size=10)
    height, width = image_pixels(5).shape[:2]
    np.testing.assert_array_equal(batch["canvas"][0, :height, :width], image_pixels(5))
    assert batch["label"].tolist() == [2, 1]
    check_images(ArrowSource(tmp_path, "validation"), [6], image_pixels)


def test_other_programs_tables(tmp_path, rows, image_pixels):
    """Bytes alone, no word of `datasets`, no classes."""
    (files,) = rows([8, 9], said=False).columns
    column = pa.array([each["bytes"] for each in files.to_pylist()])
    pq.write_table(pa.table({"id": [0, 1], "img": column}), tmp_path / "images.parquet")
    source = ArrowSource(tmp_path)
    assert (source.has_labels, source.num_classes) == (False, 0)
    assert source.labels().tolist() == [-1, -1]
    assert source.names() == ["all_00000000", "all_00000001"]
    check_images(source, [8, 9], image_pixels)


def test_paths_that_tell_nothing_apart_are_no_names(tmp_path, rows):
    pq.write_table(rows([1, 2, 3], paths="image.png"), tmp_path / "train.parquet")
    assert ArrowSource(tmp_path, "train[1:]").names() == ["train_00000001", "train_00000002"]


def test_hidden_classes(tmp_path, rows):
    """-1 stands for what only the publisher knows."""
    pq.write_table(rows([1], [1], names=["a", "b"]), tmp_path / "train.parquet")
    pq.write_table(rows([2, 3], [-1, -1], names=["a", "b"]), tmp_path / "test.parquet")
    source = ArrowSource(tmp_path, "test")
    assert (source.has_labels, source.class_names) == (False, ("a", "b"))
    with pytest.raises(UserError, match=r"some images only, as 1\.png, and none for 2\.png"):
        ArrowSource(tmp_path, "train+test")


def test_errors(tmp_path, rows):
    def check(message, *arguments, kind=UserError):
        with pytest.raises(kind, match=message) as caught:
            ArrowSource(*arguments)
        assert "\n" not in str(caught.value)

    check(r"^the folder of tables '.*nowhere' is not a folder here", tmp_path / "nowhere")
    check(r"holds no table; expected what Dataset\.save_to_disk writes", tmp_path)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    check(r"text\.parquet has the columns text; expected images in a column image or", tmp_path)
    pq.write_table(rows([1], [1.5]), tmp_path / "text.parquet")
    check(r"column 'label' holds 1\.5; expected classes", tmp_path)
    pq.write_table(rows([1], [2], names=["a", "b"]), tmp_path / "text.parquet")
    check(r"column 'label' holds 2; expected classes", tmp_path)
    check(r"unknown column 'labl'; did you mean 'label'\?", tmp_path, "all", "labl")
    check(r"unknown split 'train'; one of: all$", tmp_path, "train", kind=SplitError)
    (tmp_path / "text.parquet").write_bytes(b"PAR1")
    check(r"text\.parquet cannot be read: ", tmp_path)
    save(tmp_path / "saved", rows([1]), more={"_indices_data_files": [{"filename": "i.arrow"}]})
    check(r"saved in another order; expected flatten_indices", tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{}")
    check(r"state\.json cannot be read", tmp_path / "saved")


def test_images_that_a_table_points_to(tmp_path, image_pixels):
    """As Dataset.to_parquet writes images of folders."""
    (tmp_path / "files").mkdir()
    Image.fromarray(image_pixels(1)).save(tmp_path / "files" / "a.png")
    files = [{"bytes": None, "path": path} for path in ("files/a.png", "files/b.png", None)]
    pq.write_table(pa.table({"image": pa.array(files, IMAGE)}), tmp_path / "x.parquet")
    source = ArrowSource(tmp_path)
    found = np.asarray(Image.open(io.BytesIO(source[0]["image"])))
    np.testing.assert_array_equal(found, image_pixels(1))
    with pytest.raises(DataError, match=r"^all_00000001, row 1 of .*x\.parquet: .*No such file"):
        source[1]
    with pytest.raises(DataError, match=r"^all_00000002, row 2 of .*x\.parquet, holds no image$"):
        source[2]
