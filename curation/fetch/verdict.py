"""Why a URL was not fetched."""

from __future__ import annotations

from schemas.reasons import REASONS
from schemas.redact import without_secrets


class Refusal(Exception):
    """The end of one try: a reason of the registry, what happened, and whether to try again.

    ``after`` is the number of seconds that the host asked us to wait; ``host`` is the one that it came
    of, which after a redirect is not that of the URL.
    """

    def __init__(
        self,
        reason: str,
        error: str,
        status: int | None = None,
        again: bool = False,
        after: float | None = None,
    ) -> None:
        super().__init__(reason, error)
        if reason not in REASONS:
            raise ValueError(f"{reason!r} is not in the registry of reasons")
        self.reason, self.status, self.again, self.after = reason, status, again, after
        self.host: str | None = None
        self.error = without_secrets(error)[:500]

    def anew(self) -> Refusal:
        """An equal one: raising the same object again would make its traceback grow."""
        return Refusal(self.reason, self.error, self.status, self.again, self.after)
