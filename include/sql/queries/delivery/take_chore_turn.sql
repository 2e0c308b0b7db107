-- Takes a chore's turn, if its last one began an interval ago; of two that ask at once one gets it. Primary key. Returns
-- a row to whoever has it.
INSERT INTO collect.chore_turn AS c (chore, began_at)
VALUES (%(chore)s, now())
ON CONFLICT (chore) DO UPDATE SET began_at = now()
WHERE c.began_at <= now() - make_interval(secs => %(every_s)s)
RETURNING c.chore
