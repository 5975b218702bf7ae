/* A game server for benchmarks: admits every session that proves itself, and echoes its frames.
 *
 *   game_server native SERVER_ID KEY_FILE    CHALLENGE, ADMIT, ADMITTED with real MACs, then echoes
 *   game_server bare                         echoes from the start, for proxies that know no handshake
 *
 * It listens on a free port of 127.0.0.1 and prints the port as its first line. When its standard input ends
 * it prints one line of JSON, what it has counted, and exits. Frames are int32. Bytes go back as they come, all that
 * one read has brought in one write; a peer that does not take them is read no further until it does. Frames of type
 * TWICE are sent once more LATER, as by a game server that also speaks by itself. Both modes do the same for a frame.
 * One thing a real game server must do is left out: it does not close when no ADMIT comes in 5 s.
 */
#define _GNU_SOURCE
#include "native.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

enum { MAC = 32, KEY = 32, NONCE = 16, EVENTS = 256 };
enum { BUFFER = 1 << 18, TWICE_MOST = 128, QUEUE = 1 << 14 }; /* bytes, bytes of a whole frame, frames */
static const double LATER_BY = 0.05;                          /* seconds */

struct connection {
    int fd;
    bool admitted, twice; /* twice: the frame that is passing will be sent once more */
    size_t remaining;     /* bytes of it that are still to come */
    size_t have, copied;  /* bytes in `in`, and in `copy` */
    unsigned char *unsent;
    size_t unsent_at, unsent_size;
    unsigned char copy[TWICE_MOST];
    char nonce[2 * NONCE + 1];
    unsigned char in[OWN_FRAME + 1]; /* one more than is ever filled: admit() ends the JSON with a zero */
};

/* What is to be sent LATER; all wait equally long, so it is a queue. */
struct later {
    struct connection *to; /* NULL: it has ended meanwhile */
    double due;
    size_t size;
    unsigned char frame[TWICE_MOST];
};

static int poll_fd;
static struct later queue[QUEUE];
static unsigned long queue_head, queue_tail; /* count up for ever */
static const char *server_id; /* NULL: bare */
static unsigned char key[KEY];
static unsigned long accepted, admitted, faults;

static void read_key(const char *path) {
    char digits[2 * KEY + 1];
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%64s", digits) != 1 || strlen(digits) != 2 * KEY) die(path);
    fclose(file);
    for (int i = 0; i < KEY; i++)
        if (sscanf(digits + 2 * i, "%2hhx", &key[i]) != 1) die(path);
}

static void authenticate(const char *label, const void *json, size_t size, unsigned char mac[MAC]) {
    unsigned char text[64 + OWN_FRAME];
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

static bool challenge(struct connection *c) {
    unsigned char random[NONCE];
    char json[256];
    if (getrandom(random, NONCE, 0) != NONCE) die("getrandom");
    for (int i = 0; i < NONCE; i++) sprintf(c->nonce + 2 * i, "%02x", random[i]);
    int size = snprintf(json, sizeof json,
                        "{\"protocol\":1,\"server\":\"%s\",\"nonce\":\"%s\"}", server_id, c->nonce);
    return send_frame(c->fd, CHALLENGE, json, (size_t)size);
}

/* `payload` is a MAC and JSON; the byte after it may be overwritten. */
static bool admit(struct connection *c, unsigned char *payload, size_t size) {
    unsigned char mac[MAC], reply[OWN_FRAME];
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
    return send_frame(c->fd, ADMITTED, reply, MAC + (size_t)length);
}

/* Before a session is admitted only ADMIT may come, and nothing may follow it: the byte behind it is free. */
static bool receive_admit(struct connection *c) {
    ssize_t size = recv(c->fd, c->in + c->have, OWN_FRAME - c->have, 0);
    if (size < 0 && errno == EAGAIN) return true;
    if (size <= 0) return false;
    c->have += (size_t)size;
    if (c->have < LENGTH) return true;
    size_t body = get_length(c->in);
    if (body == 0 || body > OWN_FRAME - LENGTH) return faults++, false;
    if (c->have < LENGTH + body) return true;
    if (c->have > LENGTH + body || c->in[LENGTH] != ADMIT || !admit(c, c->in + LENGTH + 1, body - 1))
        return faults++, false;
    c->have = 0;
    return true;
}

static void send_later(struct connection *c) {
    struct later *last = &queue[queue_tail % QUEUE];
    if (queue_tail - queue_head == QUEUE) {
        faults++;
        return;
    }
    last->to = c;
    last->due = now() + LATER_BY;
    last->size = c->copied;
    memcpy(last->frame, c->copy, c->copied);
    last->frame[LENGTH] = LATER;
    queue_tail++;
}

/* Sends what is due; returns the milliseconds until more is, or -1. */
static int send_due(void) {
    if (queue_head == queue_tail) return -1;
    double moment = now();
    for (; queue_head != queue_tail; queue_head++) {
        struct later *first = &queue[queue_head % QUEUE];
        if (first->due > moment) return (int)((first->due - moment) * 1e3) + 1;
        if (!first->to) continue;
        if (first->to->unsent || first->to->remaining) return 1; /* never in the middle of another frame */
        if (!send_all(first->to->fd, first->frame, first->size)) faults++;
    }
    return -1;
}

static void copy_twice(struct connection *c, const unsigned char *data, size_t size) {
    memcpy(c->copy + c->copied, data, size);
    c->copied += size;
    if (c->remaining == 0) send_later(c);
}

/* How much of `data` is to go back: all but a header of which not all is there (with the type it has five bytes), and
 * but for what stands from a frame on that ends the session. */
static size_t walk(struct connection *c, const unsigned char *data, size_t size, bool *over) {
    size_t at = 0;
    for (;;) {
        size_t piece = size - at < c->remaining ? size - at : c->remaining;
        c->remaining -= piece;
        if (c->twice && piece) copy_twice(c, data + at, piece);
        at += piece;
        if (c->remaining || size - at < LENGTH + 1) return at;
        size_t body = get_length(data + at);
        int type = data[at + LENGTH];
        c->twice = type == TWICE;
        if (type < GAME || body == 0 || (c->twice && body > TWICE_MOST - LENGTH)) {
            faults += type != CLOSE;
            *over = true;
            return at;
        }
        c->remaining = LENGTH + body; /* the header passes like the rest */
        c->copied = 0;
    }
}

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poll_fd, operation, c->fd, &event)) die("epoll_ctl");
}

