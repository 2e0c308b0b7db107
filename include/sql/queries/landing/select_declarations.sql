-- What a source has declared, the newest first; there are few versions of a source, and few ask. Reads all versions.
SELECT encode(hash, 'hex') AS version, format, coalesce(declared, definition) AS definition
FROM collect.source_version
WHERE source = %(source)s
ORDER BY seen_at DESC
LIMIT %(limit)s
