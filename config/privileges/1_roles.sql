-- Before the migrations, as superuser, in the database collect_ops; repeatable. Both stacks run it at every start.
--
-- collect_ops owns the database and the schema `collect`, and is nobody that runs. collect_landing owns the tables that
-- rows land in. collect_worker may do what a worker needs; nodes are members of collect_nodes, which is let in from other
-- machines. collect_control is what Airflow's servers log in as, collect_person who reads with psql, collect_cli the
-- command `collect-ops` that a person runs. Logins get their passwords from whoever runs this.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[
        'collect_landing', 'collect_worker', 'collect_nodes', 'collect_control', 'collect_person',
        'collect_cli', 'airflow_results'
    ] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
END $$;

GRANT collect_landing TO collect_worker, collect_person, collect_ops;
GRANT collect_worker TO collect_control, collect_nodes, collect_cli;
GRANT airflow_results TO collect_nodes;
-- What a person makes in `landing` belongs to whoever lands there.
ALTER ROLE collect_person IN DATABASE collect_ops SET role = 'collect_landing';
GRANT CONNECT, TEMPORARY ON DATABASE collect_ops TO collect_landing, collect_person;

-- A value that a column refuses stands in PostgreSQL's error, as the server sent it, and may hold what that server was sent:
-- whoever ran the statement tells it, masked. Airflow's statements hold their values, a connection's login for one.
ALTER DATABASE collect_ops SET log_min_messages = 'fatal';
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_database WHERE datname = 'airflow') THEN
        ALTER DATABASE airflow SET log_min_error_statement = 'panic';
    END IF;
END $$;

CREATE SCHEMA IF NOT EXISTS collect AUTHORIZATION collect_ops;
CREATE SCHEMA IF NOT EXISTS landing AUTHORIZATION collect_landing;
CREATE SCHEMA IF NOT EXISTS landing_aside AUTHORIZATION collect_landing;
ALTER SCHEMA landing OWNER TO collect_landing;
ALTER SCHEMA landing_aside OWNER TO collect_landing;
GRANT USAGE ON SCHEMA collect TO collect_landing;

-- Tables that a later migration makes; 2_grants.sql takes away what workers need not have.
ALTER DEFAULT PRIVILEGES FOR ROLE collect_ops IN SCHEMA collect GRANT SELECT ON TABLES TO collect_landing;
ALTER DEFAULT PRIVILEGES FOR ROLE collect_ops IN SCHEMA collect
GRANT INSERT, UPDATE, DELETE ON TABLES TO collect_worker, collect_control;
ALTER DEFAULT PRIVILEGES FOR ROLE collect_ops IN SCHEMA collect GRANT USAGE ON SEQUENCES TO collect_worker;

-- A table made in `landing` belongs to collect_landing, whoever made it: a worker can index, swap and drop what another
-- has made, also one that still runs as collect_ops.
CREATE OR REPLACE FUNCTION public.give_to_landing() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog AS $$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT c.object_identity
        FROM pg_event_trigger_ddl_commands() AS c
        JOIN pg_class AS t ON t.oid = c.objid
        WHERE
            c.classid = 'pg_class'::regclass AND c.object_type = 'table'
            AND c.schema_name IN ('landing', 'landing_aside')
            AND t.relowner <> 'collect_landing'::regrole
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO collect_landing', made.object_identity);
    END LOOP;
END $$;
DROP EVENT TRIGGER IF EXISTS give_to_landing;
CREATE EVENT TRIGGER give_to_landing ON ddl_command_end
WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO') EXECUTE FUNCTION public.give_to_landing();

-- Control writes to the tables that nodes own. What hangs on a table runs as whoever writes to it, so nobody but the
-- owner of the schema and superusers leaves code there; one trigger is everybody's, and does no more than it says.
CREATE OR REPLACE FUNCTION public.no_code_in_landing() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog AS $$
DECLARE
    made record;
BEGIN
    IF pg_has_role(current_user, 'collect_ops', 'MEMBER') THEN
        RETURN;
    END IF;
    FOR made IN
        SELECT c.command_tag, c.object_identity
        FROM pg_event_trigger_ddl_commands() AS c
        LEFT JOIN pg_trigger AS t ON c.classid = 'pg_trigger'::regclass AND t.oid = c.objid
        WHERE t.tgfoid IS DISTINCT FROM to_regprocedure('collect.forget_pages()')::oid
    LOOP
        RAISE EXCEPTION '% %: % may not leave code that others run', made.command_tag, made.object_identity, current_user
            USING ERRCODE = 'insufficient_privilege', HINT = 'the database''s owner, collect_ops, may';
    END LOOP;
END $$;
DROP EVENT TRIGGER IF EXISTS no_code_in_landing;
CREATE EVENT TRIGGER no_code_in_landing ON ddl_command_end
WHEN TAG IN (
    'CREATE FUNCTION', 'CREATE PROCEDURE', 'CREATE AGGREGATE', 'CREATE OPERATOR', 'CREATE CAST', 'CREATE TRIGGER',
    'CREATE RULE', 'CREATE POLICY', 'ALTER POLICY'
) EXECUTE FUNCTION public.no_code_in_landing();
