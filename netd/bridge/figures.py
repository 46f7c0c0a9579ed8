"""What a bridge's figures mean, and which of them the page draws."""

from netd.stats import Chart, counter, gauge

FIGURES = {
    "accepted": counter("Messages received from clients"),
    "durable": counter("Messages committed to the spool"),
    "published": counter("Messages given to the broker, again included"),
    "confirmed": counter("Messages that the broker has confirmed"),
    "returned": counter("Messages that the broker could not route: they are dead letters"),
    "refused": counter("Messages that the broker refused: they are given again"),
    "backlog": gauge("Messages on disk that the broker has not confirmed"),
    "oldest_seconds": gauge("Age of the oldest of them"),
    "dead_letters": gauge("Dead letters"),
    "spool_bytes": gauge("What the spool takes on disk"),
    "commits": counter("Commits of the spool"),
    "delivered": counter("Messages sent to subscribers"),
    "acknowledged": counter("Messages that subscribers are done with"),
    "given_back": counter("Messages that subscribers gave back"),
}

CHARTS = (
    Chart("Messages in", {"durable": "durable", "confirmed": "confirmed"}),
    Chart("Backlog", {"messages": "backlog", "dead letters": "dead_letters"}),
    Chart("Age of the backlog", {"oldest": "oldest_seconds"}),
    Chart("Messages out", {"delivered": "delivered", "acknowledged": "acknowledged"}),
)
