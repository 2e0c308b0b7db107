-- Writes fingerprints. The caller holds the letters' locks. Primary key; safe twice.
UPDATE collect.dead_letter AS d
SET fingerprint = f.fingerprint, pattern = f.pattern, error_class = f.error_class, source = f.source
FROM unnest(
    %(ids)s::bigint[], %(fingerprints)s::text[], %(patterns)s::text[], %(error_classes)s::text[], %(sources)s::text[]
) AS f (id, fingerprint, pattern, error_class, source)
WHERE d.id = f.id AND d.fingerprint IS NULL
