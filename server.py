"""uvicorn server:app"""

import os

# Read when Prefect is first imported. Its client would try a lost connection again after 2 s and more, while a webhook
# waits for its answer; here one layer retries: at once on a new connection (tidings.adapters.prefect), then the keeper.
os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "0")

from tidings.web.app import create_app

app = create_app()
