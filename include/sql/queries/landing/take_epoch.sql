-- Begins a target's next epoch, when its table or the declaration that lands in it is another one. Uses
-- landing_target_pkey. Of two that do so at once the second waits, and then begins one more only if it must.
INSERT INTO collect.landing_target AS t (table_name, table_oid, version)
VALUES (%(table_name)s, to_regclass(format('landing.%%I', %(table_name)s::text))::oid, %(version)s)
ON CONFLICT (table_name) DO UPDATE
SET epoch = t.epoch + 1, table_oid = EXCLUDED.table_oid, version = EXCLUDED.version
WHERE (t.table_oid, t.version) IS DISTINCT FROM (EXCLUDED.table_oid, EXCLUDED.version)
