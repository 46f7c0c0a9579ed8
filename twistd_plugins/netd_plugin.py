"""What `twistd` finds: the command netd."""

from twisted.application.service import ServiceMaker

netd = ServiceMaker("netd", "netd.tap", "One daemon for lines, caches and consoles.", "netd")
