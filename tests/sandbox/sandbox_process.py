"""A sandbox in a process of its own, and a receiver for its webhooks."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from notion_client import Client

ROOT = Path(__file__).resolve().parents[2]
#: no limits unless a test asks for them, and quick deliveries
OPTIONS = ("--resend-rate", "0", "--notion-rate", "0", "--deliver-after", "0.02")
PATIENCE = 8.0


class Sandbox:
    """Starts `python -m tidings.sandbox` and speaks to its control routes."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 0
        self.http = httpx.Client(timeout=20, trust_env=False)
        self.start()

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tidings.sandbox",
            "--port",
            str(self.port),
            "--data",
            str(self.data),
        ]
        self.process = subprocess.Popen(
            [*command, *OPTIONS], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("sandbox: http"), line + self.process.stdout.read()
        self.url = line.split()[1].rstrip("/")
        self.port = int(self.url.rsplit(":", 1)[1])
        self.wait_for(self.answers, "the sandbox to answer")

    def answers(self) -> bool:
        try:
            return self.http.get(f"{self.url}/control/health").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=10)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.http.close()

    def get(self, path: str, **params: Any) -> Any:
        response = self.http.get(f"{self.url}/control/{path}", params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def inbox(self, **params: Any) -> list[dict[str, Any]]:
        return list(self.get("inbox", **params)["data"])

    def set(self, **settings: Any) -> None:
        response = self.http.put(f"{self.url}/control/settings", json=settings)
        assert response.status_code == 200, response.text

    def fault(self, kind: str, **rule: Any) -> int:
        response = self.http.post(f"{self.url}/control/faults", json={"kind": kind} | rule)
        assert response.status_code == 201, response.text
        return int(response.json()["id"])

    def reset(self) -> None:
        response = self.http.post(f"{self.url}/control/reset", json={"settings": True})
        assert response.status_code == 200, response.text

    def post(self, path: str, **body: Any) -> Any:
        """What people do at the calendars and at Stripe."""
        response = self.http.post(f"{self.url}/control/{path}", json=body)
        assert response.status_code == 201, response.text
        return response.json()

    def event_of(self, mail_id: str) -> str:
        return str(self.get(f"inbox/{mail_id}")["last_event"])

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if found := condition():
                return found
            time.sleep(0.02)
        raise AssertionError(f"waited {PATIENCE} s in vain for {what}")


class Receiver:
    """Keeps every webhook it is sent: (headers, raw body). Answers with `status`."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/webhook/resend"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def make_notion(sandbox: Sandbox, **options: Any) -> Client:
    return Client(auth="ntn_test", base_url=f"{sandbox.url}/notion", **({"retry": False} | options))


def make_source(notion: Client, sandbox: Sandbox) -> str:
    root = sandbox.get("health")["notion_root_page_id"]
    database = notion.databases.create(
        parent={"type": "page_id", "page_id": root},
        title=[{"type": "text", "text": {"content": "Templates"}}],
        initial_data_source={
            "properties": {
                "Name": {"title": {}},
                "Body": {"rich_text": {}},
                "Email": {"email": {}},
                "Score": {"number": {}},
                "State": {"select": {"options": [{"name": "Live", "color": "green"}]}},
                "Tags": {"multi_select": {}},
                "Due": {"date": {}},
                "Done": {"checkbox": {}},
            }
        },
    )
    return str(database["data_sources"][0]["id"])
