/* A load generator for session set-ups, on one epoll.
 *
 *   setup_load native|bare PORT IN_FLIGHT run SECONDS [AUTH_FILE]
 *   setup_load native|bare PORT IN_FLIGHT hold SESSIONS [AUTH_FILE]
 *
 * A set-up in `native`: connect, AUTH (the next line of AUTH_FILE, its JSON), WELCOME, one frame sent and its echo
 * compared. In `bare`: connect, the same bytes sent and compared. IN_FLIGHT of them are under way at any time.
 *
 * run: each session is closed when its echo is there (CLOSE in native, then the end of the stream) and counts
 *   when the other side has ended the stream too; then the next begins. The first half second is not counted.
 *   Prints one line of JSON: the rate, the time from connect to echo, and what failed at which step.
 * hold: sessions stay open once their echo is there. Prints one line of JSON when SESSIONS are open, keeps them
 *   until its standard input ends (600 s at most), and closes them.
 */
#define _GNU_SOURCE
#include "native.h"

#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BUFFER = 4096, BODY = 32, EVENTS = 256, MOST_FAILURES = 1000, MOST_SAMPLES = 1 << 20 };
enum step { UNUSED, CONNECTING, AUTHENTICATING, ECHOING, CLOSING, HELD, STEPS };
static const char *const step_names[STEPS] = {"unused", "connecting", "authenticating", "echoing", "closing", "held"};
static const double WARM_UP = 0.5, SESSION_DEADLINE = 10.0, LONGEST_HOLD = 600.0; /* seconds */

struct session {
    int fd;
    enum step step;
    double began, took; /* seconds; took: from connect to echo */
    unsigned char game[4 + BODY];
    size_t have;
    unsigned char in[BUFFER];
};

static bool native, holding, stopping;
static struct sockaddr_in target = {.sin_family = AF_INET};
static int poll_fd;
static FILE *auth_file;
static struct session *sessions, **unused;
static long in_flight, most_sessions, unused_count, busy, held, total, measured, failed;
static long failures[STEPS], refused, exhausted;
static uint64_t stamp;
static double measure_from, *samples;

static void watch(struct session *s, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (epoll_ctl(poll_fd, operation, s->fd, &event)) die("epoll_ctl");
}

static void end(struct session *s) {
    if (s->step == HELD) held--;
    else busy--;
    close(s->fd);
    s->step = UNUSED;
    unused[unused_count++] = s;
}

static void fail(struct session *s) {
    if (s->step != HELD) failures[s->step]++, failed++; /* who holds sessions counts them at the proxy */
    end(s);
}

static void begin(struct session *s) {
    s->step = CONNECTING;
    s->have = 0;
    s->began = now();
    busy++;
    if (start_connecting(&target, &s->fd))
        watch(s, EPOLL_CTL_ADD, EPOLLOUT);
    else
        fail(s);
}

static void authenticate(struct session *s) {
    static char line[BUFFER];
    s->step = AUTHENTICATING;
    if (!fgets(line, sizeof line, auth_file)) {
        exhausted = stopping = true;
        end(s);
    } else if (!send_frame(s->fd, AUTH, line, strcspn(line, "\n"))) {
        fail(s);
    }
}

/* The frame is different in every session: an echo that went to the wrong client would be seen. */
static void send_game_frame(struct session *s) {
    put_length(s->game, BODY);
    memset(s->game + 4, GAME, BODY);
    stamp++;
    memcpy(s->game + 8, &stamp, sizeof stamp);
    s->step = ECHOING;
    if (!send_all(s->fd, s->game, sizeof s->game)) fail(s);
}

static void echoed(struct session *s) {
    s->took = now() - s->began;
    if (holding) {
        s->step = HELD;
        held++;
        busy--;
        return;
    }
    s->step = CLOSING;
    if (native && !send_frame(s->fd, CLOSE, CLOSE_BODY, sizeof CLOSE_BODY - 1))
        fail(s);
    else
        shutdown(s->fd, SHUT_WR);
}

static void closed(struct session *s) {
    total++;
    if (!stopping && now() >= measure_from && measured < MOST_SAMPLES) samples[measured++] = s->took;
    end(s);
}

/* Looks at one body; `frame` is the whole frame. */
static void frame_received(struct session *s, const unsigned char *frame, size_t size) {
    int type = frame[4];
    if (s->step == AUTHENTICATING && type == WELCOME) {
        send_game_frame(s);
    } else if (s->step == ECHOING && size == sizeof s->game && !memcmp(frame, s->game, size)) {
        echoed(s);
    } else if (type == ERROR || type == CLOSE) {
        if (!refused++) show_refusal(frame + 5, size - 5); /* one example is enough */
        fail(s);
    } else if (type >= GAME) {
        fail(s); /* somebody else's frame, or one too many */
    } /* STATUS and SETTINGS ask for nothing */
}

