-- Returns the primary key of the relation of this name: the constraint and its columns in order; no row without one.
-- Uses pg_class_relname_nsp_index and pg_index_indrelid_index. Reads the catalogue only; the caller holds the name's
-- advisory lock.
SELECT
    o.conname AS name,
    array_agg(a.attname::text ORDER BY k.place) AS columns
FROM pg_class AS c
JOIN pg_constraint AS o ON o.conrelid = c.oid AND o.contype = 'p'
CROSS JOIN LATERAL unnest(o.conkey) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
WHERE c.relnamespace = to_regnamespace(%(schema_name)s) AND c.relname = %(table_name)s
GROUP BY o.conname
