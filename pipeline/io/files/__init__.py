"""Files as a store: CSV, Parquet and JSON lines in; versioned Parquet folders out. Local, S3, GCS, Azure."""
