-- Returns a row when the table's deletions are watched. Uses pg_trigger_tgrelid_tgname_index.
SELECT true AS watched FROM pg_trigger
WHERE
    tgrelid = to_regclass(format('landing.%%I', %(table_name)s::text)) AND tgname = 'forget_pages'
    AND tgenabled IN ('O', 'A')
