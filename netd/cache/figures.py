"""What a cache's figures mean, and which of them the page draws."""

from netd.stats import Chart, counter, gauge

FIGURES = {
    "cmd_get": counter("Keys asked for"),
    "cmd_set": counter("Values to be stored"),
    "cmd_flush": counter("Flushes"),
    "cmd_touch": counter("Keys touched"),
    "get_hits": counter("Keys found"),
    "get_misses": counter("Keys not found"),
    "delete_hits": counter("Keys deleted"),
    "delete_misses": counter("Keys to be deleted that were not there"),
    "incr_hits": counter("Numbers added to"),
    "incr_misses": counter("Numbers to be added to that were not there"),
    "decr_hits": counter("Numbers subtracted from"),
    "decr_misses": counter("Numbers to be subtracted from that were not there"),
    "cas_hits": counter("Values stored because nobody had changed them"),
    "cas_badval": counter("Values not stored because somebody had changed them"),
    "cas_misses": counter("Values to be compared that were not there"),
    "touch_hits": counter("Keys touched that were there"),
    "touch_misses": counter("Keys touched that were not there"),
    "store_too_large": counter("Values refused as too large"),
    "store_no_memory": counter("Values refused for want of memory"),
    "items": gauge("Values held"),
    "items_stored": counter("Values stored"),
    "items_evicted": counter("Values dropped to make room"),
    "items_expired": counter("Values dropped because their time was over"),
    "memory_bytes": gauge("Memory that values take"),
    "memory_limit_bytes": gauge("Memory that values may take"),
    "redis_connects": counter("Connections made to Redis"),
    "near_hits": counter("Keys answered from the near cache"),
    "near_misses": counter("Keys asked of Redis"),
    "near_coalesced": counter("Keys whose answer from Redis served others, too"),
    "near_invalidated": counter("Values dropped because Redis said that they changed"),
    "near_stale_hits": counter("Keys answered from the near cache while Redis was away"),
    "near_evicted": counter("Values dropped from the near cache to make room"),
    "near_items": gauge("Values in the near cache"),
}

CHARTS = (
    Chart("Requests", {"gets": "cmd_get", "sets": "cmd_set"}),
    Chart("Hit ratio", {"hits": "get_hits", "misses": "get_misses"}, share=True),
    Chart("Memory", {"used": "memory_bytes", "limit": "memory_limit_bytes"}),
)
EMBEDDED_CHARTS = (*CHARTS, Chart("Values dropped", {"for room": "items_evicted", "expired": "items_expired"}))
NEAR_CHARTS = (*CHARTS, Chart("Near hit ratio", {"near": "near_hits", "Redis": "near_misses"}, share=True))
