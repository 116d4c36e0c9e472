"""Files written whole or not at all, and what the disk refuses as one plain error."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Generator
from pathlib import Path

from forgefield.core.errors import DeviceError, ForgeError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up",
         errno.EFBIG: "the file would exceed the allowed size"}  # fmt: skip


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Write a file whole or not at all: beside it first, then renamed into place.

    Raises:
        ForgeError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    return path


@contextlib.contextmanager
def disk_errors(where: str | Path) -> Generator[None]:
    """Turn what the file system refuses (full, read-only, forbidden) into one plain ForgeError."""
    try:
        yield
    except ForgeError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL or "No space left on device" in str(error):
            what = _FULL.get(number or errno.ENOSPC, _FULL[errno.ENOSPC])
            raise DeviceError(what, str(where), _room_hint(Path(where))) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise DeviceError(f"not allowed: {error}", str(where), "choose a folder you may read and write") from error
        if number in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            raise ForgeError(f"cannot write here: {error}", str(where), "choose another path") from error
        raise


def _room_hint(path: Path) -> str:
    """Return the advice for a full disk, with the free space where it can be read."""
    place = next((p for p in (path, *path.parents) if p.is_dir()), Path("."))
    free = shutil.disk_usage(place).free / 2**20
    return f"free some space ({free:.0f} MiB are left there) or choose a run_dir on another disk"
