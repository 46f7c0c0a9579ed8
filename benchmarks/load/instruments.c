/* The CPU time of a server is read from outside it, so that nothing is added to what is measured:
 *
 * - A process's CPU clock (clock_getcpuclockid) is exact to the nanosecond and holds all its threads, those that have
 *   ended too; the sum of /proc/PID/task/TID/schedstat would forget these, and ThreadingTCPServer lives on them.
 * - A server that forks for each connection (socat) is its whole process group. The clocks of the living are added up;
 *   the dead are in the `cutime` and `cstime` of the parent that waited for them, in ticks of 10 ms.
 *   The dead are read first: a child that ends between the two readings is missed, never counted twice. */
#include "instruments.h"

#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t timespec_ns(struct timespec time) {
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return timespec_ns(time);
}

static uint64_t process_cpu_ns(pid_t pid) {
    clockid_t clock;
    struct timespec time;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &time) != 0)
        return 0; /* it has ended: its time is with its parent now */
    return timespec_ns(time);
}

/* The group of a process and the CPU time of the children it has waited for, from /proc/PID/stat (man 5 proc_pid_stat).
 * Returns 0 if there is no such process. */
static int read_stat(pid_t pid, pid_t *group, uint64_t *children_ns) {
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    char *got = fgets(line, sizeof line, file);
    fclose(file);
    char *after_name = got ? strrchr(line, ')') : NULL; /* the name may hold spaces and brackets */
    long cutime, cstime;
    int read_group;
    if (!after_name || sscanf(after_name + 1, " %*c %*d %d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %ld %ld", &read_group,
                              &cutime, &cstime) != 3)
        return 0;
    *group = read_group;
    *children_ns = (uint64_t)(cutime + cstime) * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
    return 1;
}

uint64_t server_cpu_ns(pid_t leader) {
    pid_t group;
    uint64_t total, children_ns;
    if (!leader || !read_stat(leader, &group, &total))
        return 0;
    DIR *processes = opendir("/proc");
    if (!processes)
        return total + process_cpu_ns(leader);
    for (struct dirent *entry; (entry = readdir(processes));) {
        pid_t pid = isdigit((unsigned char)entry->d_name[0]) ? atoi(entry->d_name) : 0;
        if (pid && read_stat(pid, &group, &children_ns) && group == leader)
            total += process_cpu_ns(pid);
    }
    closedir(processes);
    return total;
}

static int bucket_of(uint64_t ns) {
    if (ns < HISTOGRAM_STEPS)
        return (int)ns;
    int power = 63 - __builtin_clzll(ns);
    int bucket = (power - 5) * HISTOGRAM_STEPS + (int)((ns >> (power - 6)) & (HISTOGRAM_STEPS - 1));
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

static uint64_t lowest_in(int bucket) {
    if (bucket < HISTOGRAM_STEPS)
        return (uint64_t)bucket;
    int power = bucket / HISTOGRAM_STEPS + 5;
    return (1ull << power) | ((uint64_t)(bucket % HISTOGRAM_STEPS) << (power - 6));
}

void histogram_add(struct histogram *histogram, uint64_t ns) {
    histogram->count[bucket_of(ns)]++;
    histogram->total++;
}

double histogram_percentile_us(const struct histogram *histogram, double part) {
    uint64_t wanted = (uint64_t)(part * (double)histogram->total), seen = 0;
    for (int bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->count[bucket];
        if (seen > wanted || (seen && seen == histogram->total))
            return (double)lowest_in(bucket) / 1e3;
    }
    return 0;
}

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("{\"error\": \"");
    vprintf(format, arguments);
    printf("\"}\n");
    va_end(arguments);
    exit(1);
}
