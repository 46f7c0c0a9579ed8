/* A load client for caches: one thread, epoll, loopback only. It checks every byte that comes back.
 *
 *   cacheload get    each connection asks for --outstanding random keys with one send, and again when all have come
 *   cacheload set    the same with writing
 *
 * --protocol is memcached or redis. There are --keys keys; each has a value of --size bytes of its own. With --fill they
 * are all written first, and read once, through the same port, before anything is measured.
 *
 * The result is one line of JSON on stdout; a reply that is not exactly what it must be, a connection closed by the
 * server, or silence for --patience seconds ends the run with {"error": …} and status 1. */
#define _GNU_SOURCE
#include "instruments.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BUFFER = 256 * 1024,
    EVENTS = 1024,
    PERIOD = 65521, /* the largest prime below 2^16 */
    STRIDE = 7919,  /* between the beginnings of two keys' values */
    AROUND = 128,   /* bytes of a request or reply beside its value, at most */
    TURN_MS = 20,   /* longest wait for events, so that the clock is looked at */
    FILL = 16,      /* keys written with one send while filling */
};

struct connection {
    int fd;
    char *request, *reply; /* a batch of requests, and what must come back */
    size_t to_send, sent, to_come, come;
    uint64_t asked_at;
};

static struct {
    const char *mode;
    int port, connections, outstanding, size, keys;
    double seconds, warmup, patience;
    bool redis, set, fill;
    pid_t server;
} options = {.connections = 1, .outstanding = 1, .size = 100, .keys = 10000, .seconds = 1, .warmup = 0.3, .patience = 5};

static char stream[2 * PERIOD], input[BUFFER];
static struct connection *connections;
static int poller;
static struct histogram latencies;

static uint32_t next_random(void) { /* xorshift32 */
    static uint32_t random = 2463534242u;
    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    return random;
}

static void make_stream(void) {
    for (int i = 0; i < PERIOD; i++)
        stream[i] = (char)('0' + next_random() % 75); /* no line ends among them */
    memcpy(stream + PERIOD, stream, PERIOD);
}

static const char *value_of(int key) {
    return stream + (size_t)key * STRIDE % PERIOD;
}

/* Appends a request and the reply that must follow. */
static void add(struct connection *connection, int key, bool set) {
    char *to = connection->request + connection->to_send, *back = connection->reply + connection->to_come;
    char name[16];
    int length = sprintf(name, "key:%08d", key), size = options.size;
    if (options.redis) {
        to += sprintf(to, "*%d\r\n$3\r\n%s\r\n$%d\r\n%s\r\n", set ? 3 : 2, set ? "SET" : "GET", length, name);
        to += set ? sprintf(to, "$%d\r\n", size) : 0;
        back += set ? sprintf(back, "+OK\r\n") : sprintf(back, "$%d\r\n", size);
    } else {
        to += set ? sprintf(to, "set %s 0 0 %d\r\n", name, size) : sprintf(to, "get %s\r\n", name);
        back += set ? sprintf(back, "STORED\r\n") : sprintf(back, "VALUE %s 0 %d\r\n", name, size);
    }
    char **with_value = set ? &to : &back;
    memcpy(*with_value, value_of(key), (size_t)size);
    *with_value += size;
    *with_value += sprintf(*with_value, "\r\n");
    if (!set && !options.redis)
        back += sprintf(back, "END\r\n");
    connection->to_send = (size_t)(to - connection->request);
    connection->to_come = (size_t)(back - connection->reply);
}

static void open_connection(struct connection *connection) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int most = options.outstanding > FILL ? options.outstanding : FILL;
    size_t room = (size_t)most * (size_t)(options.size + AROUND);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    connection->fd = fd;
    connection->request = malloc(room);
    connection->reply = malloc(room);
    if (!connection->request || !connection->reply)
        fail("out of memory");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

static void send_owed(struct connection *connection) {
    while (connection->sent < connection->to_send) {
        ssize_t sent = send(connection->fd, connection->request + connection->sent, connection->to_send - connection->sent, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0)
            fail("send: %s", strerror(errno));
        connection->sent += (size_t)sent;
    }
}

static void begin_batch(struct connection *connection) {
    connection->to_send = connection->sent = connection->to_come = connection->come = 0;
    connection->asked_at = now_ns();
}

static void ask(struct connection *connection) {
    begin_batch(connection);
    for (int i = 0; i < options.outstanding; i++)
        add(connection, (int)(next_random() % (uint32_t)options.keys), options.set);
    send_owed(connection);
}

/* Receives and checks what is there; returns whether anything was. */
static bool receive(struct connection *connection) {
    bool any = false;
    for (;;) {
        ssize_t got = recv(connection->fd, input, BUFFER, 0);
        if (got < 0 && errno == EAGAIN)
            return any;
        if (got <= 0)
            fail("closed by the server after %zu of %zu bytes", connection->come, connection->to_come);
        size_t left = connection->to_come - connection->come;
        if ((size_t)got > left || memcmp(input, connection->reply + connection->come, (size_t)got) != 0)
            fail("a reply is not what it must be: %.*s", (int)strcspn(input, "\r\n\"\\"), input);
        connection->come += (size_t)got;
        any = true;
        if (got < BUFFER)
            return any;
    }
}

