-- Template: {texts} (the page, every column text), {staging} (the same columns, of their types), {faults}, and the
-- {assignments}, one column each: `at_column := 'a'; typed.a := raw.a;`.
-- Casts a page row by row: what fits goes to staging, what does not to faults, with the column and PostgreSQL's words.
-- An assignment casts as COPY does, length and precision included. The block with the handler only assigns and never
-- writes: its subtransactions get no transaction ids, and thousands of them do not slow down other sessions' snapshots.
-- Reads and writes temporary tables only.
DO $cast$
DECLARE
    raw {texts}%ROWTYPE;
    typed {staging}%ROWTYPE;
    at_column text;
    fault text;
BEGIN
    FOR raw IN SELECT * FROM {texts} ORDER BY _ordinal LOOP
        fault := NULL;
        BEGIN
            {assignments}
        EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded THEN
            GET STACKED DIAGNOSTICS fault = MESSAGE_TEXT;
        END;
        IF fault IS NULL THEN
            INSERT INTO {staging} SELECT typed.*;
        ELSE
            INSERT INTO {faults} VALUES (raw._ordinal, at_column, fault);
        END IF;
    END LOOP;
END
$cast$
