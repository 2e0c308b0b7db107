-- The log of moves is written by these functions, whoever makes the move: workers may not write to it themselves
-- (config/privileges/2_grants.sql).
ALTER FUNCTION collect.log_new_tasks() SECURITY DEFINER SET search_path = pg_catalog;
ALTER FUNCTION collect.log_moves() SECURITY DEFINER SET search_path = pg_catalog;
