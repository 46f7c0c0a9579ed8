"""What a port asks about those who connect, whoever serves it."""

from typing import Protocol

from twisted.internet.interfaces import IAddress, IProtocol


class Gate(Protocol):
    """Decides about the clients of one port."""

    def admit(self, address: IAddress) -> IProtocol | None:
        """The protocol for a client at an address, or None when it is refused."""

    def no_descriptor(self, address: IAddress) -> None:
        """Told that a client is refused, because the descriptors that are left are kept for others."""

    def believes(self, address: IAddress) -> bool:
        """Whether a load balancer at an address may name clients; else it is refused."""

    def no_header(self, address: IAddress) -> None:
        """Told that a load balancer's connection is refused, because it did not say in time for whom it is."""
