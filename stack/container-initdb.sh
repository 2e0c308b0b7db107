#!/usr/bin/env bash
# The database-init job of docker-compose.yaml, as superuser at every start: two databases, each with an owner of its own,
# and the logins of what runs. PGHOST, PGUSER, PGPASSWORD and the POSTGRES_*_PASSWORDs come from the environment: on a
# command line others could read them.
set -euo pipefail
privileges="$(dirname "$0")/privileges"
[ -d "$privileges" ] || privileges="$(dirname "$0")/../config/privileges"

sql() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 "$@"; }

# login ROLE PASSWORD-VARIABLE
login() {
    sql --dbname postgres --set "role=$1" --set "variable=$2" <<'SQL'
SELECT format('CREATE ROLE %I', :'role') WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = :'role') \gexec
\getenv password :variable
ALTER ROLE :"role" LOGIN PASSWORD :'password';
SQL
}

# database NAME OWNER
database() {
    sql --dbname postgres --set "name=$1" --set "owner=$2" <<'SQL'
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'owner')
WHERE NOT EXISTS (SELECT 1 FROM pg_database WHERE datname = :'name') \gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

login airflow POSTGRES_AIRFLOW_PASSWORD
login collect_ops POSTGRES_COLLECT_PASSWORD
database airflow airflow
database collect_ops collect_ops
sql --dbname collect_ops --single-transaction --file "$privileges/1_roles.sql"
sql --dbname collect_ops --file "$privileges/3_reassign.sql"
login collect_control POSTGRES_CONTROL_PASSWORD
login collect_node POSTGRES_NODE_PASSWORD
sql --dbname postgres --command 'GRANT collect_nodes TO collect_node'
