-- In Airflow's database, as superuser or its owner, once Celery's tables are there; repeatable. Of all that is in it, a
-- node may write what became of its Celery tasks. What Celery keeps of a task's own result is a pickle, and whoever
-- reads a pickle runs what is in it: none is kept. Airflow reads the state alone.
GRANT CONNECT ON DATABASE airflow TO airflow_results;
GRANT USAGE ON SCHEMA public TO airflow_results;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.celery_taskmeta, public.celery_tasksetmeta TO airflow_results;
GRANT USAGE ON SEQUENCE public.task_id_sequence, public.taskset_id_sequence TO airflow_results;
CREATE OR REPLACE FUNCTION public.keep_no_pickle() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.result := NULL;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER keep_no_pickle BEFORE INSERT OR UPDATE ON public.celery_taskmeta
FOR EACH ROW EXECUTE FUNCTION public.keep_no_pickle();
CREATE OR REPLACE TRIGGER keep_no_pickle BEFORE INSERT OR UPDATE ON public.celery_tasksetmeta
FOR EACH ROW EXECUTE FUNCTION public.keep_no_pickle();
