"""Paths as people type them, files that are either whole or absent, and folders in use."""

import contextlib
import errno
import json
import os
import pathlib
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from invariance_jax.errors import NotWrittenError, UserError

# Who holds a folder says so often that it lives; one that is silent for so long is gone. File
# systems of several hosts may show what another wrote some seconds late.
_BEAT_SECONDS, _SILENT_SECONDS = 10.0, 60.0
_POLL_SECONDS = 0.5


def local_path(text: str | os.PathLike[str], name: str) -> pathlib.Path:
    """Reads a path as people type it.

    Args:
        text: The path; `~` is the user's home.
        name: What the user knows it by, a flag or a field, for the error message.

    Returns:
        The path, there or not.

    Raises:
        UserError: It is a URL, which would become a folder of that name here.
    """
    text = os.fspath(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise UserError(
            f"{name} is {text!r}, a URL; expected a path on this machine's file system (mount a "
            "bucket first)"
        )
    # Unlike pathlib's this leaves `~` where nobody knows a home.
    return pathlib.Path(os.path.expanduser(text))


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
    with _written(path), _atomic_path(path) as temporary:
        yield temporary


@contextlib.contextmanager
def _written(path: pathlib.Path) -> Iterator[None]:
    """Says in one line why a file cannot be written."""
    try:
        yield
    except NotWrittenError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; make room and give the same command: it goes on" if full else ""
        reason = error.strerror or error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            reason = "a file is where a folder is meant"
        message = f"cannot write {path}: {reason}{advice}"
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


@contextlib.contextmanager
def in_use(folder: pathlib.Path, work: str) -> Iterator[None]:
    """Keeps every other process, of this machine or another, from the same work in a folder.

    `FOLDER/WORK.lock` says who is at it. File systems that hosts share need to know nothing of
    locks: who comes first makes the file, and writes into it every few seconds. That a holder is
    gone is known at once on its own machine, and elsewhere after a minute in which it was silent.

    Args:
        folder: The folder; made if absent.
        work: What is done there, in one word: "training".

    Yields:
        Nothing; the folder is held while the block runs.

    Raises:
        UserError: Another process is at it.
        NotWrittenError: Nothing can be written there.
    """
    lock, done = folder / f"{work}.lock", threading.Event()
    holder = {"host": socket.gethostname(), "pid": os.getpid()}
    holder |= {"process": _process(os.getpid()), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with _written(lock):
        folder.mkdir(parents=True, exist_ok=True)
        while (handle := _made(lock)) is None:
            _wait_until_gone(lock, work)
    beating = threading.Thread(target=_beat, args=(handle, holder, done), daemon=True)
    try:
        with _written(lock):
            _write_holder(handle, holder)
        beating.start()
        yield
    finally:
        done.set()
        if beating.ident:
            beating.join()
        # One that was thought gone, and was asleep, finds another's file there.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), lock.stat()):
                lock.unlink()
        os.close(handle)


def _made(lock: pathlib.Path) -> int | None:
    """The file, open to write; None if it is there already."""
    try:
        return os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None


def _beat(handle: int, holder: Mapping[str, Any], done: threading.Event) -> None:
    beats = 0
    while not done.wait(_BEAT_SECONDS):
        beats += 1
        with contextlib.suppress(OSError):  # a full disk does not stop the work
            _write_holder(handle, {**holder, "beats": beats})


def _write_holder(handle: int, holder: Mapping[str, Any]) -> None:
    os.pwrite(handle, json.dumps(holder).encode(), 0)
    os.fsync(handle)


def _wait_until_gone(lock: pathlib.Path, work: str) -> None:
    """Returns when nobody holds the file any more; raises if somebody does."""
    begun, first, told = time.monotonic(), _content(lock), False
    while (content := _content(lock)) is not None:
        try:
            holder = json.loads(content)
            where = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
            machine, process = holder["process"]
        except (ValueError, KeyError, TypeError):  # it is just being written, or damaged
            where, machine, process = f"somebody whom {lock} does not name", None, None
        here = machine is not None and machine == _process(os.getpid())[0]
        alive = here and process == _process(holder["pid"])[1]
        if alive or content != first:
            raise UserError(
                f"{lock.parent} is in use for {work} by {where}; wait for it, stop it, or choose "
                "another folder"
            )
        if here or time.monotonic() - begun > _SILENT_SECONDS:
            _take_away(lock, content)
            return
        if not told:
            print(
                f"invariance-jax: {lock.parent}: waiting to see if {where} lives", file=sys.stderr
            )
        told = True
        time.sleep(_POLL_SECONDS)


def _content(lock: pathlib.Path) -> bytes | None:
    try:
        return lock.read_bytes()
    except FileNotFoundError:
        return None


def _take_away(lock: pathlib.Path, stale: bytes) -> None:
    """Removes a file whose holder is gone, unless another process has just done so."""
    aside = lock.with_name(f".{lock.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        lock.rename(aside)
        if aside.read_bytes() == stale:
            aside.unlink()
        else:  # it is the new holder's
            aside.rename(lock)


def _process(pid: int) -> tuple[str | None, str | None]:
    """Identities of this machine since it was started, and of a process on it.

    None for what the system does not say, or for a process that has ended.
    """
    proc = pathlib.Path("/proc")
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        # Containers of one machine do not see each other's processes.
        machine = f"{boot} {os.readlink(proc / 'self/ns/pid')}"
    except OSError:
        return None, None
    try:
        state, *fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return machine, None
    return machine, None if state in "ZX" else fields[18]
