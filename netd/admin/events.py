"""/events: the status once a second, as server-sent events, to whoever has the page open.

A document is made once for all. A client that does not read is sent no more until it has: what waits for it is what
its transport holds, 64 KiB and one event at most.
"""

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from netd.admin.http import AdminRequest

RETRY = 2000
"""Milliseconds after which a browser whose connection broke tries again."""

Document = Callable[[], dict[str, Any]]


@implementer(IPushProducer)
class _Subscriber:
    """One client."""

    def __init__(self, request: AdminRequest) -> None:
        self.request = request
        self._reads = True

    def send(self, event: bytes) -> None:
        if self._reads:
            self.request.write(event)

    def pauseProducing(self) -> None:
        self._reads = False

    def resumeProducing(self) -> None:
        self._reads = True

    def stopProducing(self) -> None:
        """The connection ends: `notifyFinish` tells."""


class Events:
    """Who gets the status as it changes. `greeting` is sent to a client as it comes, `status` to all at each `tick`."""

    def __init__(self, greeting: Document, status: Document) -> None:
        self._greeting = greeting
        self._status = status
        self._subscribers: dict[AdminRequest, _Subscriber] = {}
        self._hello = b""

    def __len__(self) -> int:
        return len(self._subscribers)

    def subscribe(self, request: AdminRequest) -> None:
        """Answer /events, until the client goes away."""
        request.start(200, b"text/event-stream", X_Accel_Buffering="no")
        if request.method == b"HEAD":
            request.write(b"")
            request.finish()
            return
        subscriber = self._subscribers[request] = _Subscriber(request)
        request.notifyFinish().addBoth(lambda _: self._subscribers.pop(request))
        request.registerProducer(subscriber, True)
        if not self._hello:
            self._hello = event("hello", self._greeting()) + event("status", self._status())
        subscriber.send(b"retry: %d\n\n" % RETRY + self._hello)

    def tick(self, *, anew: bool) -> None:
        """Tell everybody; `anew`, with the greeting before it, because what that says has changed."""
        self._hello = b""
        if self._subscribers:
            greeting = event("hello", self._greeting()) if anew else b""
            told = greeting + event("status", self._status())
            for subscriber in list(self._subscribers.values()):
                subscriber.send(told)


def event(name: str, document: dict[str, Any]) -> bytes:
    """A server-sent event that carries a JSON document; JSON has no line break."""
    return f"event: {name}\ndata: {json.dumps(document, separators=(',', ':'))}\n\n".encode()
