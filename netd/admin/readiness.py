"""/livez and /readyz: whether the process turns, and whether its services do their work."""

from netd.admin.http import AdminRequest
from netd.console.facts import service_facts
from netd.runtime import Runtime


class Readiness:
    """Answers /livez and /readyz."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def unready(self) -> dict[str, str]:
        """The services that do not do their work, each with the reason."""
        facts = [service_facts(service) for service in self._runtime.services]
        return {each["name"]: each["reason"] or each["state"] for each in facts if each["state"] != "up"}

    def livez(self, request: AdminRequest) -> None:
        """200: that it answers says all."""
        request.respond(200, b"alive\n")

    def readyz(self, request: AdminRequest) -> None:
        """200 when every service is up and its backend answers, else 503, with a line a service."""
        unready = self.unready()
        lines = [f"not ready: {len(unready)} of {len(self._runtime.services)} services" if unready else "ready"]
        lines += [f"{service.key}: {unready.get(service.key, 'up')}" for service in self._runtime.services]
        request.respond(503 if unready else 200, "\n".join([*lines, ""]).encode())