static bool send_back(struct connection *c, const unsigned char *data, size_t size) {
    ssize_t sent = size ? send(c->fd, data, size, MSG_NOSIGNAL) : 0;
    if (sent < 0 && errno != EAGAIN) return false;
    if (sent < 0) sent = 0;
    if ((size_t)sent == size) return true;
    c->unsent_at = 0;
    c->unsent_size = size - (size_t)sent;
    c->unsent = malloc(c->unsent_size);
    if (!c->unsent) die("malloc");
    memcpy(c->unsent, data + sent, c->unsent_size);
    watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    return true;
}

static bool send_unsent(struct connection *c) {
    ssize_t sent = send(c->fd, c->unsent + c->unsent_at, c->unsent_size - c->unsent_at, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN;
    c->unsent_at += (size_t)sent;
    if (c->unsent_at < c->unsent_size) return true;
    free(c->unsent);
    c->unsent = NULL;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
    return true;
}

static bool echo(struct connection *c) {
    static unsigned char buffer[LENGTH + BUFFER];
    memcpy(buffer, c->in, c->have);
    ssize_t size = recv(c->fd, buffer + c->have, BUFFER, 0);
    if (size < 0 && errno == EAGAIN) return true;
    if (size <= 0) return false;
    size_t all = c->have + (size_t)size;
    bool over = false;
    size_t passed = walk(c, buffer, all, &over);
    if (!send_back(c, buffer, passed) || over) return false;
    c->have = all - passed;
    memcpy(c->in, buffer + passed, c->have);
    return true;
}

/* False: the connection is to be closed. */
static bool serve(struct connection *c) {
    if (c->unsent) return send_unsent(c);
    return c->admitted ? echo(c) : receive_admit(c);
}

static void end(struct connection *c) {
    for (unsigned long i = queue_head; i != queue_tail; i++)
        if (queue[i % QUEUE].to == c) queue[i % QUEUE].to = NULL;
    close(c->fd);
    free(c->unsent);
    free(c);
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        send_at_once(fd);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = fd;
        c->admitted = !server_id;
        accepted++;
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
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
    raise_descriptors();

    static char listening, input; /* their addresses mark the two descriptors that are no connection */
    int listener = listen_on_loopback();
    poll_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &listening}, events[EVENTS];
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event)) die("epoll_ctl");
    event.data.ptr = &input;
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event)) die("standard input must be a pipe");
    for (;;) {
        int ready = epoll_wait(poll_fd, events, EVENTS, send_due());
        for (int i = 0; i < ready; i++) {
            void *who = events[i].data.ptr;
            if (who == &input) {
                printf("{\"accepted\": %lu, \"admitted\": %lu, \"faults\": %lu}\n", accepted, admitted, faults);
                return 0;
            }
            if (who == &listening)
                accept_all(listener);
            else if (!serve(who))
                end(who);
        }
    }
}
