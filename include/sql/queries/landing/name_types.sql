-- Returns types in PostgreSQL's own words (`int` is `integer` there), in the order given. Reads no table.
SELECT format_type(t.oid, t.modifier) AS name
FROM unnest(%(oids)s::oid[], %(modifiers)s::integer[]) WITH ORDINALITY AS t (oid, modifier, place)
ORDER BY t.place
