#!/usr/bin/env bash
# Run once by the postgres image, when its volume is new: two databases, each with an owner of its own.
set -euo pipefail

create() {
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --set "name=$1" --set "owner=$2" --set "password=$3" <<'SQL'
CREATE ROLE :"owner" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"owner";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
}

create "$POSTGRES_AIRFLOW_DB" "$POSTGRES_AIRFLOW_USER" "$POSTGRES_AIRFLOW_PASSWORD"
create "$POSTGRES_COLLECT_DB" "$POSTGRES_COLLECT_USER" "$POSTGRES_COLLECT_PASSWORD"
