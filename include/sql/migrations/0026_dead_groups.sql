-- How many open dead letters each group has, so that telling of groups does not read every letter.
-- Changes are appended and summed up, not counted in one row a group: tasks that end at the same time would wait for each
-- other there. Written by a trigger, so that whoever moves letters need not know of it.
CREATE TABLE collect.dead_group_change (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint text NOT NULL,
    source      text,
    letters     integer NOT NULL
);
COMMENT ON TABLE collect.dead_group_change IS
'Open dead letters by group and source: the sum of these; read and summed up whenever somebody looks, and by the sweep';

-- When the oldest and the newest of a group failed.
CREATE INDEX dead_letter_open_failed ON collect.dead_letter (fingerprint, failed_at) WHERE state = 'OPEN';

CREATE FUNCTION collect.count_dead_letters() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO collect.dead_group_change (fingerprint, source, letters)
        SELECT n.fingerprint, n.source, count(*) FROM new_rows AS n
        WHERE n.state = 'OPEN' AND n.fingerprint IS NOT NULL
        GROUP BY n.fingerprint, n.source;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO collect.dead_group_change (fingerprint, source, letters)
        SELECT o.fingerprint, o.source, -count(*) FROM old_rows AS o
        WHERE o.state = 'OPEN' AND o.fingerprint IS NOT NULL
        GROUP BY o.fingerprint, o.source;
    ELSE
        INSERT INTO collect.dead_group_change (fingerprint, source, letters)
        SELECT c.fingerprint, c.source, sum(c.letters)
        FROM (
            SELECT n.fingerprint, n.source, 1 AS letters FROM new_rows AS n WHERE n.state = 'OPEN'
            UNION ALL
            SELECT o.fingerprint, o.source, -1 FROM old_rows AS o WHERE o.state = 'OPEN'
        ) AS c
        WHERE c.fingerprint IS NOT NULL
        GROUP BY c.fingerprint, c.source
        HAVING sum(c.letters) <> 0;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER dead_letter_inserted AFTER INSERT ON collect.dead_letter
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION collect.count_dead_letters();
CREATE TRIGGER dead_letter_updated AFTER UPDATE ON collect.dead_letter
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION collect.count_dead_letters();
CREATE TRIGGER dead_letter_deleted AFTER DELETE ON collect.dead_letter
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION collect.count_dead_letters();

-- The triggers' locks keep writers away until this commits, so nothing is counted twice or not at all.
INSERT INTO collect.dead_group_change (fingerprint, source, letters)
SELECT fingerprint, source, count(*) FROM collect.dead_letter
WHERE state = 'OPEN' AND fingerprint IS NOT NULL
GROUP BY fingerprint, source;
