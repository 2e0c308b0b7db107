"""The variables that programs get: what Airflow needs, what people need, and nothing by accident."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from collect_ops.sources.examples import EXAMPLES_VARIABLE
from stack import access, env_files
from stack.env_files import CONFIG
from stack.layout import CHECKOUT
from stack.node_settings import CELERY, LOCAL
from stack.settings import HOST, Stack

# Another folder of DAGs than the checkout's: `benchmarks idle` measures Airflow with an empty one.
DAGS_FOLDER = "COLLECT_DAGS_FOLDER"
# What a child keeps of the caller's environment. The rest stays out: a stray AIRFLOW__* or PG* of the shell
# that ran `make up` would otherwise rule the stack until its next start.
KEPT = (
    "HOME", "LANG", "LC_ALL", "LOGNAME", "TZ", "USER",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE",
    DAGS_FOLDER,
)  # fmt: skip
# What a machine is called as a node: agent and workers must agree.
NODE = ("COLLECT_NODE_ID", "COLLECT_NODE_HEARTBEAT_S")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STACK_MARK = "COLLECT_OPS_STACK"
# Read by the cluster policy: the queue of tasks that must not wait on a worker host.
CONTROL_QUEUE = "COLLECT_CONTROL_QUEUE"
# Whether shard groups are sent to chosen nodes; without it, as soon as there are Celery workers.
NODE_QUEUES = "COLLECT_NODE_QUEUES"
PROGRAM_MARK = "COLLECT_OPS_PROGRAM"


def base() -> dict[str, str]:
    """What every child gets."""
    kept = {key: os.environ[key] for key in (*KEPT, *NODE) if key in os.environ}
    python_folder = Path(sys.executable).parent
    return {"LANG": "C.UTF-8", **kept, "PATH": f"{python_folder}:{SYSTEM_PATH}", "PYTHONUNBUFFERED": "1"}


#: What tells which executor runs, and whether nodes have queues of their own.
EXECUTOR_MARKS = ("AIRFLOW__CORE__EXECUTOR", NODE_QUEUES)


def program_folder() -> Path:
    """Where this environment's programs are: by the link `.stack/venv`, which outlives a lock, if it leads here."""
    own, link = Path(sys.executable).parent, CHECKOUT / ".stack" / "venv" / "bin"
    return link if link.resolve() == own.resolve() else own


def marks(stack: Stack, program: str) -> dict[str, str]:
    """The variables by which a process is known to belong to this stack."""
    return {STACK_MARK: str(stack.layout.home), PROGRAM_MARK: program}


