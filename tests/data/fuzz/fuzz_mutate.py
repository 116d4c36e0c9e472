"""Random damage to bytes: what disks, transfers, editors and enemies do."""

import random
import re
import struct

EXTREME = [0, 1, -1, 2**7, 2**15 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**62, 2**63 - 1, 10**9]
TEXTS = [b"nan", b"inf", b"-1", b"0", b"1e999", b"99999999999999999999", b"", b"-0.0", b"1e-400", b"T", b"2147483648"]
NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")


def flip(data, rng):
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
    return data


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def drop(data, rng):
    at = rng.randrange(len(data))
    del data[at : at + rng.choice([1, 2, 8, 100, 4096])]
    return data


def insert(data, rng):
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.choice([1, 2, 8, 100]))
    return data


def swap(data, rng):
    size = rng.choice([1, 4, 8, 64, 512])
    a, b = rng.randrange(len(data)), rng.randrange(len(data))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def repeat(data, rng):
    size, at = rng.choice([8, 64, 1024]), rng.randrange(len(data))
    data[at:at] = data[at : at + size] * rng.choice([1, 2, 50])
    return data


def blank(data, rng):
    size, at = rng.choice([4, 16, 256, 4096]), rng.randrange(len(data))
    data[at : at + size] = bytes([rng.choice([0, 255, 32])]) * len(data[at : at + size])
    return data


def number(data, rng):
    """Overwrite a binary number by an extreme one."""
    value, kind = rng.choice(EXTREME), rng.choice("bhiqBHIQ")
    size = struct.calcsize(kind)
    raw = (value % 2 ** (8 * size)).to_bytes(size, "little")
    at = rng.randrange(len(data))
    data[at : at + size] = raw
    return data


def small_number(data, rng):
    """Change a binary number a little: where a byte is small it is often a count."""
    small = [k for k in range(len(data)) if 0 < data[k] < 16]
    if small:
        data[rng.choice(small)] = rng.randrange(256)
    return data


def text_number(data, rng):
    """Overwrite a number that is written in letters."""
    found = list(NUMBER.finditer(bytes(data)))
    if not found:
        return flip(data, rng)
    match = rng.choice(found)
    data[match.start() : match.end()] = rng.choice(TEXTS)
    return data


MUTATORS = [flip, flip, cut, drop, insert, swap, repeat, blank, number, number, small_number, text_number]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to three damages."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if changed:
            changed = bytearray(rng.choice(MUTATORS)(changed, rng))
    return bytes(changed)
