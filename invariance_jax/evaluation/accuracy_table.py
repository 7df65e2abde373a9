"""The accuracy table: one CSV row a model."""

import csv
import dataclasses
import io
import pathlib

from invariance_jax import files
from invariance_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AccuracyRow:
    """One model's accuracy.

    Attributes:
        model: Its architecture.
        augmentation: What it was trained with; "untrained" if it was not.
        seed: Its seed.
        top1: Top-1 accuracy on the validation split, 0 to 1.
        steps: Steps of training; 0 if untrained.
        seconds: Time of training.
    """

    model: str
    augmentation: str
    seed: int
    top1: float
    steps: int
    seconds: float

    @property
    def identity(self) -> tuple[str, str, int]:
        """What tells it from other rows."""
        return self.model, self.augmentation, self.seed


_COLUMNS = tuple(field.name for field in dataclasses.fields(AccuracyRow))


def read(path: pathlib.Path) -> list[AccuracyRow]:
    """Reads a table.

    Args:
        path: The CSV file.

    Returns:
        Its rows; none if it does not exist.

    Raises:
        UserError: The file has other columns, or values that are no numbers.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != _COLUMNS:
            raise UserError(
                f"{path} has the columns {reader.fieldnames}; expected {', '.join(_COLUMNS)}"
            )
        try:
            return [
                AccuracyRow(
                    model=row["model"],
                    augmentation=row["augmentation"],
                    seed=int(row["seed"]),
                    top1=float(row["top1"]),
                    steps=int(row["steps"]),
                    seconds=float(row["seconds"]),
                )
                for row in reader
            ]
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error


def update(path: pathlib.Path, row: AccuracyRow) -> None:
    """Adds a row, or replaces the one of the same model, augmentation and seed.

    Args:
        path: The CSV file; made if absent, written atomically.
        row: The row.
    """
    rows = {each.identity: each for each in read(path)} | {row.identity: row}
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for each in rows.values():
        rounded = {"top1": f"{each.top1:.6f}", "seconds": f"{each.seconds:.1f}"}
        writer.writerow(dataclasses.asdict(each) | rounded)
    files.write_text(path, text.getvalue())
