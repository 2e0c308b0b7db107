-- Keeps a declaration as it is now; known ones stay. Primary key.
INSERT INTO collect.source_version (hash, source, definition)
VALUES (%(hash)s, %(source)s, %(definition)s)
ON CONFLICT (hash) DO NOTHING
