"""The pages people look at: index, inbox, one mail, and the funnel."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from .control import mail_json
from .world import World

#: nothing runs but our own inline script; mails may show pictures, as in a mailbox
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src *; "
    "img-src data: http: https:; frame-src 'self'; form-action 'self'; frame-ancestors 'none'"
)
#: links in a mail open beside the inbox: the frame itself may run nothing and navigate nowhere
LINKS_OUTSIDE = '<base target="_blank">'

SYSTEMS = (
    ("GPS", "Direction: goals, plan, where the business is going"),
    ("CREW", "People: hiring, training, who does what"),
    ("ENGINE", "Operations: the daily work runs without you pushing"),
    ("FUEL", "Money: cash flow, pricing, profit"),
    ("CABIN", "Client experience: how it feels to be your client"),
    ("COCKPIT", "Control: you see your numbers and decide by them"),
    ("RADAR", "Marketing: new clients find you, old ones come back"),
    ("AUTOPILOT", "Automation: what repeats happens by itself"),
)
RATINGS = (("green", "Works well"), ("yellow", "Mostly"), ("orange", "Shaky"), ("red", "Broken"))
REVENUES = ("Under $100k", "$100k to $250k", "$250k to $500k", "$500k to $1M", "Over $1M")


class Pages:
    """One method a page."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._templates = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[Route]:
        return [
            Route("/", self.index),
            Route("/inbox", self.inbox),
            Route("/inbox/{id}", self.mail),
            Route("/funnel", self.funnel),
        ]

    def _page(self, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        html = self._templates.get_template(name).render(**values)
        headers = {"content-security-policy": POLICY, "referrer-policy": "no-referrer"}
        return HTMLResponse(html, status, headers=headers)

    async def index(self, request: Request) -> Response:
        base = str(request.base_url).rstrip("/")
        root = self._world.notion.root_id
        return self._page("index.html", base=base, root=root, settings=self._world.settings())

    async def inbox(self, request: Request) -> Response:
        return self._page("inbox.html")

    async def mail(self, request: Request) -> Response:
        store = self._world.store
        found = store.mail(request.path_params["id"])
        if found is None:
            return self._page("missing.html", 404)
        mail = mail_json(found, store.events_of([found["id"]])[found["id"]])
        raw = json.dumps(found["payload"], indent=2, ensure_ascii=False)
        html = LINKS_OUTSIDE + mail["html"] if mail["html"] else ""
        return self._page("mail.html", mail=mail, html=html, raw=raw)

    async def funnel(self, request: Request) -> Response:
        return self._page(
            "funnel.html",
            signup_url=self._world.settings().signup_url,
            systems=SYSTEMS,
            ratings=RATINGS,
            revenues=REVENUES,
        )
