-- What every task costs on disk, and how soon what is deleted or rewritten is used again.
-- Safe beside running processes: nobody reads the trace by its number, and no statement names its primary key.

-- 180 bytes a task that no statement has ever used: a trace is read by its task (trace_task).
ALTER TABLE collect.trace DROP CONSTRAINT trace_pkey;

-- A fifth of a table of a million rows is a long time to carry dead ones: at one in a hundred vacuum comes often and is
-- short.
ALTER TABLE collect.task SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE collect.submission SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE collect.dedup SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE collect.shard SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE collect.shard_group SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE collect.task_log SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE collect.trace SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE collect.bad_row SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE collect.dead_letter SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
ALTER TABLE collect.run_note SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_analyze_scale_factor = 0.02);
