-- Sums up the changes of each group and source in one row. Two that run at once delete different rows: the sums stay.
-- The whole table is small: what was written since the last time, and a row for each group and source.
WITH several AS (
    SELECT fingerprint, source FROM collect.dead_group_change
    GROUP BY fingerprint, source
    HAVING count(*) > 1
),
gone AS (
    DELETE FROM collect.dead_group_change AS c
    USING several AS s
    WHERE c.fingerprint = s.fingerprint AND c.source IS NOT DISTINCT FROM s.source
    RETURNING c.fingerprint, c.source, c.letters
)
INSERT INTO collect.dead_group_change (fingerprint, source, letters)
SELECT fingerprint, source, sum(letters) FROM gone
GROUP BY fingerprint, source
HAVING sum(letters) <> 0
