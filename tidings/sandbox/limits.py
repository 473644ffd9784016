"""The two providers' rate limiters."""

import math
from dataclasses import dataclass


@dataclass
class Window:
    """Resend's limiter: so many requests in a window of one second, then none until the next."""

    rate: float
    _began: float = -math.inf
    _used: int = 0

    def take(self, now: float) -> bool:
        if not self.rate:
            return True
        if now - self._began >= 1:
            self._began, self._used = now, 0
        if self._used >= self.rate:
            return False
        self._used += 1
        return True

    def headers(self, now: float) -> dict[str, str]:
        """The draft-6 RateLimit headers, as seen on every live response (Oct–Nov 2025)."""
        if not self.rate:
            return {}
        limit = math.floor(self.rate)
        return {
            "ratelimit-limit": str(limit),
            "ratelimit-policy": f"{limit};w=1",
            "ratelimit-remaining": str(max(0, limit - self._used)),
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
