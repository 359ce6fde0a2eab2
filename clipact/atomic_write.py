"""Atomic writing: a reader finds the old file or folder or the new one, never a half.

What is written stands beside its place under a hidden name, and is renamed when it is whole. A process that is killed
leaves such hidden names behind; `tidy` removes those of one path.
"""

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_RANDOM = "[a-z0-9_]{8}"  # what tempfile appends
PART_NAME = re.compile(rf"\.{_RANDOM}\.part")
"""How `atomic_write` calls a file that is not whole yet."""


@contextmanager
def atomic_write(path: Path, *, mode: int = 0o644, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends, and is deleted when the block fails.

    Args:
        path: The file; its folder exists.
        mode: Permission bits of the new file.
        sync: Whether the contents are forced to disk before the renaming.

    Raises:
        OSError: The folder cannot be written to.
    """
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        Path(beside).chmod(mode)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Name a file, for a library that opens it by itself, that replaces `path` when the block ends.

    The name is in a hidden folder of its own, since such libraries may write beside their target, too. The contents
    are forced to disk before the renaming. Permission bits are those that the library gave.

    Raises:
        OSError: The folder cannot be written to, or the file was not written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as beside:
        part = Path(beside) / path.name
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Create a folder that replaces `folder` whole when the block ends, and is deleted when the block fails.

    Its permission bits are 0o755; its files keep theirs. An older folder of that name is put back when the renaming
    fails, and by `tidy` when the process was killed between the two renamings.

    Args:
        folder: The folder; its parent exists.

    Raises:
        OSError: The parent cannot be written to.
    """
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield new
        new.chmod(0o755)
        if folder.exists():
            _swap(new, folder)
        else:
            os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _swap(new: Path, folder: Path) -> None:
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
    try:
        os.replace(folder, old / folder.name)
        try:
            os.replace(new, folder)
        except OSError:
            os.replace(old / folder.name, folder)
            raise
    except BaseException:
        with suppress(OSError):  # an older folder that could not be put back stays in it
            old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


def tidy(path: Path) -> None:
    """Remove what a killed `atomic_folder` or `atomic_path` of this path left; an older folder is put back.

    Only for paths that no other process is writing.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if not re.fullmatch(rf"\.{re.escape(path.name)}\.(old\.)?{_RANDOM}", left.name):
            continue
        if not path.exists() and left.name.startswith(f".{path.name}.old.") and (left / path.name).is_dir():
            os.replace(left / path.name, path)
        shutil.rmtree(left, ignore_errors=True)
