"""The Airflow pools that the lanes need. `python -m stack.pools` prints them for `airflow pools import`."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

LANES_FILE = Path(__file__).resolve().parent.parent / "include" / "rules" / "lanes.yaml"


def pools(lanes_file: Path = LANES_FILE) -> dict[str, dict[str, object]]:
    """The Airflow pools that the lanes need, in the form `airflow pools import` reads.

    Args:
        lanes_file: `include/rules/lanes.yaml` or another of its form; lane NAME has pool `collect_NAME`.
    """
    rules = yaml.safe_load(lanes_file.read_text())
    lanes = {
        f"collect_{name}": {"slots": lane["slots"], "description": f"Shard groups of lane {name}"}
        for name, lane in rules["lanes"].items()
    }
    control = {
        rules["control"]["pool"]: {
            "slots": rules["control"]["slots"],
            "description": "Claiming, settling, sweeping: never behind shard groups",
        }
    }
    return {name: {**pool, "include_deferred": False} for name, pool in {**lanes, **control}.items()}


if __name__ == "__main__":
    print(json.dumps(pools(), indent=2))
