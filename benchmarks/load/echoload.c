/* A load client for echo servers: one thread, epoll, loopback only. It checks every byte that comes back.
 *
 *   echoload echo    each active connection keeps --outstanding messages of --size bytes under way
 *   echoload bulk    each active connection keeps --outstanding * --size bytes under way, as a stream
 *   echoload accept  --connections slots; in each: connect, one message, its echo, close, again
 *   echoload hold    opens --connections, prints the result, and holds them until stdin ends
 *
 * Time and count are both bounded (--seconds, --count). The result is one line of JSON on stdout; a wrong, missing or
 * surplus byte, a connection closed by the server, or silence for --patience seconds ends the run with {"error": …}
 * and status 1.
 *
 * Each connection sends its own stretch of one stream of random bytes whose period is prime, and so no multiple of any
 * message: a byte lost, doubled, changed, or sent to another connection shows at once. When the time is up nothing new
 * is sent, and the run succeeds only after the last byte under way has come back. */
#define _GNU_SOURCE
#include "instruments.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
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
    PERIOD = 65521,   /* the largest prime below 2^16 */
    STRIDE = 7919,    /* between the beginnings of two connections' streams */
    BATCH = 100,      /* connections opened before their first echo is waited for: no server's backlog overflows */
    SETTLE_MS = 100,  /* after connect-echo-close: the server still has its closing to do, which counts */
    TURN_MS = 20,     /* longest wait for events, so that the clock is looked at */
};

struct connection {
    int fd;
    size_t start;        /* where in the period its stream begins */
    uint64_t sent, received;
    uint64_t owed;       /* bytes to send that the kernel has not taken yet */
    bool awaits_room;    /* EPOLLOUT is on */
    uint64_t *asked_at;  /* a ring: when message n was asked is at [n % outstanding] */
    uint64_t asked, answered;
};

static struct {
    const char *mode;
    int port, connections, active, outstanding, size;
    double seconds, warmup, patience;
    uint64_t count;
    pid_t server;
} options = {.connections = 1, .outstanding = 1, .size = 64, .seconds = 1, .warmup = 0.3, .patience = 5, .count = UINT64_MAX};

static unsigned char stream[PERIOD + BUFFER], input[BUFFER];
static struct connection *connections;
static int poller;
static struct epoll_event events[EVENTS];
static struct histogram latencies;

static int number_of(const struct connection *connection) {
    return (int)(connection - connections);
}

static void make_stream(void) {
    uint32_t random = 2463534242u; /* xorshift32, the same stream in each run */
    for (int i = 0; i < PERIOD; i++) {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        stream[i] = (unsigned char)(random >> 11);
    }
    for (size_t i = PERIOD; i < sizeof stream; i++)
        stream[i] = stream[i - PERIOD];
}

static void watch(struct connection *connection, int operation, uint32_t wanted) {
    struct epoll_event event = {.events = wanted, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

static void open_connection(struct connection *connection, bool wait) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    if (wait)
        fcntl(fd, F_SETFL, O_NONBLOCK);
    connection->fd = fd;
    connection->start = (size_t)number_of(connection) * STRIDE % PERIOD;
}

/* Sends what the connection owes, as far as the kernel takes it. */
static void send_owed(struct connection *connection) {
    while (connection->owed) {
        size_t piece = connection->owed < BUFFER ? connection->owed : BUFFER;
        const unsigned char *from = stream + (connection->start + connection->sent) % PERIOD;
        ssize_t sent = send(connection->fd, from, piece, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            if (!connection->awaits_room)
                watch(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            connection->awaits_room = true;
            return;
        }
        if (sent < 0)
            fail("connection %d: send: %s", number_of(connection), strerror(errno));
        connection->sent += (uint64_t)sent;
        connection->owed -= (uint64_t)sent;
    }
    if (connection->awaits_room)
        watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    connection->awaits_room = false;
}

static void ask(struct connection *connection, uint64_t bytes) {
    connection->owed += bytes;
    send_owed(connection);
}

static void __attribute__((noreturn)) fail_about(const struct connection *connection, size_t got) {
    const unsigned char *expected = stream + (connection->start + connection->received) % PERIOD;
    if (connection->received + got > connection->sent)
        fail("connection %d: more bytes came back than were sent", number_of(connection));
    size_t at = 0;
    while (at < got && input[at] == expected[at])
        at++;
    fail("connection %d: byte %llu came back as 0x%02x, sent was 0x%02x", number_of(connection),
         (unsigned long long)(connection->received + at), input[at], expected[at]);
}

/* Receives and checks what has come back; returns how many bytes, 0 if none. */
static size_t receive(struct connection *connection) {
    ssize_t got = recv(connection->fd, input, BUFFER, 0);
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got < 0)
        fail("connection %d: recv: %s", number_of(connection), strerror(errno));
    if (got == 0)
        fail("connection %d: closed by the server after %llu bytes", number_of(connection), (unsigned long long)connection->received);
    bool surplus = connection->received + (uint64_t)got > connection->sent;
    if (surplus || memcmp(input, stream + (connection->start + connection->received) % PERIOD, (size_t)got) != 0)
        fail_about(connection, (size_t)got);
    connection->received += (uint64_t)got;
    return (size_t)got;
}

static int wait_for_events(int milliseconds) {
    int ready = epoll_wait(poller, events, EVENTS, milliseconds);
    if (ready < 0 && errno != EINTR)
        fail("epoll_wait: %s", strerror(errno));
    return ready < 0 ? 0 : ready;
}

static bool readable(const struct epoll_event *event) {
    return event->events & (EPOLLIN | EPOLLHUP | EPOLLERR);
}

/* Waits until all that was asked on connections [from, to) has come back. */
static void drain(int from, int to) {
    uint64_t last_sign = now_ns();
    for (int next = from; next < to;) {
        const struct connection *waited = &connections[next];
        if (!waited->owed && waited->received == waited->sent) {
            next++;
            continue;
        }
        int ready = wait_for_events(TURN_MS);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_owed(connection);
            if (readable(&events[i]) && receive(connection))
                last_sign = now_ns();
        }
        if ((double)(now_ns() - last_sign) > options.patience * 1e9)
            fail("connection %d: %llu bytes never came back", next,
                 (unsigned long long)(waited->sent + waited->owed - waited->received));
    }
}

