-- Template: the sequences {repeated} and {skipped}, which merge_staged has counted with.
-- Returns both counts. Reads temporary sequences only.
SELECT
    (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {repeated}) AS repeated,
    (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {skipped}) AS skipped
