/* What the C programs of the benchmarks have in common: int32 frames, the proxy's own types, sockets, the clock. */
#ifndef NATIVE_H
#define NATIVE_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { AUTH = 0x01, WELCOME = 0x02, ERROR = 0x05, CLOSE = 0x06, CHALLENGE = 0x07, ADMIT = 0x08, ADMITTED = 0x09 };
/* The game's frames, which game_server answers so: GAME and TWICE come back as they are at once, and TWICE once more
 * as LATER, some time after that. */
enum { GAME = 0x10, TWICE = 0x11, LATER = 0x12 };
enum { LENGTH = 4, OWN_FRAME = 4096 }; /* bytes of a length field; of a frame of the proxy's own, at most */
static const char CLOSE_BODY[] = "{\"code\":\"left\",\"message\":\"done\"}";

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

/* Seconds, from some moment on. */
static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* As many descriptors as this process may have. */
static inline void raise_descriptors(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static inline void put_length(unsigned char *frame, size_t size) {
    uint32_t length = htonl((uint32_t)size);
    memcpy(frame, &length, LENGTH);
}

static inline size_t get_length(const unsigned char *frame) {
    uint32_t length;
    memcpy(&length, frame, LENGTH);
    return ntohl(length);
}

/* For messages that are far smaller than an empty socket buffer: a short send is a failure. */
static inline bool send_all(int fd, const void *data, size_t size) {
    return send(fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* The payload has less than OWN_FRAME bytes. */
static inline bool send_frame(int fd, int type, const void *payload, size_t size) {
    unsigned char frame[LENGTH + OWN_FRAME];
    put_length(frame, size + 1);
    frame[LENGTH] = (unsigned char)type;
    memcpy(frame + LENGTH + 1, payload, size);
    return send_all(fd, frame, LENGTH + 1 + size);
}

static inline void send_at_once(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* Makes a socket and begins to connect it. False: that has failed already. */
static inline bool start_connecting(const struct sockaddr_in *target, int *fd) {
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (*fd < 0) die("socket");
    send_at_once(*fd);
    return !connect(*fd, (const void *)target, sizeof *target) || errno == EINPROGRESS;
}

static inline bool has_connected(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    return !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) && !error;
}

/* What a proxy said instead of WELCOME, made harmless. */
static inline void show_refusal(const unsigned char *text, size_t size) {
    fputs("refused: ", stderr);
    for (size_t i = 0; i < size && i < 200; i++) fputc(text[i] < ' ' || text[i] > '~' ? '?' : text[i], stderr);
    fputc('\n', stderr);
}

#endif
