"""Ray jobs from Airflow, over Ray's Jobs REST API; nothing of Ray is installed beside Airflow."""
