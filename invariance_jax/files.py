"""Files that are either whole or absent."""

import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterator

from invariance_jax.errors import NotWrittenError


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path` and moves it there when the block ends well.

    Args:
        path: Where the file shall stand; its folder is made if absent.

    Yields:
        The path to write to. If the block raises, nothing of it remains and what stood at `path`
        before is untouched.

    Raises:
        NotWrittenError: The disk is full, or the file cannot be written there.
    """
    try:
        with _atomic_path(path) as temporary:
            yield temporary
    except NotWrittenError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; make room and give the same command: it goes on" if full else ""
        message = f"cannot write {path}: {error.strerror or error}{advice}"
        raise NotWrittenError(message, error.errno) from error


@contextlib.contextmanager
def _atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes the file private; results are for everybody whom the umask allows.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file atomically.

    Args:
        path: Where.
        text: What.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
