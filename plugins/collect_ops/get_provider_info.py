"""What Airflow's provider discovery reads: the connection type `rabbitmq` and where Airflow's words are."""

from __future__ import annotations

from typing import Any

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": [],
    "relabeling": {"schema": "Virtual host"},
    "placeholders": {"host": "127.0.0.1", "port": "5672", "schema": "/"},
}

_TEXT = {"schema": {"type": ["string", "null"]}}


def get_provider_info() -> dict[str, Any]:
    """The provider's description, in the form of Airflow's `provider_info.schema.json`."""
    return {
        "package-name": "collect-ops",
        "name": "collect-ops",
        "description": "Collects paged HTTP data into PostgreSQL; RabbitMQ hook, operators, sensor.",
        "hooks": [_modules("hooks.rabbitmq")],
        "operators": [_modules("operators.rabbitmq")],
        "sensors": [_modules("sensors.rabbitmq")],
        "triggers": [_modules("triggers.rabbitmq")],
        "connection-types": [
            {
                "connection-type": "rabbitmq",
                "hook-class-name": "collect_ops.hooks.rabbitmq.RabbitMQHook",
                "hook-name": "RabbitMQ",
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": {
                    "management_url": {
                        "label": "Management API",
                        "description": "http://host:15672",
                        **_TEXT,
                    },
                    "management_login": {
                        "label": "Management user",
                        "description": "Who only looks; the login without",
                        **_TEXT,
                    },
                    "management_password": {
                        "label": "Management password",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    "tls": {"label": "TLS", "schema": {"type": ["boolean", "null"], "default": False}},
                    "ca_file": {
                        "label": "CA certificates",
                        "description": "Path; the system's without",
                        **_TEXT,
                    },
                    "cert_file": {"label": "Client certificate", "description": "Path", **_TEXT},
                    "key_file": {"label": "Client key", "description": "Path", **_TEXT},
                },
            }
        ],
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": "RabbitMQ", "python-modules": [f"collect_ops.{name}" for name in names]}
