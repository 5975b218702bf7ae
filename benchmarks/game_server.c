/* A game server for benchmarks: admits every session that proves itself, and echoes its frames.
 *
 *   game_server native SERVER_ID KEY_FILE    CHALLENGE, ADMIT, ADMITTED with real MACs, then echo, frame by frame
 *   game_server bare                         echoes bytes, for proxies that know no handshake
 *
 * It listens on a free port of 127.0.0.1 and prints the port as its first line. When its standard input ends
 * it prints one line of JSON, what it has counted, and exits. Frames are int32, of 4092 bytes of body at most;
 * replies are small and go into an empty socket buffer, so a short send is counted as a fault and ends the session.
 * One thing a real game server must do is left out: it does not close when no ADMIT comes in 5 s.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLOSE = 0x06, CHALLENGE = 0x07, ADMIT = 0x08, ADMITTED = 0x09, GAME = 0x10 };
enum { BUFFER = 4096, MAC = 32, KEY = 32, NONCE = 16, EVENTS = 256 };

struct connection {
    int fd;
    bool admitted;
    char nonce[2 * NONCE + 1];
    size_t have;
    unsigned char in[BUFFER + 1]; /* one more than is ever filled: admit() ends the JSON with a zero */
};

static const char *server_id; /* NULL: bare */
static unsigned char key[KEY];
static unsigned long accepted, admitted, faults;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void read_key(const char *path) {
    char digits[2 * KEY + 1];
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%64s", digits) != 1 || strlen(digits) != 2 * KEY) die(path);
    fclose(file);
    for (int i = 0; i < KEY; i++)
        if (sscanf(digits + 2 * i, "%2hhx", &key[i]) != 1) die(path);
}

static void authenticate(const char *label, const void *json, size_t size, unsigned char mac[MAC]) {
    unsigned char text[64 + BUFFER];
    size_t head = strlen(label) + 1; /* the zero byte after the label is part of it */
    memcpy(text, label, head);
    memcpy(text + head, json, size);
    if (!HMAC(EVP_sha256(), key, KEY, text, head + size, mac, NULL)) die("HMAC");
}

/* Copies the string member `name` of a JSON object as it stands there, escapes and all. */
static bool member(const char *json, const char *name, char *value, size_t room) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    const char *at = strstr(json, quoted);
    if (!at) return false;
    at += strlen(quoted);
    at += strspn(at, " \t\r\n:");
    if (*at++ != '"') return false;
    size_t size = 0;
    while (at[size] != '"') {
        if (at[size] == '\\') size++;
        if (!at[size++]) return false;
    }
    if (size >= room) return false;
    memcpy(value, at, size);
    value[size] = 0;
    return true;
}

