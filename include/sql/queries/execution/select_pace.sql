-- How fast a source was. Primary key.
SELECT unit, shard_size, rates FROM collect.source_pace WHERE source = %(source)s
