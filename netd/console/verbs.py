"""The first words of every verb, known without building a daemon.

A command of the configuration may not bear one of these names. Light on purpose: the check of a configuration reads it.
"""

BUILT_IN = frozenset(
    {
        "close",
        "config",
        "connections",
        "drain",
        "help",
        "log",
        "reload",
        "resume",
        "services",
        "sessions",
        "stats",
        "status",
        "version",
        "whoami",
    }
)
"""What `netd.console.commands` defines."""

INTERACTIVE = frozenset({"exit", "logout", "quit", "watch"})
"""What only the interactive console understands."""

RESERVED = frozenset({"bridge", "cache"})
"""What kinds of services add."""

VERBS = BUILT_IN | INTERACTIVE | RESERVED
