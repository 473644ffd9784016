"""`python -m tidings.sandbox`: serves the sandbox until SIGTERM or SIGINT."""

import argparse
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from .app import create_app
from .broken import OpenProtocol
from .config import SandboxConfig

#: command-line options that are settings too; None means: leave the setting's own default
OPTIONS = (
    "webhook_url",
    "webhook_secret",
    "calendly_webhook_url",
    "calendly_signing_key",
    "calcom_webhook_url",
    "calcom_webhook_secret",
    "stripe_webhook_url",
    "stripe_webhook_secret",
    "signup_url",
    "resend_rate",
    "notion_rate",
    "deliver_after",
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tidings.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8025, help="0 takes a free one")
    parser.add_argument("--data", type=Path, required=True, help="folder for what must survive a restart")
    parser.add_argument("--webhook-url", help="where Resend's events are posted")
    parser.add_argument("--webhook-secret", help="whsec_… that signs them; made up once when left out")
    parser.add_argument("--calendly-webhook-url", help="where Calendly's subscription posts")
    parser.add_argument("--calendly-signing-key", help="what it signs with")
    parser.add_argument("--calcom-webhook-url", help="where Cal.com's triggers are posted")
    parser.add_argument("--calcom-webhook-secret", help="what they are signed with")
    parser.add_argument("--stripe-webhook-url", help="where Stripe's events are posted")
    parser.add_argument("--stripe-webhook-secret", help="whsec_… that they are signed with")
    parser.add_argument("--signup-url", help="where the funnel page posts")
    parser.add_argument("--resend-rate", type=float, help="requests a second (5; 0: no limit)")
    parser.add_argument("--notion-rate", type=float, help="requests a second on average (3; 0: no limit)")
    parser.add_argument("--deliver-after", type=float, help="seconds from acceptance to delivery (0.2)")
    return parser.parse_args()


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        sys.exit(f"The sandbox cannot listen on {host}:{port}: {error.strerror}. Choose another --port.")
    return listener


def _stop_quietly() -> None:
    """uvicorn raises the signal that stopped it once more when it is done: without a handler of our own the
    exit status of a clean stop would be -15."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, frame: None)


def main() -> None:
    arguments = _arguments()
    given: dict[str, Any] = {name: getattr(arguments, name) for name in OPTIONS}
    settings = {name: value for name, value in given.items() if value is not None}
    listener = _bound(arguments.host, arguments.port)
    address = f"http://{arguments.host}:{listener.getsockname()[1]}"
    app = create_app(SandboxConfig(data_dir=arguments.data, settings=settings))
    config = uvicorn.Config(
        app,
        http=OpenProtocol,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )
    print(f"sandbox: {address}/  Notion {address}/notion  Resend {address}/resend", flush=True)
    _stop_quietly()
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
