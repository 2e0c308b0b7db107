"""collect-ops: collect data at scale under Apache Airflow, without babysitting."""

__version__ = "0.2.0"