static int wait_for(struct epoll_event *events) {
    int ready = epoll_wait(poller, events, EVENTS, TURN_MS);
    if (ready < 0 && errno != EINTR)
        fail("epoll_wait: %s", strerror(errno));
    return ready < 0 ? 0 : ready;
}

/* Writes, or asks for, each key once. */
static void go_through_keys(bool set) {
    static struct epoll_event events[EVENTS];
    struct connection *connection = &connections[0];
    for (int key = 0; key < options.keys;) {
        begin_batch(connection);
        for (int i = 0; i < FILL && key < options.keys; i++)
            add(connection, key++, set);
        send_owed(connection);
        while (connection->come < connection->to_come) {
            if ((double)(now_ns() - connection->asked_at) > options.patience * 1e9)
                fail("the server fell silent while it was filled");
            wait_for(events);
            send_owed(connection);
            receive(connection);
        }
    }
}

static void exchange(void) {
    static struct epoll_event events[EVENTS];
    uint64_t began = 0, cpu_began = 0, answered = 0, last_sign = now_ns();
    uint64_t warm_at = last_sign + (uint64_t)(options.warmup * 1e9);
    for (int i = 0; i < options.connections; i++)
        ask(&connections[i]);
    for (;;) {
        uint64_t now = now_ns();
        if (!began && now >= warm_at) {
            memset(&latencies, 0, sizeof latencies);
            answered = 0;
            cpu_began = server_cpu_ns(options.server);
            began = now_ns();
        } else if (began && (double)(now - began) >= options.seconds * 1e9) {
            break;
        }
        if ((double)now - (double)last_sign > options.patience * 1e9)
            fail("the server fell silent for %g seconds", options.patience);
        int ready = wait_for(events);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            send_owed(connection);
            if (receive(connection))
                last_sign = now;
            if (connection->come == connection->to_come) {
                uint64_t done = now_ns();
                for (int n = 0; n < options.outstanding; n++)
                    histogram_add(&latencies, done - connection->asked_at);
                answered += (uint64_t)options.outstanding;
                ask(connection);
            }
        }
    }
    if (!answered)
        fail("nothing was answered within %g seconds", options.seconds);
    double seconds = (double)(now_ns() - began) / 1e9, cpu_seconds = (double)(server_cpu_ns(options.server) - cpu_began) / 1e9;
    printf("{\"mode\": \"%s\", \"connections\": %d, \"requests\": %llu, \"seconds\": %.6f, \"cpu_seconds\": %.6f, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f}\n",
           options.mode, options.connections, (unsigned long long)answered, seconds, cpu_seconds,
           histogram_percentile_us(&latencies, 0.5), histogram_percentile_us(&latencies, 0.99));
}

static void read_options(int count, char **words) {
    static const struct option known[] = {
        {"port", required_argument, 0, 'p'},     {"connections", required_argument, 0, 'c'}, {"outstanding", required_argument, 0, 'o'},
        {"size", required_argument, 0, 's'},     {"keys", required_argument, 0, 'k'},        {"seconds", required_argument, 0, 't'},
        {"warmup", required_argument, 0, 'w'},   {"patience", required_argument, 0, 'P'},    {"server", required_argument, 0, 'S'},
        {"protocol", required_argument, 0, 'R'}, {"fill", no_argument, 0, 'f'},              {0, 0, 0, 0},
    };
    int letter;
    while ((letter = getopt_long(count, words, "", known, 0)) != -1) {
        switch (letter) {
        case 'p': options.port = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 'o': options.outstanding = atoi(optarg); break;
        case 's': options.size = atoi(optarg); break;
        case 'k': options.keys = atoi(optarg); break;
        case 't': options.seconds = atof(optarg); break;
        case 'w': options.warmup = atof(optarg); break;
        case 'P': options.patience = atof(optarg); break;
        case 'S': options.server = atoi(optarg); break;
        case 'R': options.redis = strcmp(optarg, "redis") == 0; break;
        case 'f': options.fill = true; break;
        default: fail("unknown option");
        }
    }
    if (optind != count - 1)
        fail("give one mode: get or set");
    options.mode = words[optind];
    options.set = strcmp(options.mode, "set") == 0;
    if (!options.set && strcmp(options.mode, "get") != 0)
        fail("no such mode: %s", options.mode);
    if (options.port < 1 || options.connections < 1 || options.outstanding < 1 || options.keys < 1 || options.size < 0 || options.size > PERIOD)
        fail("an option is out of bounds");
}

int main(int count, char **words) {
    read_options(count, words);
    make_stream();
    poller = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc((size_t)options.connections, sizeof *connections);
    if (poller < 0 || !connections)
        fail("out of memory");
    for (int i = 0; i < options.connections; i++)
        open_connection(&connections[i]);
    if (options.fill) {
        go_through_keys(true);
        go_through_keys(false);
    }
    exchange();
    return 0;
}
