"""The first words of every verb, known without building a daemon.

A command of the configuration may not bear one of these names. Light on purpose: the check of a configuration reads it.
"""

BUILT_IN = frozenset(
    {"close", "connections", "help", "log", "services", "sessions", "stats", "status", "version", "whoami"}
)
"""What `netd.console.commands` defines."""

INTERACTIVE = frozenset({"exit", "logout", "quit", "watch"})
"""What only the interactive console understands."""

RESERVED = frozenset({"bridge", "drain", "reload", "resume"})
"""What services and the daemon add, or will."""

VERBS = BUILT_IN | INTERACTIVE | RESERVED
