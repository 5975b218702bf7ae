/* A load generator for sessions that relay, on one epoll.
 *
 *   relay_load native|bare PORT SESSIONS BODY closed WINDOW [AUTH_FILE]
 *   relay_load native|bare PORT SESSIONS BODY paced RATE [AUTH_FILE]
 *
 * It opens SESSIONS sessions (`native`: AUTH with the next line of AUTH_FILE, then WELCOME), each with one frame sent
 * and its echo compared, and prints a line of JSON when all are open. Frames have BODY bytes of body. Then it does what
 * its standard input says, a letter at a time:
 *
 *   g  go. closed: each session has WINDOW frames under way, at any time. paced: each session sends RATE frames a
 *      second, evenly spread over all sessions, whether the others have come back or not; they are of type TWICE.
 *   b  begin to measure: forgets what has been measured, and prints an empty line.
 *   e  prints what was measured since, one line of JSON. A trip is a frame sent and its echo compared; in paced it
 *      begins when the frame was due, not when it was sent.
 *   s  stop: sends no more, waits for what is under way, closes all sessions (CLOSE in native, then the end of the
 *      stream), prints the frames of its whole life as one line of JSON, and exits.
 *
 * No two frames of a run are alike, and every byte that comes back is compared. The first difference ends the session
 * and counts as a fault; so does a connection that ends early, a frame that cannot be sent when it is due, and what has
 * not come back 5 s after the stop.
 */
#define _GNU_SOURCE
#include "native.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { STAMP = 8, HEAD = LENGTH + 1 + STAMP }; /* bytes; a frame's stamp stands behind its type */
enum { BUFFER = 1 << 18, EVENTS = 512, OPENING = 50, WINDOW_MOST = 64, FINE = 64, EXPONENTS = 64 };
enum step { CLOSED, CONNECTING, AUTHENTICATING, OPEN, ENDING };
static const double OPEN_WITHIN = 60.0, STOP_WITHIN = 5.0; /* seconds */

struct session {
    int fd;
    enum step step;
    bool wants_to_send;       /* its socket is full: epoll waits until it is not */
    uint64_t number;          /* of the session, the high part of its stamps */
    unsigned char *frame;     /* the one that is being sent; only the stamp changes */
    size_t frame_sent;        /* bytes of it, 0: none is being sent */
    uint64_t sent, back, later; /* frames */
    size_t got;               /* bytes of the frame that is coming */
    unsigned char head[HEAD]; /* the first of them */
    double began[WINDOW_MOST];
};

static bool native, paced, going, stopping;
static struct sockaddr_in target = {.sin_family = AF_INET};
static int poll_fd;
static FILE *auth_file;
static struct session *sessions;
static long count, started, opened, living, faults;
static size_t frame_size;
static uint64_t window, turns; /* turns: frames that were due, in paced */
static double rate, going_since, measured_since;
static uint64_t trips, histogram[EXPONENTS][FINE];

static void watch(struct session *s, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = s};
    if (epoll_ctl(poll_fd, operation, s->fd, &event)) die("epoll_ctl");
}

static void close_session(struct session *s) {
    close(s->fd);
    s->step = CLOSED;
    living--;
}

static void fail(struct session *s, const char *why) {
    if (!faults++) fprintf(stderr, "session %lu: %s\n", (unsigned long)s->number, why); /* one example is enough */
    close_session(s);
}

/* Durations are counted by their power of two and 64 parts of it, so to 1.6 % (as in HdrHistogram). */
static void measure(double seconds) {
    uint64_t ns = seconds > 0 ? (uint64_t)(seconds * 1e9) : 0;
    ns += FINE; /* so that the highest bit is the sixth at least */
    int exponent = 63 - __builtin_clzll(ns);
    histogram[exponent][(ns >> (exponent - 6)) & (FINE - 1)]++;
    trips++;
}

static double percentile_us(double share) {
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)trips);
    for (int exponent = 6; exponent < EXPONENTS; exponent++)
        for (int part = 0; part < FINE; part++)
            if ((seen += histogram[exponent][part]) > wanted)
                return (((double)(FINE + part) + 0.5) * (double)(1ull << (exponent - 6)) - FINE) / 1e3;
    return 0;
}

static void stamp(unsigned char *head, int type, const struct session *s, uint64_t frame) {
    uint64_t value = s->number << 40 | frame;
    put_length(head, frame_size - LENGTH);
    head[LENGTH] = (unsigned char)type;
    memcpy(head + LENGTH + 1, &value, STAMP);
}

/* Fills the part of a session's frames that stays the same: noise of its own (xorshift64), so that no two places are
 * alike. */
static void fill(struct session *s) {
    uint64_t noise = (s->number + 1) * 0x9e3779b97f4a7c15;
    for (size_t i = HEAD; i < frame_size; i++) {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        s->frame[i] = (unsigned char)noise;
    }
}

