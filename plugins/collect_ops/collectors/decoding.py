"""Content-Encoding, undone piece by piece and never beyond a limit. Pure.

aiohttp would do it too, but a body must be refused by its decompressed size before it is in memory, and both
sizes are wanted.
"""

from __future__ import annotations

import zlib
from typing import Protocol


class BrokenEncoding(ValueError):
    """The bytes are not what the encoding says, or end too early."""


class OverLimit(ValueError):
    """The decoded body is larger than allowed."""


class TooManyMembers(ValueError):
    """A gzip body is made of more parts than any server makes."""


#: Members of one gzip body. BGZF, the one format that has many, makes one for each 64 KB.
MAX_MEMBERS = 20_000


class Decoder(Protocol):
    """Takes wire bytes, keeps decoded ones."""

    def feed(self, piece: bytes) -> None:
        """Decode one piece.

        Raises:
            OverLimit: More decoded bytes than the limit.
            BrokenEncoding: The piece cannot be decoded.
            TooManyMembers: A gzip body has more than `MAX_MEMBERS`.
        """

    def finish(self) -> bytes:
        """The whole body.

        Raises:
            BrokenEncoding: It ends too early.
        """


def decoder_for(encoding: str, limit_bytes: int) -> Decoder | None:
    """The decoder of a Content-Encoding (empty means none), or None when it is not known."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return _Identity(limit_bytes)
    if name in ("gzip", "x-gzip", "deflate"):
        return _Zlib(limit_bytes, gzip=name != "deflate")
    return None


class _Identity:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit_bytes:
            raise OverLimit
        self._pieces.append(piece)

    def finish(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


class _Zlib:
    def __init__(self, limit_bytes: int, *, gzip: bool) -> None:
        self._out = _Identity(limit_bytes)
        self._room = limit_bytes
        self._gzip = gzip
        self._inflate: zlib._Decompress | None = None
        self._members = 0

    def feed(self, piece: bytes) -> None:
        while piece:
            if self._inflate is None or (self._inflate.eof and self._gzip):
                self._members += 1
                if self._members > MAX_MEMBERS:
                    # What is left of a piece is copied for each: millions of empty members would take hours.
                    raise TooManyMembers
                self._inflate = zlib.decompressobj(self._window_bits(piece))
            if self._inflate.eof:
                return  # What follows a deflate stream is not part of the body.
            try:
                # One byte beyond the room is enough to know; a bomb gets no more memory than that.
                decoded = self._inflate.decompress(piece, self._room + 1)
            except zlib.error as error:
                raise BrokenEncoding(str(error)) from error
            self._out.feed(decoded)
            self._room -= len(decoded)
            piece = self._inflate.unconsumed_tail or self._inflate.unused_data

    def finish(self) -> bytes:
        if self._inflate is not None and not self._inflate.eof:
            raise BrokenEncoding("the compressed body ends too early")
        return self._out.finish()

    def _window_bits(self, piece: bytes) -> int:
        if self._gzip:
            return 16 + zlib.MAX_WBITS
        # "deflate" means zlib's format (RFC 9110), but servers exist that send the bare stream.
        return zlib.MAX_WBITS if piece[0] & 0x0F == 8 else -zlib.MAX_WBITS
