"""Images in tables of Arrow and Parquet, as Hugging Face's `datasets` keeps and publishes them."""

import json
import os
import pathlib
import re
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int32

from invariance_jax.data.sources import (
    DEFAULT_LABEL,
    NO_LABEL,
    DataError,
    Example,
    Span,
    check_labels,
    local_folder,
    resolve,
)
from invariance_jax.errors import UserError, unknown_name

_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|dev|test)(?![a-z])")
_CALLED = {"valid": "validation", "val": "validation", "dev": "validation"}
_IMAGES = ("image", "img", "jpg", "png")


class ArrowSource:
    """The images of a folder that `Dataset.save_to_disk` wrote, or of parquet files.

    Splits are those of a `DatasetDict`, or read from the names of files and folders (`train-00000-
    of-00005.parquet`, `validation/0.parquet`); where no name says so, the one split is `all`. The
    images are the column of the feature `Image`, or `image`, `img`, `jpg` or `png`: bytes of a
    file, alone or with its path, or the path alone. Arrow files are mapped into memory. Of parquet
    the row group of an image is read and the last one kept: fast in order, slow at random.
    """

    def __init__(
        self, path: str | os.PathLike[str], split: str = "all", label_feature: str = "label"
    ) -> None:
        """Reads labels and names; no image is read.

        Args:
            path: The folder.
            split: In TFDS notation; percentages as TFDS rounds them.
            label_feature: The column of the classes, whole numbers or text; where there is none,
                the images have no labels.

        Raises:
            UserError: There is no such folder, it holds no table, or a table has no images.
            SplitError: There is no such split.
        """
        root = local_folder(path, "the folder of tables")
        found = _files(root)
        if not found:
            raise UserError(
                f"the folder {str(path)!r} holds no table; expected what Dataset.save_to_disk "
                "writes, or parquet files"
            )
        tables = {name: [_Table(each) for each in files] for name, files in found.items()}
        spans = resolve(split, {name: list(map(len, each)) for name, each in tables.items()})
        self.name, self.split = root.resolve().name, split
        (first, *_) = (each for files in tables.values() for each in files)
        features = _features(first.schema)
        self._column = _image_column(first, features)
        self._parts = [each for span in spans for each in _cut(tables[span.split], span)]
        self._starts = np.cumsum([0, *(len(rows) for _, rows in self._parts)])
        self.class_names, self._labels = (), np.full(len(self), NO_LABEL, np.int32)
        if label_feature not in (*first.schema.names, DEFAULT_LABEL):
            raise UserError(
                f"{first.path}: {unknown_name('column', label_feature, first.schema.names)}"
            )
        if label_feature in first.schema.names:
            # Of splits that are not asked for too: a label means the same in all of them.
            columns = {x: x.column(label_feature) for files in tables.values() for x in files}
            values = {value for column in columns.values() for value in set(column)}
            self.class_names = _classes(values, features.get(label_feature), label_feature)
            numbers = {name: number for number, name in enumerate(self.class_names)}
            numbers |= {None: NO_LABEL} | {x: x for x in values if isinstance(x, int)}
            chosen = (
                x for table, rows in self._parts for x in columns[table][rows.start : rows.stop]
            )
            self._labels = np.array([numbers[x] for x in chosen], np.int32)
        self.num_classes = len(self.class_names)
        self._names = self._read_names(spans)
        self.has_labels = check_labels(
            self._labels,
            self._names,
            lambda one, other: (
                f"column {label_feature!r} of {self.name} has a class for some images only, as "
                f"{one}, and none for {other}"
            ),
        )

    def _read_names(self, spans: tuple[Span, ...]) -> list[str]:
        """Paths of the images where they tell them apart, else their places."""
        names = [
            name
            for table, rows in self._parts
            for name in table.paths(self._column)[rows.start : rows.stop]
        ]
        if all(names) and len(set(names)) == len(names):
            return names
        return [f"{span.split}_{place:08d}" for span in spans for place in span.positions]

    def __len__(self) -> int:
        """Number of images."""
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Example:
        """The image at `index`, encoded as it lies there."""
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        table, rows = self._parts[part]
        place, name = rows[index - int(self._starts[part])], self._names[index]
        value = table.cell(self._column, place)
        image = value.get("bytes") if isinstance(value, dict) else value
        if (
            not image and isinstance(value, dict) and value.get("path")
        ):  # the table only points to it
            try:
                image = (table.path.parent / value["path"]).read_bytes()
            except OSError as error:
                raise DataError(f"{name}, row {place} of {table.path}: {error}") from error
        if not isinstance(image, bytes):
            raise DataError(f"{name}, row {place} of {table.path}, holds no image")
        return Example(image=image, label=int(self._labels[index]), name=name)

    def labels(self) -> Int32[np.ndarray, " image"]:
        """The class of every image; -1 if there are none."""
        return self._labels

    def names(self) -> list[str]:
        """The name of every image."""
        return list(self._names)


