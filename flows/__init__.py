"""One short file a Prefect deployment."""
