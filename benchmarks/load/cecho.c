/* A minimal echo server: one thread, level-triggered epoll, one recv and one send for each read. What a C programmer
 * would write in an hour, and so the floor that an event loop can come near to.
 *
 *   cecho PORT [MESSAGE_SIZE]
 *
 * With a message size, what is read is answered in pieces of that size, each with a send of its own.
 * A connection whose peer does not read is not read either until its pending bytes are sent: memory stays bounded. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024, EVENTS = 1024, BACKLOG = 4096 };

struct connection {
    int fd;
    char *pending; /* what send() did not take; while there is any, the connection waits for EPOLLOUT */
    size_t pending_size;
};

static int poller;
static size_t message_size;
static char buffer[BUFFER];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(struct connection *connection, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0)
        die("epoll_ctl");
}

static void forget(struct connection *connection) {
    close(connection->fd);
    free(connection->pending);
    free(connection);
}

/* Sends data, at once or in pieces; returns how much was sent, or -1 when the connection is gone. */
static ssize_t send_all(int fd, const char *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        size_t piece = message_size ? message_size : size - done;
        if (piece > size - done)
            piece = size - done;
        ssize_t sent = send(fd, data + done, piece, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN ? (ssize_t)done : -1;
        done += (size_t)sent;
    }
    return (ssize_t)done;
}

/* Both return 0 when the connection has ended. */
static int readable(struct connection *connection) {
    ssize_t got = recv(connection->fd, buffer, BUFFER, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    ssize_t sent = send_all(connection->fd, buffer, (size_t)got);
    if (sent < 0)
        return 0;
    if (sent < got) {
        connection->pending_size = (size_t)(got - sent);
        connection->pending = malloc(connection->pending_size);
        if (!connection->pending)
            die("malloc");
        memcpy(connection->pending, buffer + sent, connection->pending_size);
        watch(connection, EPOLL_CTL_MOD, EPOLLOUT);
    }
    return 1;
}

static int writable(struct connection *connection) {
    ssize_t sent = send_all(connection->fd, connection->pending, connection->pending_size);
    if (sent < 0)
        return 0;
    connection->pending_size -= (size_t)sent;
    memmove(connection->pending, connection->pending + sent, connection->pending_size);
    if (!connection->pending_size) {
        free(connection->pending);
        connection->pending = NULL;
        watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    }
    return 1;
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *connection = calloc(1, sizeof *connection);
        if (!connection)
            die("calloc");
        connection->fd = fd;
        watch(connection, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static struct connection *listen_on(uint16_t port) {
    static struct connection listener;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener.fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener.fd, BACKLOG) < 0)
        die("listen");
    watch(&listener, EPOLL_CTL_ADD, EPOLLIN);
    return &listener;
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: cecho PORT [MESSAGE_SIZE]\n");
        return 2;
    }
    message_size = count > 2 ? strtoul(arguments[2], NULL, 10) : 0;
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct connection *listener = listen_on((uint16_t)atoi(arguments[1]));
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == listener)
                accept_all(listener->fd);
            else if (!(connection->pending ? writable(connection) : readable(connection)))
                forget(connection);
        }
    }
}