/* Sends one frame, or the rest of it. False: the socket is full, or the session has failed. */
static bool send_game_frame(struct session *s, double began) {
    if (!s->frame_sent) {
        stamp(s->frame, paced ? TWICE : GAME, s, s->sent);
        s->began[s->sent % WINDOW_MOST] = began;
    }
    ssize_t size = send(s->fd, s->frame + s->frame_sent, frame_size - s->frame_sent, MSG_NOSIGNAL);
    if (size < 0 && errno != EAGAIN) return fail(s, strerror(errno)), false;
    if (size > 0) s->frame_sent += (size_t)size;
    bool whole = s->frame_sent == frame_size;
    if (whole) s->frame_sent = 0, s->sent++;
    if (s->wants_to_send == whole) {
        s->wants_to_send = !whole;
        watch(s, EPOLL_CTL_MOD, whole ? EPOLLIN : EPOLLIN | EPOLLOUT);
    }
    return whole;
}

/* Sends all that a session may send; with paced only the rest of a frame that has begun. */
static void send_more(struct session *s, double moment) {
    while (s->frame_sent || (going && !paced && s->sent < s->back + window))
        if (!send_game_frame(s, moment)) return;
}

static void send_due(void) {
    for (double due; (due = going_since + (double)turns / (rate * (double)count)) <= now(); turns++) {
        struct session *s = &sessions[turns % (uint64_t)count];
        if (s->step != OPEN) continue;
        if (s->frame_sent || s->sent - s->back >= WINDOW_MOST) fail(s, "it cannot keep up");
        else send_game_frame(s, due);
    }
}

static void begin(struct session *s) {
    s->step = CONNECTING;
    living++;
    if (start_connecting(&target, &s->fd)) watch(s, EPOLL_CTL_ADD, EPOLLOUT);
    else fail(s, strerror(errno));
}

static void authenticate(struct session *s) {
    static char line[OWN_FRAME];
    s->step = AUTHENTICATING;
    if (!fgets(line, sizeof line, auth_file)) fail(s, "there are too few lines for AUTH");
    else if (!send_frame(s->fd, AUTH, line, strcspn(line, "\n"))) fail(s, "AUTH could not be sent");
}

static void admitted(struct session *s) {
    s->step = OPEN;
    if (!send_game_frame(s, now()) && s->step == OPEN) fail(s, "its first frame did not go out at once");
}

static void connected(struct session *s) {
    if (!has_connected(s->fd)) {
        fail(s, "cannot connect");
        return;
    }
    watch(s, EPOLL_CTL_MOD, EPOLLIN);
    if (native) authenticate(s);
    else admitted(s);
}

/* A game server says nothing by itself, so that WELCOME is the last that comes before our first frame. What comes
 * before is small, and comes whole: anything else is a fault. */
static void authenticating(struct session *s, const unsigned char *data, size_t size) {
    while (size > LENGTH) {
        size_t whole = LENGTH + get_length(data);
        if (whole == LENGTH || whole > size) break;
        if (data[LENGTH] == WELCOME && whole == size) {
            admitted(s);
            return;
        }
        if (data[LENGTH] == ERROR) {
            if (!faults) show_refusal(data + LENGTH + 1, whole - LENGTH - 1);
            break;
        }
        data += whole; /* STATUS asks for nothing */
        size -= whole;
    }
    if (size) fail(s, "not welcome");
}

/* A whole frame has come back. */
static void returned(struct session *s, double moment) {
    s->got = 0;
    if (s->head[LENGTH] == LATER) {
        s->later++;
        return;
    }
    if (s->back == 0) opened++;
    else measure(moment - s->began[s->back % WINDOW_MOST]);
    s->back++;
}

/* Compares the start of the frame that is coming, once it is there. */
static bool right_head(const struct session *s) {
    unsigned char expected[HEAD];
    if (s->head[LENGTH] == LATER) stamp(expected, LATER, s, s->later);
    else stamp(expected, paced ? TWICE : GAME, s, s->back);
    bool was_sent = s->head[LENGTH] == LATER ? paced && s->later < s->back : s->back < s->sent;
    return was_sent && !memcmp(expected, s->head, HEAD);
}

static void compare(struct session *s, const unsigned char *data, size_t size, double moment) {
    while (size) {
        size_t end = s->got < HEAD ? HEAD : frame_size;
        size_t piece = end - s->got < size ? end - s->got : size;
        if (s->got < HEAD) memcpy(s->head + s->got, data, piece);
        else if (memcmp(s->frame + s->got, data, piece)) {
            fail(s, "a frame came back changed");
            return;
        }
        s->got += piece;
        data += piece;
        size -= piece;
        if (s->got == HEAD && !right_head(s)) {
            fail(s, "a frame came back that is not the next");
            return;
        }
        if (s->got == frame_size) returned(s, moment);
    }
}

static void receive(struct session *s) {
    static unsigned char buffer[BUFFER];
    ssize_t size = recv(s->fd, buffer, sizeof buffer, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size == 0 && s->step == ENDING) close_session(s);
    else if (size <= 0) fail(s, size ? strerror(errno) : "the other side has ended it");
    else if (s->step == AUTHENTICATING) authenticating(s, buffer, (size_t)size);
    else {
        double moment = now();
        compare(s, buffer, (size_t)size, moment);
        if (s->step == OPEN) send_more(s, moment);
    }
}

