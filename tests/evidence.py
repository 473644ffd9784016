"""What a test of F1 to F22 shows: the words that a person gets, and how soon."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from deploy.checks.failures_table import MARK, Account


def in_time(seconds: float) -> float:
    """What these seconds of an idle machine are on this one, now that it is as busy as it is."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Evidence:
    """Holds a test to what its mark says of the failure."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.shown = False
        self._since = time.monotonic()

    def broken(self) -> None:
        """It goes wrong now."""
        self._since = time.monotonic()

    def read(self, text: str) -> None:
        """A person reads this now."""
        account, seconds = self.account, time.monotonic() - self._since
        assert account.said_in(text), f"{account.failure} is said to be told as {account.says!r}; it was: {text!r}"
        if account.within:
            assert seconds <= in_time(account.within), f"{account.failure} was noticed after {seconds:.1f} s"
        self.shown = True
        print(f"{account.failure}, after {seconds:.1f} s: {text}")


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Iterator[Evidence]:
    mark = request.node.get_closest_marker(MARK)
    assert mark is not None, f"the fixture evidence goes with the mark {MARK}"
    found = Evidence(Account(failure=mark.args[0], **mark.kwargs))
    yield found
    assert found.shown, f"{found.account.failure}: the test has shown none of its words"
