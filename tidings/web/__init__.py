"""The FastAPI side: routes, verification, pages."""