class _Table:
    """One file of rows. What is open stays in the process that opened it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._open()
        self._length = self._file.metadata.num_rows if self._is_parquet else self._file.num_rows

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    def _open(self) -> None:
        self._lock, self._kept = threading.Lock(), (-1, None)
        try:
            if self._is_parquet:
                self._file = pq.ParquetFile(self.path, memory_map=True)
                counts = [
                    self._file.metadata.row_group(i).num_rows
                    for i in range(self._file.num_row_groups)
                ]
                self._starts = np.cumsum([0, *counts])
            else:
                self._file = pa.ipc.open_stream(pa.memory_map(os.fspath(self.path))).read_all()
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{self.path} cannot be read: {str(error).splitlines()[0]}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_length": self._length}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return self._length

    @property
    def schema(self) -> pa.Schema:
        return self._file.schema_arrow if self._is_parquet else self._file.schema

    def column(self, name: str) -> list[Any]:
        """All values of one column."""
        table = self._file.read([name]) if self._is_parquet else self._file
        return table[name].to_pylist()

    def paths(self, column: str) -> list[str | None]:
        """The path of every image of a column; None where it does not say."""
        kind = self.schema.field(column).type
        if not pa.types.is_struct(kind) or "path" not in {field.name for field in kind}:
            return [None] * len(self)
        if self._is_parquet:  # this part of the column alone
            (chunks,) = self._file.read([f"{column}.path"]).columns
        else:
            chunks = self._file[column]
        chunks = [chunk.field("path") for chunk in chunks.chunks]
        return pa.chunked_array(chunks, pa.string()).to_pylist()

    def cell(self, column: str, row: int) -> Any:
        """One value."""
        if not self._is_parquet:
            return self._file[column][row].as_py()
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            if self._kept[0] != group:
                self._kept = group, self._file.read_row_group(group, [column])[column]
            values = self._kept[1]
        return values[row - int(self._starts[group])].as_py()


def _files(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """The files of every split, sorted."""
    if (root / "dataset_dict.json").is_file():
        splits = json.loads((root / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        return {_CALLED.get(name, name): _saved(root / name) for name in splits}
    if (root / "state.json").is_file():
        return {"all": _saved(root)}
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted(root.rglob("*.parquet")):
        words = _SPLIT.findall(path.relative_to(root).as_posix().lower())
        name = words[-1] if words else "all"
        found.setdefault(_CALLED.get(name, name), []).append(path)
    return found


def _saved(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of one saved data set, in its order."""
    path = folder / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state.get("_indices_data_files"):
            raise UserError(
                f"{folder} was saved in another order; expected flatten_indices() before it"
            )
        return [folder / each["filename"] for each in state["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read: {error}") from error


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What `datasets` says of the columns; nothing where another program wrote them."""
    text = (schema.metadata or {}).get(b"huggingface")
    return json.loads(text)["info"]["features"] if text else {}


def _classes(values: set[Any], feature: Any, column: str) -> tuple[str, ...]:
    """The names of the classes; -1 and nothing stand for a class that is not known."""
    known = values - {None, NO_LABEL}
    if isinstance(feature, dict) and feature.get("names"):
        names = tuple(feature["names"])
    elif all(isinstance(x, str) for x in known):
        return tuple(sorted(known))
    else:
        names = tuple(map(str, range(max((x for x in known if isinstance(x, int)), default=0) + 1)))
    wrong = [x for x in known if not (isinstance(x, int) and 0 <= x < len(names))]
    if wrong:
        raise UserError(
            f"column {column!r} holds {wrong[0]!r}; expected classes, whole numbers from 0 or texts"
        )
    return names


def _image_column(table: _Table, features: dict[str, Any]) -> str:
    said = [name for name, kind in features.items() if isinstance(kind, dict)]
    said = [name for name in said if features[name].get("_type") == "Image"]
    for name in (*said, *_IMAGES):
        if name in table.schema.names:
            return name
    raise UserError(
        f"{table.path} has the columns {', '.join(table.schema.names)}; expected images in a "
        f"column {' or '.join(_IMAGES)}"
    )


def _cut(tables: list[_Table], span: Span) -> list[tuple[_Table, range]]:
    """The files and rows of a part of a split."""
    found, start = [], 0
    for table in tables:
        rows = range(
            max(span.positions.start - start, 0), min(span.positions.stop - start, len(table))
        )
        if rows:
            found.append((table, rows))
        start += len(table)
    return found
