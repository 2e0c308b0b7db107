"""What every other package stands on: errors, identifiers, settings, masking, logging. No I/O, no Airflow."""
