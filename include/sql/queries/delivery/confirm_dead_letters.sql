-- Records that collect.dead holds these. Primary key; safe twice.
UPDATE collect.dead_letter SET confirmed_at = now() WHERE id = ANY(%(ids)s) AND confirmed_at IS NULL
