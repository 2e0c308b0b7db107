-- Records a step of a redrive, and its end when nothing is left. The caller holds its lock (lock_redrive). Primary key,
-- index redrive_item_pending.
UPDATE collect.redrive AS r
SET
    credit = %(credit)s,
    stepped_at = r.stepped_at + make_interval(secs => %(elapsed_s)s),
    finished_at = CASE
        WHEN NOT EXISTS (
            SELECT FROM collect.redrive_item AS i WHERE i.redrive_id = r.id AND i.state = 'PENDING'
        ) THEN clock_timestamp()
    END
WHERE r.id = %(redrive_id)s
