"""The statements of config/privileges/, as both stacks run them."""

from __future__ import annotations

from collections.abc import Mapping

from stack.env_files import CONFIG, database

FILES = CONFIG / "privileges"


def statements(name: str) -> bytes:
    """The text of a file."""
    return (FILES / name).read_bytes()


def create_result_tables(places: Mapping[str, str]) -> None:
    """Make the tables of Celery's results in Airflow's database; harmless when they are there."""
    from celery.backends.database.session import ResultModelBase  # type: ignore[import-untyped]
    from sqlalchemy import create_engine

    engine = create_engine(database(places))
    try:
        ResultModelBase.metadata.create_all(engine)
    finally:
        engine.dispose()
