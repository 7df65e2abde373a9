"""Records of ArrayRecord files, with errors that say which file is damaged."""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from invariance_jax.data.source import DataError

# What the reader raises on a damaged or vanished file, and protobuf on a damaged record.
_READING_ERRORS = (RuntimeError, ValueError, IndexError, OSError)


class FilePart(Protocol):
    """Consecutive records of one file, as TFDS's `file_instructions` give them.

    Attributes:
        filename: The file.
        skip: Records before the first.
        take: How many records.
        examples_in_shard: How many the whole file holds.
    """

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class Records:
    """Parsed records of several files, one after another. Thread safe; can be pickled."""

    def __init__(self, parts: Sequence[FilePart]) -> None:
        """Opens nothing yet.

        Args:
            parts: Which records of which files, in order.
        """
        self._parts = list(parts)
        self._ends = list(itertools.accumulate(part.take for part in self._parts))
        self._records = ArrayRecordDataSource(self._parts)

    def __len__(self) -> int:
        """Number of records."""
        return self._ends[-1]

    def __getitem__(self, index: int) -> Mapping[str, tf_feature_pb2.Feature]:
        """The features of the record at `index`, by name.

        Raises:
            DataError: The record cannot be read; the message names the file.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            # TFDS's own decoding costs ten times as much as this and gives the same bytes.
            return tf_example_pb2.Example.FromString(self._records[index]).features.feature
        except _READING_ERRORS as error:
            which = bisect.bisect_right(self._ends, index)
            part = self._parts[which]
            record = part.skip + index - (self._ends[which] - part.take)
            raise DataError(
                f"cannot read record {record} of {part.filename}: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}; "
                "the file is damaged: copy or prepare it again"
            ) from error
