-- Keeps a declaration as it is now; known ones stay. Primary key.
INSERT INTO collect.source_version (hash, source, definition, format, declared)
VALUES (%(hash)s, %(source)s, %(resolved)s::json, %(format)s, %(declared)s::json)
ON CONFLICT (hash) DO NOTHING
