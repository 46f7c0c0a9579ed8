/* A storm of connections: so many a second for so long, from sixteen addresses of the loopback. Each says one thing, hears
 * one answer, compares it, and leaves, every other one with a reset.
 *
 *   storm PORT RATE SECONDS PATIENCE REQUEST ANSWER
 *
 * "%d" in REQUEST or ANSWER is the connection's number, from 1, in seven digits; ANSWER may be the beginning of what is said.
 * When MOST_OPEN are open no more are begun: a server that cannot keep up slows the storm down before the kernel's queue of
 * 4,096 new connections overflows, and drops some as it likes. After the last one is begun the rest have PATIENCE seconds
 * to be answered. The result is a line of JSON. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_OPEN = 3000, SOURCES = 16, LONGEST = 512, EVENTS = 512 };

struct connection {
    int fd, number, heard;
    bool asked;
    double began;
};

static struct connection connections[MOST_OPEN];
static int unused[MOST_OPEN], unused_count;
static int poller, port;
static const char *request, *answer;
static int begun, answered, wrong, broken;
static double slowest;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int fill_in(char *text, const char *pattern, int number) {
    const char *place = strstr(pattern, "%d");
    if (!place)
        return snprintf(text, LONGEST, "%s", pattern);
    return snprintf(text, LONGEST, "%.*s%07d%s", (int)(place - pattern), pattern, number, place + 2);
}

static void leave(struct connection *connection, bool reset) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (reset)
        setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(connection->fd);
    unused[unused_count++] = (int)(connection - connections);
}

static void begin(void) {
    struct connection *connection = &connections[unused[--unused_count]];
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (unsigned)begun % SOURCES)};
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((unsigned short)port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *connection = (struct connection){.fd = fd, .number = ++begun, .began = now()};
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = connection};
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) < 0 ||
        (connect(fd, (struct sockaddr *)&there, sizeof there) < 0 && errno != EINPROGRESS) ||
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) {
        perror("storm");
        exit(1);
    }
}

static void ask(struct connection *connection) {
    char text[LONGEST];
    int length = fill_in(text, request, connection->number);
    if (send(connection->fd, text, (size_t)length, MSG_NOSIGNAL) != length) {
        broken++;
        leave(connection, false);
        return;
    }
    connection->asked = true;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
}

static void hear(struct connection *connection) {
    char text[LONGEST], heard[LONGEST];
    int length = fill_in(text, answer, connection->number);
    ssize_t got = recv(connection->fd, heard, (size_t)(length - connection->heard), 0);
    if (got <= 0) {
        broken++;
        leave(connection, false);
    } else if (memcmp(heard, text + connection->heard, (size_t)got) != 0) {
        wrong++;
        leave(connection, false);
    } else if ((connection->heard += (int)got) == length) {
        answered++;
        double took = now() - connection->began;
        slowest = took > slowest ? took : slowest;
        leave(connection, connection->number % 2);
    }
}

int main(int count, char **arguments) {
    if (count != 7)
        return 2;
    port = atoi(arguments[1]);
    double rate = atof(arguments[2]), seconds = atof(arguments[3]), patience = atof(arguments[4]);
    request = arguments[5];
    answer = arguments[6];
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < MOST_OPEN; i++)
        unused[unused_count++] = i;
    double start = now(), last_begun = 0;
    for (double time = 0; time < seconds || (unused_count < MOST_OPEN && time < last_begun + patience); time = now() - start) {
        while (time < seconds && begun < (int)(rate * time) && unused_count) {
            begin();
            last_begun = time;
        }
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(poller, events, EVENTS, 1);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection->asked)
                hear(connection);
            else
                ask(connection);
        }
    }
    printf("{\"begun\": %d, \"answered\": %d, \"wrong\": %d, \"broken\": %d, \"unanswered\": %d, \"seconds\": %.3f, \"slowest\": %.3f}\n",
           begun, answered, wrong, broken, MOST_OPEN - unused_count, last_begun, slowest);
    return 0;
}
