"""A zarr store whose values know their place: a checksum over the value, its key, and the array that it belongs to.

zarr's own checksums find a flipped bit, but two chunks that changed places fit their checksums, and so does one that is
left over from an older array under the same name.
"""

import zlib

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

SEAL = 4
"""Bytes of a checksum: CRC-32, as in zlib."""


class Sealed(WrapperStore[LocalStore]):
    """A folder of sealed values. `mark` is that of its array, which only what describes the array is sealed without."""

    def __init__(self, store: LocalStore, mark: str = "") -> None:
        super().__init__(store)
        self.mark = mark

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read a value. ValueError where it is not what was written here."""
        found = await self._store.get(key, prototype)
        if found is None:
            return None
        data = found.to_bytes()
        if data[-SEAL:] != self._seal(key, data[:-SEAL]):
            raise ValueError(
                f"{key} is damaged or in a wrong place; the photograph is not touched: begin again from it"
            )
        return prototype.buffer.from_bytes(data[:-SEAL])

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value with its seal."""
        data = value.to_bytes()
        await self._store.set(key, type(value).from_bytes(data + self._seal(key, data)))

    def _seal(self, key: str, data: bytes) -> bytes:
        place = f"{key} of {self.mark if key.startswith('c/') else ''}"
        return zlib.crc32(data, zlib.crc32(place.encode())).to_bytes(SEAL, "big")
