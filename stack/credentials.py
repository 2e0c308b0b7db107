"""Passwords and keys of a stack: generated once, kept in a file only its owner can read."""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
from pathlib import Path

from stack.env_files import parse

HEADER = (
    "# Generated at first start. Remove the stack's data (make clean) before you change what is in here.\n"
)


def password() -> str:
    """A new password: 192 bits, letters, digits, `-` and `_` only, so that it needs no quoting anywhere."""
    return secrets.token_urlsafe(24)


def generate() -> dict[str, str]:
    """New secrets for a whole stack."""
    return {
        "POSTGRES_SUPERUSER_PASSWORD": password(),
        "POSTGRES_AIRFLOW_PASSWORD": password(),
        # The owners of database, Redis and RabbitMQ: of the stack's own commands only.
        "POSTGRES_COLLECT_PASSWORD": password(),
        "REDIS_PASSWORD": password(),
        "RABBITMQ_PASSWORD": password(),
        # What runs (stack/access.py).
        "POSTGRES_CONTROL_PASSWORD": password(),
        "POSTGRES_PERSON_PASSWORD": password(),
        "POSTGRES_CLI_PASSWORD": password(),
        "REDIS_CONTROL_PASSWORD": password(),
        "REDIS_PERSON_PASSWORD": password(),
        "RABBITMQ_CONTROL_PASSWORD": password(),
        "RABBITMQ_PERSON_PASSWORD": password(),
        "RABBITMQ_MONITOR_PASSWORD": password(),
        # Nodes' passwords are made of it.
        "NODES_KEY": secrets.token_urlsafe(48),
        "RABBITMQ_ERLANG_COOKIE": secrets.token_hex(32),
        # HS512 wants a key of at least 64 bytes.
        "AIRFLOW_JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW_API_SECRET_KEY": secrets.token_urlsafe(48),
        "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW_ADMIN_PASSWORD": password(),
        "AIRFLOW_VIEWER_PASSWORD": password(),
        "AIRFLOW_SERVICE_PASSWORD": password(),
        "AIRFLOW_PERSON_PASSWORD": password(),
    }


def load_or_generate(path: Path) -> dict[str, str]:
    """The secrets of the file; what is missing in it (all, at first) is generated and written, mode 0600."""
    known = parse(path) if path.exists() else {}
    missing = {key: value for key, value in generate().items() if key not in known}
    if missing:
        known |= missing
        write_private(path, HEADER + "".join(f"{key}={value}\n" for key, value in known.items()))
    return known


def fill(path: Path) -> list[str]:
    """Give a value to every secret of an environment file that has none; the rest of the file stays as it is.

    Returns:
        The names that were filled in. Those that the example has and the file has not are added at its end.
    """
    example = (Path(__file__).resolve().parent.parent / "docker.env.example").read_text()
    names = re.findall(r"^([A-Z_]+)=$", example, flags=re.MULTILINE)
    made = generate()
    lines, filled = path.read_text().splitlines(), []
    known = {line.partition("=")[0]: number for number, line in enumerate(lines) if not line.startswith("#")}
    for name in names:
        number = known.get(name)
        if number is not None and lines[number].partition("=")[2]:
            continue
        line = f"{name}={made.get(name) or password()}"
        if number is None:
            lines.append(line)
        else:
            lines[number] = line
        filled.append(name)
    write_private(path, "\n".join(lines) + "\n")
    return filled


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a file in one step; at no moment can anyone else read it."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def main(arguments: list[str]) -> int:
    """Fill in an environment file of docker-compose.yaml."""
    if len(arguments) != 1:
        print("usage: python -m stack.credentials docker.env", file=sys.stderr)
        return 2
    print(f"filled in: {', '.join(fill(Path(arguments[0]))) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