def airflow(stack: Stack, host: str = HOST, places: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the Airflow processes get: shared settings, this stack's addresses and secrets, connections.

    Args:
        stack: The stack.
        host: Where who gets it reaches the services.
        places: As whom it is reached; as control processes do when not given.
    """
    places = places or stack.control_places(host)
    checkout, home = stack.layout.checkout, stack.layout.airflow_home
    base_url = f"http://{host}:{stack.ports.api_server}"
    return {
        **env_files.parse(CONFIG / "airflow.env"),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": os.environ.get(DAGS_FOLDER) or str(checkout / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(checkout / "plugins"),
        **executor(stack, places),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{base_url}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": stack.secrets["AIRFLOW_FERNET_KEY"],
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        env_files.DATABASE_KEY: env_files.database(places),
        "AIRFLOW__API__BASE_URL": base_url,
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(stack.ports.api_server),
        "AIRFLOW__API__SECRET_KEY": stack.secrets["AIRFLOW_API_SECRET_KEY"],
        "AIRFLOW__API_AUTH__JWT_SECRET": stack.secrets["AIRFLOW_JWT_SECRET"],
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__DAG_PROCESSOR__CHILD_PROCESS_LOG_DIRECTORY": str(home / "logs" / "dag_processor"),
        "PYTHONPATH": f"{checkout / 'plugins'}:{checkout / 'config'}",
        **({EXAMPLES_VARIABLE: "1"} if stack.examples else {}),
        **env_files.addresses(places),
        **env_files.connections(places),
    }


def watchdog(stack: Stack) -> dict[str, str]:
    """What the watchdog gets: where the stack is; secrets it reads from their file."""
    checkout = stack.layout.checkout
    return {
        "STACK_HOME": str(stack.layout.home),
        "PYTHONPATH": f"{checkout}:{checkout / 'plugins'}",
        **{key: os.environ[key] for key in NODE if key in os.environ},
    }


def api_server(stack: Stack) -> dict[str, str]:
    """What the api-server gets: no address or connection of collect-ops.

    Its execution API gives a connection of its environment to any task that asks, also to one on a worker host, whose
    own may do less.
    """
    own = {*env_files.connections(stack.places), *env_files.addresses(stack.places)}
    return {key: value for key, value in airflow(stack).items() if key not in own}


def executor(stack: Stack, places: Mapping[str, str]) -> dict[str, str]:
    """Which executor, and what it needs."""
    if not stack.nodes.celery:
        return {"AIRFLOW__CORE__EXECUTOR": LOCAL}
    return {
        "AIRFLOW__CORE__EXECUTOR": CELERY,
        # Here it bounds all workers together, and forks nothing: at 8, half of 16 groups were measured to wait.
        "AIRFLOW__CORE__PARALLELISM": "64",
        CONTROL_QUEUE: "control",
        # One worker leaves nothing to choose: its groups wait neither for its registration nor for its load.
        **({} if stack.nodes.count else {NODE_QUEUES: "0"}),
        **env_files.celery(places),
    }


def _with_own_programs(path: str) -> str:
    """A search path that finds `collect-ops` and `airflow` of this checkout's environment first."""
    own = str(program_folder())
    return ":".join([own, *(folder for folder in path.split(":") if folder != own)])


def owner(stack: Stack) -> dict[str, str]:
    """The same as the owner of everything: for migrations, and for what makes users and queues."""
    return airflow(stack, places=stack.places)


def person(stack: Stack) -> dict[str, str]:
    """What `make env` exports: psql, redis-cli, curl and `collect-ops` work with it, and nothing else does."""
    places = stack.person_places()
    return {
        STACK_MARK: str(stack.layout.home),
        "PATH": _with_own_programs(os.environ.get("PATH", SYSTEM_PATH)),
        "PGHOST": HOST,
        "PGPORT": str(stack.ports.postgres),
        "PGUSER": access.PERSON,
        "PGPASSWORD": stack.secrets["POSTGRES_PERSON_PASSWORD"],
        "PGDATABASE": places["POSTGRES_COLLECT_DB"],
        "COLLECT_REDIS_PORT": str(stack.ports.redis),
        "COLLECT_SERVE_ADDRESS": stack.nodes.bridge or HOST,
        "COLLECT_AIRFLOW_USER": access.PERSON,
        "COLLECT_AIRFLOW_PASSWORD": stack.secrets["AIRFLOW_PERSON_PASSWORD"],
        # Not secrets: by them `collect-ops` knows whether nodes have queues.
        **{key: value for key, value in executor(stack, places).items() if key in EXECUTOR_MARKS},
        **({EXAMPLES_VARIABLE: "1"} if stack.examples else {}),
        **env_files.addresses(places),
    }


def everything(stack: Stack) -> dict[str, str]:
    """What `make env ALL=1` exports: the owners' and the superuser's secrets, and the airflow command's settings."""
    places = stack.places
    superuser = f"postgres:{stack.secrets['POSTGRES_SUPERUSER_PASSWORD']}"
    return {
        **person(stack),
        "PGUSER": places["POSTGRES_COLLECT_USER"],
        "PGPASSWORD": places["POSTGRES_COLLECT_PASSWORD"],
        "COLLECT_POSTGRES_ADMIN_DSN": f"postgresql://{superuser}@{HOST}:{stack.ports.postgres}/postgres",
        "REDISCLI_AUTH": stack.secrets["REDIS_PASSWORD"],
        "COLLECT_AIRFLOW_USER": "admin",
        "COLLECT_AIRFLOW_PASSWORD": stack.secrets["AIRFLOW_ADMIN_PASSWORD"],
        **owner(stack),
    }