/* Opens every connection and has one message echoed on each. */
static void open_all(void) {
    for (int from = 0; from < options.connections; from += BATCH) {
        int to = from + BATCH < options.connections ? from + BATCH : options.connections;
        for (int i = from; i < to; i++) {
            open_connection(&connections[i], true);
            watch(&connections[i], EPOLL_CTL_ADD, EPOLLIN);
            ask(&connections[i], (uint64_t)options.size);
        }
        drain(from, to);
    }
}

struct window {
    uint64_t began, ended, cpu_began, cpu_ended, messages, bytes;
};

static void begin(struct window *window) {
    memset(window, 0, sizeof *window);
    memset(&latencies, 0, sizeof latencies);
    window->cpu_began = server_cpu_ns(options.server);
    window->began = now_ns();
}

static void end(struct window *window) {
    window->ended = now_ns();
    window->cpu_ended = server_cpu_ns(options.server);
}

static void print_result(const struct window *window) {
    double seconds = (double)(window->ended - window->began) / 1e9;
    double cpu_seconds = (double)(window->cpu_ended - window->cpu_began) / 1e9;
    printf("{\"mode\": \"%s\", \"connections\": %d, \"messages\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"cpu_seconds\": %.6f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           options.mode, options.connections, (unsigned long long)window->messages, (unsigned long long)window->bytes, seconds,
           cpu_seconds, histogram_percentile_us(&latencies, 0.5), histogram_percentile_us(&latencies, 0.99));
    fflush(stdout);
}

/* Counts the messages that are complete now and asks for as many again, with one send. */
static uint64_t answer_messages(struct connection *connection) {
    uint64_t size = (uint64_t)options.size, outstanding = (uint64_t)options.outstanding, now = now_ns();
    uint64_t complete = (connection->received - size) / size; /* the first message was open_all's */
    uint64_t fresh = complete - connection->answered;
    for (uint64_t i = 0; i < fresh; i++) {
        histogram_add(&latencies, now - connection->asked_at[connection->answered++ % outstanding]);
        connection->asked_at[connection->asked++ % outstanding] = now;
    }
    if (fresh)
        ask(connection, fresh * size);
    return fresh;
}

static void begin_messages(struct connection *connection, bool bulk) {
    if (!bulk) {
        connection->asked_at = calloc((size_t)options.outstanding, sizeof *connection->asked_at);
        if (!connection->asked_at)
            fail("out of memory");
        for (int i = 0; i < options.outstanding; i++)
            connection->asked_at[connection->asked++] = now_ns();
    }
    ask(connection, (uint64_t)options.outstanding * (uint64_t)options.size);
}

/* The modes echo and bulk: warm up, then measure. */
static void exchange(bool bulk) {
    struct window window = {0};
    open_all();
    for (int i = 0; i < options.active; i++)
        begin_messages(&connections[i], bulk);
    uint64_t warm_at = now_ns() + (uint64_t)(options.warmup * 1e9), last_sign = now_ns();
    for (bool warm = false;;) {
        uint64_t now = now_ns();
        if (!warm && now >= warm_at) {
            warm = true;
            begin(&window);
        } else if (warm && ((double)(now - window.began) >= options.seconds * 1e9 || window.messages >= options.count)) {
            break;
        }
        if ((double)now - (double)last_sign > options.patience * 1e9)
            fail("the server fell silent for %g seconds", options.patience);
        int ready = wait_for_events(TURN_MS);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT)
                send_owed(connection);
            size_t got = readable(&events[i]) ? receive(connection) : 0;
            if (!got)
                continue;
            last_sign = now;
            window.bytes += got;
            if (bulk)
                ask(connection, got);
            else
                window.messages += answer_messages(connection);
        }
    }
    end(&window);
    drain(0, options.connections);
    print_result(&window);
}

