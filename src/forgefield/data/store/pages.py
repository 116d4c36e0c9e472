"""Checksum of those pages of an LMDB file by which LMDB finds its way; a wrong bit there could crash it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

OVERFLOW, FLAGS_AT, COUNT_AT, HEAD_BYTES = 0x04, 10, 12, 16  # of LMDB's page headers
MAGIC, MAGIC_AT, PAGE_AT = 0xBEEFC0DE, 16, 40  # in the first page
SMALLEST_PAGE = 512


def page_checksum(path: Path) -> int:
    """Return the CRC-32 of all pages but those of large values, whose contents have checksums of their own.

    Raises:
        ValueError: it is no LMDB file, or its size is not a whole number of pages.
    """
    with path.open("rb", buffering=0) as stream:
        file, size = stream.fileno(), os.fstat(stream.fileno()).st_size
        first = os.pread(file, PAGE_AT + 4, 0)
        page = int.from_bytes(first[PAGE_AT:], "little")
        if int.from_bytes(first[MAGIC_AT : MAGIC_AT + 4], "little") != MAGIC or page < SMALLEST_PAGE or size % page:
            raise ValueError("no whole LMDB file")
        at, crc = 2 * page, zlib.crc32(os.pread(file, 2 * page, 0))
        while at < size:
            head = os.pread(file, HEAD_BYTES, at)
            if int.from_bytes(head[FLAGS_AT : FLAGS_AT + 2], "little") & OVERFLOW:
                crc = zlib.crc32(head, crc)
                at += max(int.from_bytes(head[COUNT_AT:], "little"), 1) * page
            else:
                crc = zlib.crc32(os.pread(file, page, at), crc)
                at += page
        return crc
