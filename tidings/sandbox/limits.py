"""The providers' rate limiters."""

import math
from dataclasses import dataclass


@dataclass
class Window:
    """So many requests in a window, then none until the next. Resend's is one second long, the calendars' a minute."""

    rate: float
    seconds: float = 1.0
    _began: float = -math.inf
    _used: int = 0

    def take(self, now: float) -> bool:
        if not self.rate:
            return True
        if now - self._began >= self.seconds:
            self._began, self._used = now, 0
        if self._used >= self.rate:
            return False
        self._used += 1
        return True

    def left(self) -> int:
        """Requests that the present window still has."""
        return max(0, math.floor(self.rate) - self._used)

    def reset(self, now: float) -> int:
        """Whole seconds until the next window."""
        return max(1, math.ceil(self._began + self.seconds - now)) if self._used else math.ceil(self.seconds)

    def headers(self, now: float) -> dict[str, str]:
        """The draft-6 RateLimit headers, as seen on every live response (Oct–Nov 2025)."""
        if not self.rate:
            return {}
        limit = math.floor(self.rate)
        return {
            "ratelimit-limit": str(limit),
            "ratelimit-policy": f"{limit};w=1",
            "ratelimit-remaining": str(self.left()),
            "ratelimit-reset": str(max(1, math.ceil(self._began + 1 - now))),
        }


@dataclass
class Bucket:
    """Notion's limiter: an average rate with bursts on top."""

    rate: float
    burst: int
    _tokens: float = math.inf
    _seen: float = 0.0

    def wait(self, now: float) -> int:
        """Takes a token and answers 0, or the whole seconds to wait for the next one."""
        if not self.rate:
            return 0
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._seen) * self.rate)
        self._seen = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        return max(1, math.ceil((1 - self._tokens) / self.rate))