static void dial(struct connection *slot) {
    memset(slot, 0, sizeof *slot);
    open_connection(slot, false);
    slot->awaits_room = true; /* writable once it is connected */
    slot->owed = (uint64_t)options.size;
    watch(slot, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

/* Serves one event of mode accept; returns whether the slot's echo is complete and its connection closed. */
static bool finish(struct connection *slot, const struct epoll_event *event) {
    if (event->events & EPOLLOUT)
        send_owed(slot);
    if (!readable(event) || !receive(slot) || slot->received < (uint64_t)options.size)
        return false;
    close(slot->fd);
    return true;
}

static void connect_echo_close(void) {
    struct window window;
    uint64_t *dialled_at = calloc((size_t)options.connections, sizeof *dialled_at);
    uint64_t dialled = 0, last_done;
    int live = 0;
    if (!dialled_at)
        fail("out of memory");
    begin(&window);
    last_done = window.began;
    for (; live < options.connections && dialled < options.count; live++, dialled++) {
        dialled_at[live] = now_ns();
        dial(&connections[live]);
    }
    while (live) {
        int ready = wait_for_events(TURN_MS);
        for (int i = 0; i < ready; i++) {
            struct connection *slot = events[i].data.ptr;
            if (!finish(slot, &events[i]))
                continue;
            last_done = now_ns();
            histogram_add(&latencies, last_done - dialled_at[number_of(slot)]);
            window.messages++;
            window.bytes += (uint64_t)options.size;
            live--;
            if (dialled < options.count && (double)(last_done - window.began) < options.seconds * 1e9) {
                dialled_at[number_of(slot)] = last_done;
                dial(slot);
                dialled++;
                live++;
            }
        }
        if ((double)(now_ns() - last_done) > options.patience * 1e9)
            fail("%d connections were never answered", live);
    }
    poll(NULL, 0, SETTLE_MS);
    end(&window);
    window.ended = last_done;
    print_result(&window);
}

static void hold(void) {
    struct window window;
    struct pollfd standard_input = {.fd = 0, .events = POLLIN};
    begin(&window);
    open_all();
    end(&window);
    window.messages = (uint64_t)options.connections;
    print_result(&window);
    poll(&standard_input, 1, (int)(options.seconds * 1e3));
}

static void read_options(int count, char **arguments) {
    enum { PORT = 1, CONNECTIONS, ACTIVE, OUTSTANDING, SIZE, SECONDS, WARMUP, PATIENCE, COUNT, SERVER };
    static const struct option known[] = {
        {"port", required_argument, NULL, PORT},         {"connections", required_argument, NULL, CONNECTIONS},
        {"active", required_argument, NULL, ACTIVE},     {"outstanding", required_argument, NULL, OUTSTANDING},
        {"size", required_argument, NULL, SIZE},         {"seconds", required_argument, NULL, SECONDS},
        {"warmup", required_argument, NULL, WARMUP},     {"patience", required_argument, NULL, PATIENCE},
        {"count", required_argument, NULL, COUNT},       {"server", required_argument, NULL, SERVER},
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (option) {
        case PORT: options.port = atoi(optarg); break;
        case CONNECTIONS: options.connections = atoi(optarg); break;
        case ACTIVE: options.active = atoi(optarg); break;
        case OUTSTANDING: options.outstanding = atoi(optarg); break;
        case SIZE: options.size = atoi(optarg); break;
        case SECONDS: options.seconds = atof(optarg); break;
        case WARMUP: options.warmup = atof(optarg); break;
        case PATIENCE: options.patience = atof(optarg); break;
        case COUNT: options.count = strtoull(optarg, NULL, 10); break;
        case SERVER: options.server = atoi(optarg); break;
        default: exit(2);
        }
    }
    options.mode = optind == count - 1 ? arguments[optind] : "";
    if (options.active <= 0 || options.active > options.connections)
        options.active = options.connections;
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    if (options.connections < 1 || options.outstanding < 1 || options.size < 1 || options.port < 1) {
        fprintf(stderr, "echoload: --port is needed; --connections, --outstanding and --size are positive\n");
        return 2;
    }
    make_stream();
    connections = calloc((size_t)options.connections, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || poller < 0)
        fail("out of memory or descriptors");
    if (strcmp(options.mode, "echo") == 0)
        exchange(false);
    else if (strcmp(options.mode, "bulk") == 0)
        exchange(true);
    else if (strcmp(options.mode, "accept") == 0)
        connect_echo_close();
    else if (strcmp(options.mode, "hold") == 0)
        hold();
    else {
        fprintf(stderr, "usage: echoload echo|bulk|accept|hold --port PORT [--connections N] [--active N] [--outstanding N]\n"
                        "  [--size BYTES] [--seconds S] [--warmup S] [--patience S] [--count N] [--server PID]\n");
        return 2;
    }
    return 0;
}
