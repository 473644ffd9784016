"""The Prefect view of the use cases: how often and on which errors they are tried again. No logic."""
