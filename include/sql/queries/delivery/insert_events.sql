-- What alert rules look at. Identity.
INSERT INTO collect.event (kind, severity, subject, message, details)
SELECT e.kind, e.severity, e.subject, e.message, e.details
FROM jsonb_to_recordset(%(events)s) AS e (kind text, severity text, subject text, message text, details jsonb)
