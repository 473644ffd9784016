"""The whole of Tidings on one machine: PostgreSQL, Prefect, the sandbox, a worker and the webhook server."""
