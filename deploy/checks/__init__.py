"""Checks of the deployment files that need no Docker engine: `deploy/check`."""
