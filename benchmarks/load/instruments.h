/* What every load client measures with: a clock, a histogram of latencies, and the CPU time of the server; and how it
 * says that there is nothing to measure. */
#ifndef INSTRUMENTS_H
#define INSTRUMENTS_H

#include <stdint.h>
#include <sys/types.h>

/* Nanoseconds of the monotonic clock. */
uint64_t now_ns(void);

/* Nanoseconds of CPU that the server has used since it started. A server is a process group: the process `leader`,
 * its threads, and the processes it forked, living or dead. 0 if leader is 0. */
uint64_t server_cpu_ns(pid_t leader);

/* A histogram of nanoseconds with 64 steps to each power of two: a percentile is at most 1.6 % below the truth. */
enum { HISTOGRAM_STEPS = 64, HISTOGRAM_BUCKETS = HISTOGRAM_STEPS * 48 };
struct histogram {
    uint64_t total;
    uint64_t count[HISTOGRAM_BUCKETS];
};
void histogram_add(struct histogram *histogram, uint64_t ns);
/* The value that the share `part` (0 to 1) of all values does not exceed, in microseconds. */
double histogram_percentile_us(const struct histogram *histogram, double part);

/* Ends the run: the result is a failure, in one line of JSON. */
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
