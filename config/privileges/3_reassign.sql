-- As superuser, in the database collect_ops, before new processes start; repeatable. Tables in `landing` from before
-- collect_landing was their owner get it. One transaction a table, none waits long: whoever lands at that moment holds
-- its table for a page only.
DO $$
DECLARE
    stray record;
    patience integer := 60;
BEGIN
    LOOP
        SELECT c.oid::regclass::text AS name INTO stray
        FROM pg_class AS c
        WHERE
            c.relnamespace IN ('landing'::regnamespace, 'landing_aside'::regnamespace)
            AND c.relkind IN ('r', 'p') AND c.relowner <> 'collect_landing'::regrole
        ORDER BY c.oid LIMIT 1;
        EXIT WHEN NOT FOUND;
        BEGIN
            SET LOCAL lock_timeout = '1s';
            EXECUTE format('ALTER TABLE %s OWNER TO collect_landing', stray.name);
        EXCEPTION
            WHEN lock_not_available THEN
                patience := patience - 1;
                IF patience = 0 THEN
                    RAISE EXCEPTION '% cannot be given to collect_landing: somebody holds it', stray.name
                        USING ERRCODE = 'lock_not_available', HINT = 'end what holds it, and run this again';
                END IF;
            WHEN undefined_table THEN
                NULL;  -- dropped meanwhile
        END;
        COMMIT;
    END LOOP;
END $$;