static bool send_all(struct connection *c, const void *data, size_t size) {
    return send(c->fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static bool send_frame(struct connection *c, int type, const void *payload, size_t size) {
    unsigned char frame[BUFFER + 5];
    uint32_t length = htonl((uint32_t)size + 1);
    memcpy(frame, &length, 4);
    frame[4] = (unsigned char)type;
    memcpy(frame + 5, payload, size);
    return send_all(c, frame, size + 5);
}

static bool challenge(struct connection *c) {
    unsigned char random[NONCE];
    char json[256];
    if (getrandom(random, NONCE, 0) != NONCE) die("getrandom");
    for (int i = 0; i < NONCE; i++) sprintf(c->nonce + 2 * i, "%02x", random[i]);
    int size = snprintf(json, sizeof json,
                        "{\"protocol\":1,\"server\":\"%s\",\"nonce\":\"%s\"}", server_id, c->nonce);
    return send_frame(c, CHALLENGE, json, (size_t)size);
}

/* `payload` is a MAC and JSON; the byte after it may be overwritten. */
static bool admit(struct connection *c, unsigned char *payload, size_t size) {
    unsigned char mac[MAC], reply[BUFFER];
    char session[256], nonce[64], proxy_nonce[64], server[256];
    if (size <= MAC) return false;
    char *json = (char *)payload + MAC;
    authenticate("gameproxy/1 admit", json, size - MAC, mac);
    if (CRYPTO_memcmp(mac, payload, MAC)) return false;
    json[size - MAC] = 0;
    if (!member(json, "session", session, sizeof session) || !member(json, "server", server, sizeof server) ||
        !member(json, "nonce", nonce, sizeof nonce) || !member(json, "proxy_nonce", proxy_nonce, sizeof proxy_nonce))
        return false;
    if (strcmp(server, server_id) || strcmp(nonce, c->nonce)) return false;
    char *answer = (char *)reply + MAC;
    int length = snprintf(answer, sizeof reply - MAC,
                          "{\"session\":\"%s\",\"proxy_nonce\":\"%s\"}", session, proxy_nonce);
    authenticate("gameproxy/1 admitted", answer, (size_t)length, reply);
    c->admitted = true;
    admitted++;
    return send_frame(c, ADMITTED, reply, MAC + (size_t)length);
}

/* Takes whole frames off the front of the buffer. False: the connection is to be closed. */
static bool take_frames(struct connection *c) {
    size_t at = 0;
    while (c->have - at >= 4) {
        uint32_t size;
        memcpy(&size, c->in + at, 4);
        size = ntohl(size);
        if (size == 0 || size > BUFFER - 4) return faults++, false;
        if (c->have - at < 4 + size) break;
        unsigned char *body = c->in + at + 4;
        if (c->admitted && body[0] == CLOSE) return false;
        if (c->admitted && body[0] >= GAME) {
            if (!send_all(c, c->in + at, 4 + size)) return faults++, false;
        } else if (!c->admitted && body[0] == ADMIT && c->have - at == 4 + size) {
            /* Nothing may follow ADMIT before ADMITTED, so the byte behind it is free. */
            if (!admit(c, body + 1, size - 1)) return faults++, false;
        } else {
            return faults++, false;
        }
        at += 4 + size;
    }
    memmove(c->in, c->in + at, c->have - at);
    c->have -= at;
    return true;
}

static bool receive(struct connection *c) {
    ssize_t size = recv(c->fd, c->in + c->have, BUFFER - c->have, 0);
    if (size < 0 && errno == EAGAIN) return true;
    if (size <= 0) return false;
    if (!server_id) return send_all(c, c->in, (size_t)size);
    c->have += (size_t)size;
    return take_frames(c);
}

static void end(struct connection *c) {
    close(c->fd);
    free(c);
}

static void accept_all(int listener, int poll) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = fd;
        accepted++;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
        if (server_id && !challenge(c)) faults++, end(c);
    }
}

static int listen_on_loopback(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (void *)&address, size) || listen(listener, 4096)) die("listen");
    getsockname(listener, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count, char **arguments) {
    if (count == 4 && !strcmp(arguments[1], "native")) {
        server_id = arguments[2];
        read_key(arguments[3]);
    } else if (count != 2 || strcmp(arguments[1], "bare")) {
        fprintf(stderr, "usage: game_server native SERVER_ID KEY_FILE | game_server bare\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    static char listening, input; /* their addresses mark the two descriptors that are no connection */
    int listener = listen_on_loopback(), poll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listening}, events[EVENTS];
    if (epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event)) die("epoll_ctl");
    event.data.ptr = &input;
    if (epoll_ctl(poll, EPOLL_CTL_ADD, STDIN_FILENO, &event)) die("standard input must be a pipe");
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            void *who = events[i].data.ptr;
            if (who == &input) {
                printf("{\"accepted\": %lu, \"admitted\": %lu, \"faults\": %lu}\n", accepted, admitted, faults);
                return 0;
            }
            if (who == &listening)
                accept_all(listener, poll);
            else if (!receive(who))
                end(who);
        }
    }
}
