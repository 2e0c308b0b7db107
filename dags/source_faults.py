"""Shows source files with faults under Dag Import Errors in the Airflow UI. They take nothing else down.

Airflow's safe mode reads only files that hold both the words "airflow" and "dag".
"""

from __future__ import annotations

from collect_ops.sources.load import load_sources

#: Files that are shown in full; a page of errors is read by people.
SHOWN = 20

faults = sorted(load_sources().faults.items())
if faults:
    shown = [f"{path.name}: {fault}" for path, fault in faults[:SHOWN]]
    if len(faults) > SHOWN:
        shown.append(f"{len(faults) - SHOWN} more files have faults: collect-ops source check")
    raise ValueError("\n\n".join(shown))
