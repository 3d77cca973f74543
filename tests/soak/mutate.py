"""Bytes that were damaged: on a disk, on the way, or on purpose."""

import struct
import zlib
from collections.abc import Callable
from random import Random

EXTREMES = (b"\0", b"\xff", b"\0\0", b"\xff\xff", b"\x7f\xff", b"\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff",
            b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\x40\0", b"\0\x40\0\0", 
            b"\x80\0\0\0", b"\0\0\x80\x7f")  # fmt: skip
"""Numbers that programs trip over, in both byte orders; the last is an infinity."""


def mutated(data: bytes, chance: Random) -> bytes:
    """Return data with one to four damages, of which most are near its beginning, where headers are."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if data:
            data = chance.choice(DAMAGES)(data, _place(data, chance), chance)
    return data


def _place(data: bytes, chance: Random) -> int:
    return chance.randrange(min(len(data), chance.choice((64, 512, len(data)))))


def _flip(data: bytes, at: int, chance: Random) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _overwrite(data: bytes, at: int, chance: Random) -> bytes:
    count = chance.randrange(1, 16)
    return (data[:at] + chance.randbytes(count) + data[at + count :])[: len(data)]


def _extreme(data: bytes, at: int, chance: Random) -> bytes:
    number = chance.choice(EXTREMES)
    return data[:at] + number + data[at + len(number) :]


def _cut_off(data: bytes, at: int, chance: Random) -> bytes:
    return data[:at]


def _leave_out(data: bytes, at: int, chance: Random) -> bytes:
    return data[:at] + data[at + chance.randrange(1, 64) :]


def _repeat(data: bytes, at: int, chance: Random) -> bytes:
    return data[:at] + data[at : at + chance.randrange(1, 64)] * chance.choice((2, 2, 300)) + data[at:]


def _zero(data: bytes, at: int, chance: Random) -> bytes:
    count = min(len(data) - at, chance.choice((1, 64, 4096)))
    return data[:at] + bytes(count) + data[at + count :]


DAMAGES: tuple[Callable[[bytes, int, Random], bytes], ...] = (
    _flip, _flip, _overwrite, _extreme, _extreme, _cut_off, _leave_out, _repeat, _zero,
)  # fmt: skip


def with_checksums(png: bytes) -> bytes:
    """A PNG whose chunks have right checksums again, so that more than those is tried."""
    out, at = png[:8], 8
    while at + 12 <= len(png):
        length = min(struct.unpack(">I", png[at : at + 4])[0], len(png) - at - 12)
        body = png[at + 4 : at + 8 + length]
        out += struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out + png[at:]
