"""Benchmarks: what the project does in a given time and memory, against what people would use instead.

`python -m benchmarks [collect|engine|latency]`; results in `results/NAME.json` and docs/benchmarks.md.
"""
