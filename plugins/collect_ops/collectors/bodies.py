"""Bodies of responses, read and decoded within limits: never more than allowed is in memory."""

from __future__ import annotations

import aiohttp

from collect_ops.collectors.decoding import (
    KNOWN,
    MAX_MEMBERS,
    BrokenEncoding,
    OverLimit,
    TooManyMembers,
    decoder_for,
)
from collect_ops.collectors.errors import (
    CollectorError,
    ConnectionBroken,
    EncodingUnknown,
    PageTooLarge,
    TooManyGzipMembers,
)

# What an encoding may add to a body.
_ENCODING_BYTES = 64 * 1024


async def read_body(response: aiohttp.ClientResponse, limit_bytes: int, shown: str) -> tuple[bytes, int]:
    """The decoded body and its size on the wire.

    Raises:
        CollectorError: It cannot be decoded, or is over the limit.
    """
    encoding = ", ".join(response.headers.getall("Content-Encoding", ()))
    decoder = decoder_for(encoding, limit_bytes)
    if decoder is None:
        raise EncodingUnknown(shown, encoding, KNOWN)
    if response.content_length is not None and response.content_length > limit_bytes:
        raise PageTooLarge(shown, limit_bytes, response.content_length)
    wire_bytes = 0
    try:
        async for piece in response.content.iter_any():
            wire_bytes += len(piece)
            if wire_bytes > limit_bytes + _ENCODING_BYTES:
                break  # an encoded body that never becomes anything has no end
            decoder.feed(piece)
        else:
            return decoder.finish(), wire_bytes
    except OverLimit as error:
        raise PageTooLarge(shown, limit_bytes, None) from error
    except TooManyMembers as error:
        raise TooManyGzipMembers(shown, MAX_MEMBERS) from error
    except BrokenEncoding as error:
        raise ConnectionBroken(shown, f"content encoding {encoding}: {error}") from error
    raise PageTooLarge(shown, limit_bytes, None)


async def read_whole(response: aiohttp.ClientResponse, limit_bytes: int) -> tuple[bytes, int]:
    """The body of a refusal that a condition may look at; empty when it cannot be read: the status says enough."""
    try:
        return await read_body(response, limit_bytes, "")
    except (CollectorError, aiohttp.ClientError, OSError, TimeoutError):
        return b"", 0


async def read_beginning(response: aiohttp.ClientResponse, limit_bytes: int) -> tuple[bytes, int]:
    """The beginning of a refusal's body; it only explains, so what cannot be read of it does not matter."""
    decoder = decoder_for(", ".join(response.headers.getall("Content-Encoding", ())), limit_bytes)
    try:
        raw = await response.content.read(limit_bytes)
    except (aiohttp.ClientError, OSError, TimeoutError):
        raw = b""
    return (b"" if decoder is None else decoder.beginning(raw)), len(raw)