static void take_frames(struct session *s) {
    size_t at = 0;
    while (s->step != UNUSED && s->have - at >= 4) {
        size_t size = get_length(s->in + at);
        if (size == 0 || size > BUFFER - 4) {
            fail(s);
            return;
        }
        if (s->have - at < 4 + size) break;
        frame_received(s, s->in + at, 4 + size);
        at += 4 + size;
    }
    memmove(s->in, s->in + at, s->have - at);
    s->have -= at;
}

static void receive(struct session *s) {
    ssize_t size = recv(s->fd, s->in + s->have, BUFFER - s->have, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        if (s->step == CLOSING) closed(s);
        else fail(s);
        return;
    }
    s->have += (size_t)size;
    if (native) {
        take_frames(s);
    } else if (s->have >= sizeof s->game) {
        if (s->step == ECHOING && s->have == sizeof s->game && !memcmp(s->in, s->game, s->have)) echoed(s);
        else fail(s);
    }
}

static void connected(struct session *s) {
    if (!has_connected(s->fd)) {
        fail(s);
        return;
    }
    watch(s, EPOLL_CTL_MOD, EPOLLIN);
    if (native) authenticate(s);
    else send_game_frame(s);
}

/* One turn: begin what may begin, wait a little, handle what is ready, drop what takes too long. */
static void turn(void) {
    static double checked;
    struct epoll_event events[EVENTS];
    for (long i = in_flight - busy; !stopping && i > 0 && unused_count; i--) begin(unused[--unused_count]);
    int ready = epoll_wait(poll_fd, events, EVENTS, 20);
    for (int i = 0; i < ready; i++) {
        struct session *s = events[i].data.ptr;
        if (s->step == CONNECTING) connected(s);
        else receive(s);
    }
    if (failed > MOST_FAILURES) stopping = true;
    double t = now();
    if (t < checked + 0.1) return;
    checked = t;
    for (long i = 0; i < most_sessions; i++)
        if (sessions[i].step != UNUSED && sessions[i].step != HELD && t > sessions[i].began + SESSION_DEADLINE)
            fail(&sessions[i]);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double share) {
    return measured ? samples[(long)(share * (double)(measured - 1))] * 1e6 : 0;
}

static void print_failures(void) {
    printf("\"exhausted\": %s, \"failures\": {", exhausted ? "true" : "false");
    for (int step = CONNECTING; step < HELD; step++) printf("\"%s\": %ld, ", step_names[step], failures[step]);
    printf("\"all\": %ld}}\n", failed);
    fflush(stdout);
}

static void run(double seconds) {
    measure_from = now() + WARM_UP;
    double until = measure_from + seconds;
    while (!stopping && now() < until) turn();
    double elapsed = now() - measure_from;
    stopping = true;
    while (busy) turn(); /* ends: every session has its deadline */
    qsort(samples, (size_t)measured, sizeof *samples, by_size);
    printf("{\"seconds\": %.4f, \"setups\": %ld, \"rate\": %.1f, \"p50_us\": %.0f, \"p99_us\": %.0f, \"total\": %ld, ",
           elapsed, measured, measured ? (double)measured / elapsed : 0, percentile(0.5),
           percentile(0.99), total);
    print_failures();
}

static bool input_ended(void) {
    struct pollfd input = {.fd = STDIN_FILENO};
    return poll(&input, 1, 0) > 0;
}

static void hold(void) {
    double began = now();
    while (!stopping && held < most_sessions) turn();
    printf("{\"held\": %ld, \"seconds\": %.4f, ", held, now() - began);
    print_failures();
    stopping = true; /* what is lost is not replaced */
    while (now() < began + LONGEST_HOLD && !input_ended()) turn();
    for (long i = 0; i < most_sessions; i++)
        if (sessions[i].step == HELD && native) send_frame(sessions[i].fd, CLOSE, CLOSE_BODY, sizeof CLOSE_BODY - 1);
}

static void usage(void) {
    fprintf(stderr, "usage: setup_load native|bare PORT IN_FLIGHT run|hold SECONDS|SESSIONS [AUTH_FILE]\n");
    exit(2);
}

int main(int count, char **arguments) {
    if (count < 6) usage();
    native = !strcmp(arguments[1], "native");
    holding = !strcmp(arguments[4], "hold");
    if (native != (count == 7)) usage();
    if (native && !(auth_file = fopen(arguments[6], "r"))) die(arguments[6]);
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.sin_port = htons((uint16_t)atoi(arguments[2]));
    in_flight = atol(arguments[3]);
    most_sessions = holding ? atol(arguments[5]) : in_flight;

    raise_descriptors();
    sessions = calloc((size_t)most_sessions, sizeof *sessions);
    samples = calloc(MOST_SAMPLES, sizeof *samples);
    poll_fd = epoll_create1(0);
    unused = calloc((size_t)most_sessions, sizeof *unused);
    if (!sessions || !unused || !samples || poll_fd < 0) die("start");
    while (unused_count < most_sessions) {
        unused[unused_count] = &sessions[most_sessions - 1 - unused_count];
        unused_count++;
    }
    if (holding) hold();
    else run(atof(arguments[5]));
    return 0;
}
