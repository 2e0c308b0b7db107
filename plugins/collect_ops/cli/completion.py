"""What the shell completes (`collect-ops --install-completion`)."""

from __future__ import annotations


def complete_source(incomplete: str) -> list[str]:
    """Names of sources that begin like this."""
    from collect_ops.sources.load import source_names

    return [name for name in source_names() if name.startswith(incomplete)]
