"""`python -m tests.documents`: every block of the documents, and what the tests do with it."""

from __future__ import annotations

from tests.documents.blocks import blocks_in
from tests.documents.checks import CHECKOUT, what_is_done_with


def main() -> None:
    """List them."""
    for path in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]:
        for block in blocks_in(path, CHECKOUT):
            reason = block.marks.get("not run here", "")
            print(f"{block.place:<28} {block.language:<11} {what_is_done_with(block):<9} {reason}")


if __name__ == "__main__":
    main()
