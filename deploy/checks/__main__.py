"""`python -m deploy.checks compose|image|units|settings|failures|audit`: exit 0, or 1 with every problem named.

Exit 3: nothing is wrong as far as could be seen, and something could not be checked here.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping

from deploy.checks import audit, compose, failures_table, image, settings_table, units

CHECKS: Mapping[str, Callable[[], list[str]]] = {
    "compose": compose.problems,
    "image": lambda: asyncio.run(image.problems(lambda text: print(text, flush=True))),
    "units": units.problems,
    "settings": settings_table.problems,
    "failures": failures_table.problems,
    "audit": audit.problems,
}
WRITTEN = {"settings": settings_table.write, "failures": failures_table.write}


def main(arguments: list[str]) -> int:
    if arguments[1:] == ["--write"] and arguments[0] in WRITTEN:
        WRITTEN[arguments[0]]()
        return 0
    if not arguments or not set(arguments) <= CHECKS.keys():
        print(f"usage: deploy/check {'|'.join(CHECKS)} …", file=sys.stderr)
        return 2
    codes = [_check(name) for name in arguments]
    return 1 if 1 in codes else max(codes)


def _check(name: str) -> int:
    try:
        problems = CHECKS[name]()
    except audit.NotPossible as reason:
        print(f"{name}: NOT DONE: {reason}", file=sys.stderr)
        return 3
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)
    print(f"{name}: {'ok' if not problems else f'{len(problems)} problems'}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
