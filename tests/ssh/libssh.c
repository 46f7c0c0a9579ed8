/* A client of libssh's: libssh PORT USER PRIVATE-KEY LINE. Prints what the command prints; its status is the exit status. */
#include <libssh/libssh.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(ssh_session session, const char *what) {
    fprintf(stderr, "%s: %s\n", what, ssh_get_error(session));
    return 255;
}

int main(int count, char **words) {
    ssh_session session = ssh_new();
    int port = atoi(words[1]), size;
    char buffer[4096];
    ssh_key key;
    ssh_options_set(session, SSH_OPTIONS_HOST, "127.0.0.1");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, words[2]);
    ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &(int){0});
    if (count != 5 || ssh_connect(session) != SSH_OK) return fail(session, "connect");
    if (ssh_pki_import_privkey_file(words[3], NULL, NULL, NULL, &key) != SSH_OK) return fail(session, "key");
    if (ssh_userauth_publickey(session, NULL, key) != SSH_AUTH_SUCCESS) return fail(session, "log in");
    ssh_channel channel = ssh_channel_new(session);
    if (ssh_channel_open_session(channel) != SSH_OK) return fail(session, "open");
    if (ssh_channel_request_exec(channel, words[4]) != SSH_OK) return fail(session, "exec");
    while ((size = ssh_channel_read(channel, buffer, sizeof buffer, 0)) > 0) fwrite(buffer, 1, size, stdout);
    return ssh_channel_get_exit_status(channel);
}
