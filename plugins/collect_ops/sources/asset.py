"""What a landing table is called as an Airflow asset. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TableAsset:
    """Name and URI of an asset."""

    name: str
    uri: str


def table_asset(table: str) -> TableAsset:
    """The asset of `landing.{table}`."""
    return TableAsset(name=f"landing.{table}", uri=f"collect://landing/{table}")
