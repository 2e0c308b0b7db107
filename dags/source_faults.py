"""Shows source files with faults as an import error in the Airflow UI. They take nothing else down."""

from __future__ import annotations

from collect_ops.sources.load import load_sources

faults = load_sources().faults
if faults:
    raise ValueError("\n\n".join(f"{path.name}: {fault}" for path, fault in sorted(faults.items())))
