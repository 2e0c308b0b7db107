-- Returns the relation of this name, or no row: its kind, and its columns, in their order, with their types in
-- PostgreSQL's own words and whether an INSERT has to give them. Uses pg_class_relname_nsp_index and pg_attribute_relid_attnum_index. Reads
-- the catalogue only; the caller holds the name's advisory lock.
SELECT
    CASE c.relkind
        WHEN 'r' THEN 'table'
        WHEN 'p' THEN 'table'
        WHEN 'v' THEN 'view'
        WHEN 'm' THEN 'materialized view'
        WHEN 'f' THEN 'foreign table'
        ELSE 'relation'
    END AS kind,
    coalesce(
        -- Not jsonb, which sorts its keys.
        json_object_agg(
            a.attname,
            json_build_object(
                'type', format_type(a.atttypid, a.atttypmod),
                'must_be_given', a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
            )
            ORDER BY a.attnum
        ) FILTER (WHERE a.attname IS NOT NULL),
        json_build_object()
    ) AS columns
FROM pg_class AS c
LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace(%(schema_name)s) AND c.relname = %(table_name)s
GROUP BY c.oid, c.relkind