static void say(const char *line) {
    puts(line);
    fflush(stdout);
}

static void print_measured(void) {
    double seconds = now() - measured_since;
    printf("{\"seconds\": %.6f, \"trips\": %lu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"faults\": %ld}", seconds,
           (unsigned long)trips, percentile_us(0.5), percentile_us(0.99), faults);
    say("");
}

static void obey(void) {
    char letter;
    if (read(STDIN_FILENO, &letter, 1) != 1) exit(1); /* who commands is gone */
    if (letter == 'g') {
        going = true;
        going_since = now();
        for (long i = 0; i < count; i++)
            if (sessions[i].step == OPEN) send_more(&sessions[i], now());
    } else if (letter == 'b') {
        measured_since = now();
        trips = 0;
        memset(histogram, 0, sizeof histogram);
        say("");
    } else if (letter == 'e') {
        print_measured();
    } else if (letter == 's') {
        going = false;
        stopping = true;
    }
}

/* One turn: what is due, then what is ready. */
static void turn(void) {
    struct epoll_event events[EVENTS];
    struct timespec wait = {.tv_nsec = 20000000};
    if (going && paced) {
        send_due();
        double until = going_since + (double)turns / (rate * (double)count) - now();
        if (until < 0.02) wait.tv_nsec = until > 0 ? (long)(until * 1e9) : 0;
    }
    int ready = epoll_pwait2(poll_fd, events, EVENTS, &wait, NULL);
    for (int i = 0; i < ready; i++) {
        struct session *s = events[i].data.ptr;
        if (!s) obey();
        else if (s->step == CONNECTING) connected(s);
        else if (s->step == OPEN && events[i].events == EPOLLOUT) send_more(s, now());
        else if (s->step != CLOSED) receive(s);
    }
}

static void open_all(void) {
    double until = now() + OPEN_WITHIN;
    while (opened < count && !faults && now() < until) {
        while (started < count && started - opened < OPENING) begin(&sessions[started++]);
        turn();
    }
    printf("{\"opened\": %ld, \"faults\": %ld}", opened, faults);
    say("");
}

static bool all_back(void) {
    for (long i = 0; i < count; i++) {
        const struct session *s = &sessions[i];
        if (s->step == OPEN && (s->frame_sent || s->back < s->sent || (paced && s->later < s->sent))) return false;
    }
    return true;
}

static void stop(void) {
    double until = now() + STOP_WITHIN;
    while (!all_back() && now() < until) turn();
    for (long i = 0; i < count; i++) {
        struct session *s = &sessions[i];
        if (s->step != OPEN) continue;
        if (s->frame_sent || s->back < s->sent || (paced && s->later < s->sent)) {
            fail(s, "not all has come back");
        } else if (native && !send_frame(s->fd, CLOSE, CLOSE_BODY, sizeof CLOSE_BODY - 1)) {
            fail(s, "CLOSE could not be sent");
        } else {
            shutdown(s->fd, SHUT_WR);
            s->step = ENDING;
        }
    }
    until = now() + STOP_WITHIN;
    while (living && now() < until) turn();
    uint64_t sent = 0, back = 0;
    for (long i = 0; i < count; i++) sent += sessions[i].sent, back += sessions[i].back + sessions[i].later;
    printf("{\"sent\": %lu, \"back\": %lu, \"faults\": %ld}", (unsigned long)sent, (unsigned long)back,
           faults + living);
    say("");
}

static void usage(void) {
    fprintf(stderr, "usage: relay_load native|bare PORT SESSIONS BODY closed|paced WINDOW|RATE [AUTH_FILE]\n");
    exit(2);
}

int main(int arguments_count, char **arguments) {
    if (arguments_count < 7) usage();
    native = !strcmp(arguments[1], "native");
    paced = !strcmp(arguments[5], "paced");
    if (native != (arguments_count == 8)) usage();
    if (native && !(auth_file = fopen(arguments[7], "r"))) die(arguments[7]);
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.sin_port = htons((uint16_t)atoi(arguments[2]));
    count = atol(arguments[3]);
    frame_size = LENGTH + (size_t)atol(arguments[4]);
    window = (uint64_t)atol(arguments[6]);
    rate = atof(arguments[6]);
    if (count < 1 || frame_size < HEAD || rate <= 0 || (!paced && window > WINDOW_MOST)) usage();

    raise_descriptors();
    prctl(PR_SET_TIMERSLACK, 1); /* what is due goes out then, not when the kernel likes */
    sessions = calloc((size_t)count, sizeof *sessions);
    poll_fd = epoll_create1(0);
    if (!sessions || poll_fd < 0) die("start");
    for (long i = 0; i < count; i++) {
        sessions[i].number = (uint64_t)i;
        if (!(sessions[i].frame = malloc(frame_size))) die("malloc");
        fill(&sessions[i]);
    }
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event)) die("standard input must be a pipe");
    open_all();
    while (!stopping) turn();
    stop();
    return 0;
}
