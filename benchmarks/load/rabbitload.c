// A client of RabbitMQ in C (librabbitmq): publishes with confirms, or consumes with acknowledgements, as fast as it can.
//
//   rabbitload publish HOST PORT USER PASSWORD VHOST QUEUE SIZE COUNT WINDOW
//   rabbitload consume HOST PORT USER PASSWORD VHOST QUEUE SIZE COUNT PREFETCH
//
// Prints what it took as JSON: {"messages": …, "seconds": …, "cpu_seconds": …}, of this process, from the first message.

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static amqp_connection_state_t connection;
static const amqp_channel_t channel = 1;

static void fail(const char *what) {
    fprintf(stderr, "rabbitload: %s\n", what);
    exit(1);
}

static void check(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void log_in(char **argument) {
    connection = amqp_new_connection();
    amqp_socket_t *tcp = amqp_tcp_socket_new(connection);
    if (!tcp || amqp_socket_open(tcp, argument[0], atoi(argument[1]))) fail("cannot connect");
    check(amqp_login(connection, argument[4], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, argument[2], argument[3]), "log-in");
    amqp_channel_open(connection, channel);
    check(amqp_get_rpc_reply(connection), "channel");
}

// Read one frame, which must be a confirm, note what it settles, and return how many messages these are.
static unsigned long read_confirm(char *is_settled, unsigned long *upto) {
    amqp_frame_t frame;
    if (amqp_simple_wait_frame(connection, &frame) != AMQP_STATUS_OK) fail("the connection was lost");
    if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) fail("not a confirm");
    const amqp_basic_ack_t *ack = frame.payload.method.decoded;
    unsigned long settled = 0;
    for (unsigned long tag = ack->multiple ? *upto + 1 : ack->delivery_tag; tag <= ack->delivery_tag; tag++) {
        settled += !is_settled[tag];
        is_settled[tag] = 1;
    }
    if (ack->multiple) *upto = ack->delivery_tag;
    amqp_maybe_release_buffers(connection);
    return settled;
}

static void publish(const char *queue, size_t size, unsigned long count, unsigned long window) {
    amqp_confirm_select(connection, channel);
    check(amqp_get_rpc_reply(connection), "confirm.select");
    char *body = malloc(size);
    memset(body, 'x', size);
    const amqp_bytes_t content = {size, body}, key = amqp_cstring_bytes(queue);
    char *is_settled = calloc(count + 1, 1);
    unsigned long sent = 0, settled = 0, upto = 0;
    while (settled < count) {
        while (sent < count && sent - settled < window) {
            char id[64];
            snprintf(id, sizeof id, "0123456789ab-1-%016lu", sent);
            amqp_table_entry_t header = {amqp_cstring_bytes("x-netd-id"), {AMQP_FIELD_KIND_UTF8, {0}}};
            header.value.value.bytes = amqp_cstring_bytes(id);
            amqp_basic_properties_t properties = {0};
            properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_HEADERS_FLAG;
            properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
            properties.message_id = amqp_cstring_bytes(id);
            properties.headers = (amqp_table_t){1, &header};
            if (amqp_basic_publish(connection, channel, amqp_empty_bytes, key, 1, 0, &properties, content)) fail("publish");
            sent++;
        }
        // Half a window at a time, or all of the rest.
        unsigned long goal = sent == count ? count : settled + window / 2;
        while (settled < goal) settled += read_confirm(is_settled, &upto);
    }
}

static void consume(const char *queue, unsigned long count, unsigned prefetch, double *since, double *cpu_since) {
    amqp_basic_qos(connection, channel, 0, prefetch, 0);
    check(amqp_get_rpc_reply(connection), "basic.qos");
    amqp_basic_consume(connection, channel, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "basic.consume");
    for (unsigned long got = 1; got <= count; got++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        check(amqp_consume_message(connection, &envelope, NULL, 0), "consume");
        if (got == 1) {
            *since = seconds();
            *cpu_since = cpu_seconds();
        }
        if (got % (prefetch / 4) == 0 || got == count) amqp_basic_ack(connection, channel, envelope.delivery_tag, 1);
        amqp_destroy_envelope(&envelope);
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "--version")) return puts(amqp_version()) < 0;
    if (argc != 11) fail("publish|consume HOST PORT USER PASSWORD VHOST QUEUE SIZE COUNT WINDOW");
    const char *queue = argv[7];
    const unsigned long count = strtoul(argv[9], NULL, 10), window = strtoul(argv[10], NULL, 10);
    log_in(argv + 2);
    double since = seconds(), cpu_since = cpu_seconds();
    if (!strcmp(argv[1], "publish"))
        publish(queue, strtoul(argv[8], NULL, 10), count, window);
    else
        consume(queue, count, window, &since, &cpu_since);
    const double took = seconds() - since, cpu = cpu_seconds() - cpu_since;
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    printf("{\"messages\": %lu, \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n", count, took, cpu);
    return 0;
}
