"""The native stack: PostgreSQL, Redis, RabbitMQ and Airflow on one machine, supervised, in one folder.

Run as `python -m stack COMMAND` (the Makefile does). Promises: everything it writes lies below STACK_HOME;
everything it starts listens on 127.0.0.1 and ends with `down`, whatever crashed before; running `up` twice is
harmless; a second STACK_HOME runs beside the first.
"""
