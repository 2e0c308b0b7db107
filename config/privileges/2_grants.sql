-- After the migrations, in the database collect_ops, as superuser or collect_ops, in one transaction; repeatable.
GRANT SELECT ON ALL TABLES IN SCHEMA collect TO collect_landing;
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA collect TO collect_worker, collect_control;
-- Whether the database has what a process needs.
GRANT SELECT ON public.schema_migration TO collect_landing, collect_worker, collect_control;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA collect TO collect_worker;
-- A person lets a host or an endpoint be asked again before its time (docs/operations.md).
GRANT UPDATE (held_until, paused_until) ON collect.host TO collect_landing;
GRANT UPDATE (held_until) ON collect.endpoint TO collect_landing;

-- What was asked for and what became of it is not a node's to rewrite. Deleting a task deletes its log with it.
REVOKE INSERT, UPDATE, DELETE ON collect.task_log FROM collect_worker;
REVOKE DELETE ON collect.task, collect.submission, collect.dead_letter, collect.source_version FROM collect_worker;
REVOKE UPDATE ON collect.source_version FROM collect_worker;
REVOKE INSERT, UPDATE, DELETE ON collect.node_log, collect.event FROM collect_worker;
GRANT INSERT ON collect.event TO collect_worker;
-- A person's command cancels tasks and drains nodes, and what it does is written down; it rewrites and deletes nothing.
GRANT INSERT ON collect.task_log, collect.node_log TO collect_cli;
-- Which moves are legal is the schema's word.
REVOKE INSERT, UPDATE, DELETE ON collect.legal_move FROM collect_worker, collect_control;
-- A migration that replaces these functions would make them the caller's again, who may not write to the log.
ALTER FUNCTION collect.log_new_tasks() SECURITY DEFINER SET search_path = pg_catalog;
ALTER FUNCTION collect.log_moves() SECURITY DEFINER SET search_path = pg_catalog;
-- Triggers that are there go on; nobody hangs these functions on a table of their own, whose rows would be the log's.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA collect FROM public;
GRANT EXECUTE ON FUNCTION collect.forget_pages() TO collect_landing;
