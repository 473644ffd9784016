"""uvicorn server:app"""

from tidings.lean import leave_out

leave_out()

from tidings.web.app import create_app  # noqa: E402

app = create_app()
