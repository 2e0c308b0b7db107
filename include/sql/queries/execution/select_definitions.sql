-- Declarations as they were admitted. Primary key.
SELECT encode(hash, 'hex') AS version, format, coalesce(declared, definition) AS definition FROM collect.source_version
WHERE encode(hash, 'hex') = ANY(%(versions)s)
