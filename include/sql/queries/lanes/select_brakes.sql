-- The brakes of some sources; nearly always none. Primary key.
SELECT source, rule, reason, retry_after_s, per_s FROM collect.brake
WHERE source = ANY(%(sources)s::text[])
