"""uvicorn server:app"""

from tidings.web.app import create_app

app = create_app()
