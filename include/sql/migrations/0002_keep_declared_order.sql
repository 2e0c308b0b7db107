-- jsonb sorts the keys of an object, and with them the declared order of a target's columns; json keeps the text.
ALTER TABLE collect.source_version ALTER COLUMN definition TYPE json USING definition::json;
