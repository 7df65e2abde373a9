"""ImageNet's archives, checked before they are prepared.

Preparing takes hours, and TFDS notices a damaged archive when it comes to it. One mistake it does
not notice at all: it labels validation images by their position among the sorted names, so that an
archive which lacks one in the middle gets wrong labels from there on.
"""

import pathlib
import re
import shutil
import tarfile
from collections.abc import Callable, Collection, Iterator
from typing import IO

from invariance_jax.errors import UserError

TRAIN = "ILSVRC2012_img_train.tar"
VALIDATION = "ILSVRC2012_img_val.tar"
_VALIDATION_NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 50_001)]
_SYNSET_ARCHIVE = re.compile(r"(n\d{8})\.tar")
_BLOCK = 512
# Records and archives hold the same JPEGs; the files that TFDS shuffles through are deleted while
# the records are written. The rest is for headers and one shard.
_SIZE_FACTOR = 1.1


def check_present(manual_dir: pathlib.Path, names: Collection[str]) -> None:
    """Checks that the archives are there.

    Args:
        manual_dir: Their folder.
        names: Their file names.

    Raises:
        UserError: The folder or an archive is missing.
    """
    if not manual_dir.is_dir():
        raise UserError(f"--manual_dir is {str(manual_dir)!r}; expected a folder that exists")
    for name in names:
        if not (manual_dir / name).is_file():
            raise UserError(
                f"--manual_dir {str(manual_dir)!r} has no {name}; it needs {' and '.join(names)}, "
                "as image-net.org gives them to registered users"
            )


def check_disk(
    manual_dir: pathlib.Path,
    names: Collection[str],
    data_dir: pathlib.Path,
    free_bytes: Callable[[pathlib.Path], int] = lambda path: shutil.disk_usage(path).free,
) -> None:
    """Checks that what is prepared will fit.

    Args:
        manual_dir: Folder of the archives.
        names: Their file names.
        data_dir: Where the data set will stand; need not exist yet.
        free_bytes: Gives the free space at an existing folder.

    Raises:
        UserError: It will not.
    """
    place = data_dir.absolute()
    while not place.exists():
        place = place.parent
    needed = _SIZE_FACTOR * sum((manual_dir / name).stat().st_size for name in names)
    free = free_bytes(place)
    if free < needed:
        raise UserError(
            f"--data_dir {str(data_dir)!r} has {free / 1e9:.1f} GB free; preparing "
            f"{' and '.join(names)} needs about {needed / 1e9:.1f} GB"
        )


def check_train(
    path: pathlib.Path, synsets: Collection[str], progress: Callable[[int], object]
) -> tuple[int, int]:
    """Checks the archive of training images, to its end, without extracting it.

    Args:
        path: The archive: one inner archive for each class, `n01440764.tar`.
        synsets: WordNet ids of all classes.
        progress: Called with the number of bytes just checked.

    Returns:
        Number of classes and of images.

    Raises:
        UserError: It is truncated or damaged, or something else lies in it.
    """
    seen: set[str] = set()
    images = 0
    with path.open("rb") as file:
        for member, inner in _members(file, str(path)):
            match = _SYNSET_ARCHIVE.fullmatch(member.name)
            if not match or not inner:
                raise UserError(
                    f"{path} holds {member.name!r}; expected archives of one class each, as "
                    "'n01440764.tar', and nothing else"
                )
            synset = match[1]
            if synset not in synsets:
                raise UserError(f"{path} holds {member.name!r}, which is no class of ImageNet 2012")
            _add_new(seen, member.name, path)
            where = f"{path}, {member.name}"
            for image, data in _members(inner, where):
                if not data or not image.name.startswith(f"{synset}_"):
                    raise UserError(
                        f"{where} holds {image.name!r}; expected images named '{synset}_...'"
                    )
                images += 1
            progress(member.size)
    if not images:
        raise UserError(f"{path} holds no image")
    return len(seen), images


def check_validation(path: pathlib.Path, progress: Callable[[int], object]) -> int:
    """Checks the archive of validation images, to its end, without extracting it.

    Args:
        path: The archive.
        progress: Called with the number of bytes just checked.

    Returns:
        Number of images: the first so many, without a gap, so that TFDS labels them right.

    Raises:
        UserError: It is truncated or damaged, something else lies in it, or images are missing
            before the last one.
    """
    seen: set[str] = set()
    expected = frozenset(_VALIDATION_NAMES)
    with path.open("rb") as file:
        for member, data in _members(file, str(path)):
            if not data or member.name not in expected:
                raise UserError(
                    f"{path} holds {member.name!r}; expected images {_VALIDATION_NAMES[0]} to "
                    f"{_VALIDATION_NAMES[-1]} and nothing else, not even a folder: TFDS labels by "
                    "position"
                )
            _add_new(seen, member.name, path)
            progress(member.size)
    if not seen:
        raise UserError(f"{path} holds no image")
    for name in _VALIDATION_NAMES[: len(seen)]:
        if name not in seen:
            raise UserError(
                f"{path} lacks {name} though later images are there; TFDS labels by position, so "
                "all later labels would be wrong: fetch the archive again"
            )
    return len(seen)


def _add_new(seen: set[str], name: str, path: pathlib.Path) -> None:
    if name in seen:
        raise UserError(f"{path} holds {name!r} twice")
    seen.add(name)


def _members(file: IO[bytes], where: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """The members of an archive, each as a file if it is one; an error if its end is missing.

    Python's tarfile takes an archive that breaks off, or is damaged, between two members for a
    whole one. A whole one ends with a block of zeros.
    """
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                yield member, archive.extractfile(member) if member.isfile() else None
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                archive.members = []  # 50,000 of them need not stay
    except tarfile.TarError as error:
        raise UserError(f"{where} is no tar archive, damaged or truncated: {error}") from error
    file.seek(end)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise UserError(
            f"{where} is truncated or damaged: no member and no end mark at byte {end}; "
            "copy or download it again"
        )
