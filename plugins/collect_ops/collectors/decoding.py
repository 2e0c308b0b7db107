"""Content-Encoding, undone piece by piece and never beyond a limit. Pure.

aiohttp would do it too, but a body must be refused by its decompressed size before it is in memory, and both
sizes are wanted. Servers are taken as they are: what is no encoding but a charset or a word for nothing changes
nothing, a body may be plain although its header says gzip, and what follows the end of a compressed body is not part of
it.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Protocol

import brotli  # type: ignore[import-untyped]
from backports import zstd


class BrokenEncoding(ValueError):
    """The bytes are not what the encoding says, or end too early."""


class OverLimit(ValueError):
    """The decoded body is larger than allowed."""


class TooManyMembers(ValueError):
    """A body is made of more compressed parts than any server makes."""


#: Members of one gzip body. BGZF, the one format that has many, makes one for each 64 KB.
MAX_MEMBERS: Final = 20_000
#: Encodings of one body, one within the other.
_MAX_LAYERS: Final = 3
#: What some servers put into the header although it encodes nothing.
_NOTHING: Final = frozenset(
    {"", "identity", "none", "null", "plain", "text", "json", "binary", "7bit", "8bit", "ascii", "us-ascii", "utf8",
     "utf-8", "iso-8859-1", "aws-chunked"}
)  # fmt: skip
#: How JSON begins, and what servers put before it: nothing that is compressed begins so.
_PLAIN: Final = (b"{", b"[", b'"', b")", b"<", b" ", b"\t", b"\r", b"\n", b"\xef\xbb\xbf")
#: Decoded at once, between two looks at the limit: a bomb gets no more memory than that.
_STEP_BYTES: Final = 1 << 20
#: A window of zstd that every client has to bear (RFC 9659).
_ZSTD_WINDOW_LOG: Final = 23


class _Stream(Protocol):
    """One compressed stream."""

    ended: bool
    #: What follows its end.
    rest: bytes

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """What a piece decodes to, in steps.

        Raises:
            BrokenEncoding: The piece cannot be decoded.
        """


class _ZlibStream:
    def __init__(self, window_bits: int) -> None:
        self.ended = False
        self.rest = b""
        self._inflate = zlib.decompressobj(window_bits)

    def decode(self, piece: bytes) -> Iterator[bytes]:
        inflate = self._inflate
        while True:
            try:
                decoded = inflate.decompress(piece, _STEP_BYTES)
            except zlib.error as error:
                raise BrokenEncoding(str(error)) from error
            yield decoded
            self.ended, piece = inflate.eof, inflate.unconsumed_tail
            if self.ended or (not piece and len(decoded) < _STEP_BYTES):
                self.rest = inflate.unused_data
                return


class _ZstdStream:
    def __init__(self) -> None:
        self.ended = False
        self.rest = b""
        self._inflate = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        )

    def decode(self, piece: bytes) -> Iterator[bytes]:
        inflate = self._inflate
        while True:
            try:
                decoded = inflate.decompress(piece, _STEP_BYTES)
            except zstd.ZstdError as error:
                raise BrokenEncoding(str(error)) from error
            yield decoded
            self.ended, piece = inflate.eof, b""
            if self.ended or inflate.needs_input:
                self.rest = inflate.unused_data
                return


class _BrotliStream:
    rest = b""  # the library does not tell what follows the end: it is an error

    def __init__(self) -> None:
        self.ended = False
        self._inflate = brotli.Decompressor()

    def decode(self, piece: bytes) -> Iterator[bytes]:
        inflate = self._inflate
        while True:
            try:
                decoded: bytes = inflate.process(piece, output_buffer_limit=_STEP_BYTES)
            except brotli.error as error:
                raise BrokenEncoding(str(error)) from error
            yield decoded
            self.ended, piece = inflate.is_finished(), b""
            if self.ended or not decoded:
                return


class _PlainStream:
    """A body that its header calls encoded, and that is not."""

    ended = False
    rest = b""

    def decode(self, piece: bytes) -> Iterator[bytes]:
        yield piece


class _Encoding(Protocol):
    """A way to encode.

    Attributes:
        magic: How every stream of it begins; empty when nothing tells.
        several: Whether a body may be several streams, one after the other.
    """

    magic: bytes
    several: bool

    def open(self, beginning: bytes) -> _Stream:
        """A new stream that begins so."""


class _Gzip:
    magic = b"\x1f\x8b"
    several = True

    def open(self, beginning: bytes) -> _Stream:  # noqa: ARG002
        return _ZlibStream(16 + zlib.MAX_WBITS)


class _Deflate:
    magic = b""
    several = False

    def open(self, beginning: bytes) -> _Stream:
        # "deflate" means zlib's format (RFC 9110), but servers exist that send the bare stream.
        return _ZlibStream(zlib.MAX_WBITS if beginning[0] & 0x0F == 8 else -zlib.MAX_WBITS)


class _Brotli:
    magic = b""
    several = False

    def open(self, beginning: bytes) -> _Stream:  # noqa: ARG002
        return _BrotliStream()


class _Zstd:
    magic = b"\x28\xb5\x2f\xfd"
    several = True

    def open(self, beginning: bytes) -> _Stream:  # noqa: ARG002
        return _ZstdStream()


_ENCODINGS: Final[dict[str, _Encoding]] = {
    "gzip": _Gzip(),
    "x-gzip": _Gzip(),
    "deflate": _Deflate(),
    "br": _Brotli(),
    "zstd": _Zstd(),
}
#: The encodings that are understood, for messages.
KNOWN: Final = (*(name for name in _ENCODINGS if name != "x-gzip"), "identity")


class _Layer:
    """One encoding of a body."""

    def __init__(self, encoding: _Encoding) -> None:
        self._encoding = encoding
        self._stream: _Stream | None = None
        self._members = 0
        self._over = False
        # The beginning of a member that is too short to tell what it is.
        self._unread = b""

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """What a piece decodes to, in steps."""
        piece, self._unread = self._unread + piece, b""
        while piece and not self._over:
            stream = self._stream
            if stream is None or stream.ended:
                if len(piece) < len(self._encoding.magic):
                    self._unread = piece
                    return
                stream = self._next(piece)
                if stream is None:
                    self._over = True
                    return
                self._stream = stream
            yield from stream.decode(piece)
            piece = stream.rest if stream.ended else b""

    def end(self) -> bytes:
        """What is left when the body has ended.

        Raises:
            BrokenEncoding: It ends too early.
        """
        if self._stream is None and self._unread.startswith(_PLAIN):
            return self._unread
        if self._stream is None and self._unread:
            raise BrokenEncoding("the compressed body ends too early")
        if self._stream is not None and not self._stream.ended and not isinstance(self._stream, _PlainStream):
            raise BrokenEncoding("the compressed body ends too early")
        return b""

    def _next(self, beginning: bytes) -> _Stream | None:
        """The stream that begins here; None when what follows the last one is not part of the body."""
        encoding = self._encoding
        # A stream without a magic number may begin with any byte.
        if self._stream is None and encoding.magic and beginning.startswith(_PLAIN):
            self._members = 1
            return _PlainStream()
        if self._stream is not None and not (encoding.several and beginning.startswith(encoding.magic)):
            return None
        self._members += 1
        if self._members > MAX_MEMBERS:
            # What is left of a piece is copied for each: millions of empty members would take hours.
            raise TooManyMembers
        return encoding.open(beginning)


class Decoder:
    """Takes wire bytes, keeps decoded ones.

    Args:
        layers: Its encodings, the outermost first.
        limit_bytes: The body at most, however far it is decoded.
    """

    def __init__(self, layers: list[_Layer], limit_bytes: int) -> None:
        self._layers = layers
        self._limit_bytes = limit_bytes
        self._sizes = [0] * len(layers)
        self._pieces: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, piece: bytes) -> None:
        """Decode one piece.

        Raises:
            OverLimit: More decoded bytes than the limit.
            BrokenEncoding: The piece cannot be decoded.
            TooManyMembers: A body has more than `MAX_MEMBERS`.
        """
        if not self._begun:
            self._begun = True
            if not self._layers and piece[:1] == _Gzip.magic[:1]:
                # A file that was compressed before a server got it; no text begins so.
                self._layers, self._sizes = [_Layer(_ENCODINGS["gzip"])], [0]
        self._pass_on(piece, 0)

    def finish(self) -> bytes:
        """The whole body.

        Raises:
            BrokenEncoding: It ends too early.
            OverLimit: More decoded bytes than the limit.
        """
        for index, layer in enumerate(self._layers):
            if rest := layer.end():
                self._pass_on(rest, index + 1)
        return self._so_far()

    def beginning(self, raw: bytes) -> bytes:
        """What can be read of the beginning of a body, up to the limit; never an error."""
        with contextlib.suppress(OverLimit, BrokenEncoding, TooManyMembers):
            self.feed(raw)
        return self._so_far()[: self._limit_bytes]

    def _pass_on(self, piece: bytes, depth: int) -> None:
        if depth == len(self._layers):
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > self._limit_bytes:
                raise OverLimit
            return
        for decoded in self._layers[depth].decode(piece):
            self._pass_on(decoded, depth + 1)
            self._sizes[depth] += len(decoded)
            if self._sizes[depth] > self._limit_bytes + _STEP_BYTES:
                raise OverLimit

    def _so_far(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)


def decoder_for(encoding: str, limit_bytes: int) -> Decoder | None:
    """The decoder of a Content-Encoding (empty means none), or None when it is not known.

    Args:
        encoding: The header; of several encodings the last one was applied last.
        limit_bytes: The decoded body at most.
    """
    encodings = _encodings(encoding)
    return None if encodings is None else Decoder([_Layer(each) for each in encodings], limit_bytes)


@lru_cache(maxsize=64)
def _encodings(header: str) -> tuple[_Encoding, ...] | None:
    """The encodings of a header, the outermost first; None when one is not known."""
    named = (part.strip().strip('"').lower() for part in header.split(","))
    names = [name for name in named if name not in _NOTHING]
    if len(names) > _MAX_LAYERS or not all(name in _ENCODINGS for name in names):
        return None
    return tuple(_ENCODINGS[name] for name in reversed(names))
