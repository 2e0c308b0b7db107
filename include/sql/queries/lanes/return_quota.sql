-- What is left of a block goes back, on the day it is of. Primary key.
UPDATE collect.host_quota SET granted = granted - %(unused)s
WHERE connection = %(connection)s AND day = %(day)s AND granted >= %(unused)s
