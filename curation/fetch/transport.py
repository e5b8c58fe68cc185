"""httpx's transport over one connection pool a host, and what its failures mean."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable

import httpcore
import httpx

from curation.fetch.verdict import Refusal

FAILURES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    OSError,
)
"""What a request or the reading of a body can raise."""


class HostTransport(httpx.AsyncBaseTransport):
    """Hands each request to the pool of its host."""

    def __init__(self, pool_of: Callable[[str], httpcore.AsyncConnectionPool]) -> None:
        self._pool_of = pool_of

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; ``extensions`` name its host."""
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        answer = await self._pool_of(request.extensions["host"]).handle_async_request(
            httpcore.Request(
                request.method,
                url,
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Stream(answer),
            extensions=answer.extensions,
        )


class _Stream(httpx.AsyncByteStream):
    """The body as httpcore reads it; its errors are told apart by :func:`refusal_of`."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._answer.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._answer.aclose()


def refusal_of(error: Exception, status: int | None) -> Refusal:
    """What a failure of the client means; ``status`` is known once the headers had come."""
    text = str(error) or type(error).__name__
    if isinstance(error, httpcore.TimeoutException):
        return Refusal("fetch_timeout", f"silent too long ({type(error).__name__})", status, True)
    if isinstance(error, httpcore.LocalProtocolError):
        return Refusal("fetch_bad_url", text, status)
    if status is not None:
        return Refusal("fetch_truncated", text, status, True)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return Refusal("fetch_tls", str(cause), status)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpcore.RemoteProtocolError) and "disconnected" not in text:
        return Refusal("fetch_protocol", text)
    return Refusal("fetch_connect", text, again=True)
