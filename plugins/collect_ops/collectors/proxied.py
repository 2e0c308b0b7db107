"""Links of servers that do not know what stands between them and us. Pure.

Behind a proxy that ends TLS a server believes that it is asked over http; behind a gateway that takes a prefix off the
path it does not know the prefix. Its links then lead elsewhere, or past the gateway.
"""

from __future__ import annotations

from urllib.parse import unquote

from yarl import URL


def as_reached(link: URL, *, base: URL, path: str | None = None) -> URL:
    """The address of a link as we reach it.

    Args:
        link: Absolute.
        base: The connection's base URL.
        path: The path that was asked for below it: by it a prefix that is missing is told. None: none is.
    """
    if link.raw_host != base.raw_host:
        return link
    link = _over_tls(link, base)
    return link if path is None else _with_prefix(link, base, path)


def _over_tls(link: URL, base: URL) -> URL:
    """A link over http to the very host that we ask over https goes over https as well."""
    if base.scheme != "https" or link.scheme != "http" or link.port not in (80, 443, base.port):
        return link
    return URL.build(
        scheme="https",
        authority=base.with_user(None).raw_authority,
        path=link.raw_path,
        query_string=link.raw_query_string,
        encoded=True,
    )


def _with_prefix(link: URL, base: URL, path: str) -> URL:
    prefix = base.raw_path.rstrip("/")
    same_place = (link.scheme, link.port) == (base.scheme, base.port)
    if not prefix or not same_place or _is_below(link.raw_path, prefix) or not _is_below(link.raw_path, path):
        return link
    return URL.build(
        scheme=link.scheme,
        authority=link.raw_authority,
        path=prefix + link.raw_path,
        query_string=link.raw_query_string,
        encoded=True,
    )


def _is_below(path: str, top: str) -> bool:
    path, top = unquote(path).rstrip("/"), unquote(top).rstrip("/")
    # Below the root is everything: then only the root itself says that the prefix is missing.
    return path == top or (bool(top) and path.startswith(f"{top}/"))
