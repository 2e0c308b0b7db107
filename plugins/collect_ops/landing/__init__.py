"""Landing: fetched records become rows of a table in schema `landing`.

Promises: the rows of a page and nothing else are written, in the caller's transaction, so that they commit
together with the shard's progress; a record that does not fit is kept as a bad row with its reason and
never fails the page; landing the same page again changes nothing. Does not know who fetched the page, nor
whether the shard is still its holder's: the caller fences before it lands.
"""

from collect_ops.landing.errors import (
    AsideMissing,
    DeclarationUnusable,
    LandingCollision,
    LandingRefused,
    OutsideTransaction,
    RecordsNotObjects,
    TargetMismatch,
)
from collect_ops.landing.lander import Lander
from collect_ops.landing.model import Landed, LandingPage, Origin, Swap
from collect_ops.landing.table import drop_aside, ensure_aside, ensure_target, swap

__all__ = [
    "AsideMissing",
    "DeclarationUnusable",
    "Landed",
    "Lander",
    "LandingCollision",
    "LandingPage",
    "LandingRefused",
    "Origin",
    "OutsideTransaction",
    "RecordsNotObjects",
    "Swap",
    "TargetMismatch",
    "drop_aside",
    "ensure_aside",
    "ensure_target",
    "swap",
]
