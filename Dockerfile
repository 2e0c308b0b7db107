# Airflow's official image with collect-ops and what it needs. Built by docker-compose.yaml.
FROM apache/airflow:3.3.2-python3.11

COPY --chown=airflow:0 requirements.lock /opt/airflow/
# The lock is complete: nothing is resolved here, so the image holds what was tested.
RUN pip install --no-cache-dir --no-deps --requirement /opt/airflow/requirements.lock

# The same shape as the checkout: collect_ops finds include/ beside plugins/. include/ and dags/ are mounted.
COPY --chown=airflow:0 pyproject.toml /opt/airflow/
COPY --chown=airflow:0 config /opt/airflow/config
COPY --chown=airflow:0 plugins /opt/airflow/plugins
COPY --chown=airflow:0 stack /opt/airflow/stack
# Installed, so that Airflow finds the connection types and `collect-ops` is a command.
RUN pip install --no-cache-dir --no-deps --editable /opt/airflow

# What `docker compose exec` and health checks call gets the entry point's variables, too.
RUN mkdir /opt/airflow/bin && for name in collect-ops airflow celery; do \
      ln -s ../stack/container-exec.sh "/opt/airflow/bin/$name"; done
ENV PATH=/opt/airflow/bin:$PATH

ENV PYTHONPATH=/opt/airflow/plugins:/opt/airflow/config:/opt/airflow
ENTRYPOINT ["/usr/bin/dumb-init", "--", "/opt/airflow/stack/container-entrypoint.sh"]
