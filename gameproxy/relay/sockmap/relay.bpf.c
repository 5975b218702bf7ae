/* Relays between pairs of TCP sockets, frame by frame, without waking a process (docs/sockmap.md).
 *
 * The program is run for whatever arrives at a socket in `sources`, under that socket's lock. It looks at the frames
 * that begin there, and sends the whole buffer on to the other socket of the pair, or leaves the whole buffer to the
 * socket's own reader: it never divides one, but for a beginning that TCP repeats, which it cuts off. Once it has left
 * something it leaves all that follows, until user space lets it go on. So what it sent on and what it left meet at one
 * byte of the stream, and `remaining` is the state of the parser there. Whoever reads the rest judges it: of a frame that
 * may not pass, no byte has been sent on.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The kernel lends its helpers only to programs under a licence compatible with the GPL; this is how it spells MIT. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";

enum {
	FIELD_MOST = 12, /* bytes loaded of a header: the longest varint, and the first byte of the body */
	VARINT_MOST = 10,
	FRAMES_MOST = 1 << 20, /* frames looked at in one buffer */
	CUT_MOST = 4095,       /* bytes that bpf_skb_adjust_room takes off at once */
	CUTS_MOST = 1 << 10,   /* such cuts of one buffer */
	RESERVED_BELOW = 0x10,
	COST_SHIFT = 10, /* costs are in 1/1024 ns */
};

/* Why a lane leaves what arrives to user space; 0: it does not. layout.py has the same. */
enum stop {
	STOP_HEADER = 1,  /* a header, or the first byte of a body, was not in the buffer yet */
	STOP_FRAME = 2,   /* a frame that is user space's to judge: reserved, or bad */
	STOP_BACKLOG = 3, /* the sink takes too little */
	STOP_FRAMES = 4,  /* more frames than the limit allows */
	STOP_BYTES = 5,   /* more bytes than the limit allows */
	STOP_ASKED = 6,   /* user space wants it so */
	STOP_LOST = 7,    /* what has come is not what comes next in the stream; the lane is never resumed */
};

/* A limit as a virtual clock (GCRA): each unit costs time, and `busy_until` may be `burst` ahead of now. */
struct bucket {
	__u64 cost;       /* of a frame or byte, in 1/1024 ns; 0: no limit */
	__u64 burst;      /* ns */
	__u64 busy_until; /* ns of CLOCK_MONOTONIC */
	__u64 over;       /* units beyond the limit that passed, as it is not enforced */
	__u32 enforced;
	__u32 unused;
};

/* One direction of a pair. User space has this memory mapped; layout.py has the same structure. */
struct lane {
	/* Written by user space before the socket is in `sources`. */
	__u32 sink;          /* its place in `sinks` */
	__u32 backlog_most;  /* bytes sent on that the sink's TCP may not have taken yet */
	__u64 value_least;   /* what the length field may hold */
	__u64 value_most;
	__u64 adjustment;    /* added to it, modulo 2^64 */
	__u16 length_offset;
	__u16 passing;       /* a bit for each type below 0x10 that passes */
	__u8 field_size;     /* of a varint: the most bytes */
	__u8 is_varint;
	__u8 is_little;
	__u8 is_looked_at;   /* whether the first byte of a body matters */
	struct bucket frame_bucket;
	struct bucket byte_bucket;
	/* Written by user space at any time. */
	__u32 asked;         /* to leave what arrives from now on */
	__u32 lost;          /* whether it is not known which bytes were left; the program sets it */
	__u64 resume_at;     /* go on if `left` is exactly this */
	__u64 resume_remaining;
	__u32 is_based;      /* whether `base` is known; the program sets it */
	/* Written by the program. */
	__u32 stopped;       /* enum stop */
	__u32 untold;        /* the ring had no room for the event */
	__u32 base;          /* the sink's write_seq at `based_at` */
	__u64 based_at;      /* `bytes` when the sink's TCP had taken all of them */
	__u64 remaining;     /* bytes of the body that is passing */
	__u64 begun;         /* frames of which something was sent on */
	__u64 bytes;         /* sent on */
	__u64 left;          /* bytes left to user space */
	__u64 buffers;       /* sent on */
	__u32 next;          /* the sequence number of the next byte that comes */
	__u32 has_begun;     /* whether that is known */
	__u64 cookie;        /* of the source; written by user space before */
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} sinks SEC(".maps"); /* where the program sends to; it does not run for these */

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} sources SEC(".maps"); /* for which it runs */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__type(key, __u64); /* the source's cookie */
	__type(value, __u32);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct lane);
} lanes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps"); /* cookies of the sources of lanes that have stopped */

struct tcp_sock {
	__u32 copied_seq;
	__u32 write_seq;
} __attribute__((preserve_access_index));

struct scan {
	struct __sk_buff *skb;
	struct lane *lane;
	__u32 size;
	__u32 at;
	__u64 remaining;
	__u32 begun;
	__u32 stop;
};

/* Goes to the end of the body that is passing, and looks at the header there. Returns 1 when there is no more to do. */
static long next_frame(__u32 index, struct scan *scan)
{
	struct lane *lane = scan->lane;
	__u32 room = scan->size - scan->at;
	__u8 field[16] = {};
	__u32 used = 0;
	__u64 value = 0;

	if (scan->remaining >= room) {
		scan->remaining -= room;
		scan->at = scan->size;
		return 1;
	}
	room -= scan->remaining;
	__u32 at = scan->at + scan->remaining;

	scan->stop = STOP_HEADER; /* until it is known better */
	if (room <= lane->length_offset)
		return 1;
	room -= lane->length_offset;
	at += lane->length_offset;
	__u64 loaded = room;
	if (loaded > FIELD_MOST)
		loaded = FIELD_MOST;
	barrier_var(loaded); /* the compiler knows that it is neither 0 nor more; the verifier must see it tested */
	if (loaded < 1 || loaded > FIELD_MOST || bpf_skb_load_bytes(scan->skb, at, field, loaded)) {
		scan->stop = STOP_FRAME;
		return 1;
	}

	if (lane->is_varint) {
		__u8 group = 0x80;
		for (int i = 0; i < VARINT_MOST && group & 0x80; i++) {
			if (i >= lane->field_size)
				break;
			if (i >= loaded)
				return 1;
			group = field[i];
			if (i == VARINT_MOST - 1 && group & 0x7e)
				group = 0x80; /* more than 64 bits */
			value |= (__u64)(group & 0x7f) << 7 * i;
			used = i + 1;
		}
		if (group & 0x80)
			scan->stop = STOP_FRAME;
	} else {
		used = lane->field_size;
		if (room < used)
			return 1;
		__builtin_memcpy(&value, field, 8);
		if (!lane->is_little)
			value = __builtin_bswap64(value);
		__u32 beyond = (64 - 8 * used) & 63;
		value = lane->is_little ? value << beyond >> beyond : value >> beyond;
	}
	if (value < lane->value_least || value > lane->value_most)
		scan->stop = STOP_FRAME;
	if (scan->stop == STOP_FRAME)
		return 1;

	__u64 length = value + lane->adjustment;
	if (length && lane->is_looked_at) {
		if (room <= used)
			return 1;
		__u8 first = field[used & 15];
		if (first < RESERVED_BELOW && !(lane->passing >> first & 1)) {
			scan->stop = STOP_FRAME;
			return 1;
		}
	}
	scan->stop = 0;
	scan->begun++;
	scan->remaining = length;
	scan->at = at + used;
	return 0;
}

/* How many of `units` the limit allows at this moment; `until` becomes what they make of `busy_until`. */
static __always_inline __u64 allowed(const struct bucket *bucket, __u64 units, __u64 now, __u64 *until)
{
	__u64 busy = bucket->busy_until > now ? bucket->busy_until : now;
	__u64 ahead = busy - now;
	__u64 free = ahead < bucket->burst ? bucket->burst - ahead : 0;
	__u64 fitting = (free << COST_SHIFT) / bucket->cost;

	if (fitting > units)
		fitting = units;
	*until = busy + (fitting * bucket->cost >> COST_SHIFT);
	return fitting;
}

/* Whether the sink's TCP is further behind than it may be. */
static __always_inline int is_behind(struct lane *lane)
{
	__u32 sink = lane->sink;
	__u32 written = 0;
	int is_known = 0;
	struct bpf_sock *other = bpf_map_lookup_elem(&sinks, &sink);

	if (!other)
		return 1; /* it is gone: what arrives is user space's to lose */
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(other);
	if (tcp) {
		written = tcp->write_seq;
		is_known = 1;
	}
	bpf_sk_release(other);
	if (!is_known)
		return 1;
	if (!lane->is_based) {
		lane->base = written;
		lane->based_at = lane->bytes;
		lane->is_based = 1;
	}
	__u32 waiting = (__u32)(lane->bytes - lane->based_at) - (written - lane->base);
	return waiting > lane->backlog_most;
}

static __always_inline void tell(struct lane *lane)
{
	__u64 *cookie = bpf_ringbuf_reserve(&events, sizeof(*cookie), 0);

	lane->untold = !cookie;
	if (cookie) {
		*cookie = lane->cookie;
		bpf_ringbuf_submit(cookie, 0);
	}
}

static __always_inline int leave(struct lane *lane, __u32 size, __u32 why)
{
	lane->left += size; /* before user space can know of it */
	if (why)
		lane->stopped = why;
	if (why || lane->untold)
		tell(lane);
	return SK_PASS;
}

struct cutting {
	struct __sk_buff *skb;
	__u32 rest;
	__u32 failed;
};

static long cut(__u32 index, struct cutting *cutting)
{
	__u32 size = cutting->rest;

	if (!size)
		return 1;
	if (size > CUT_MOST)
		size = CUT_MOST;
	if (bpf_skb_adjust_room(cutting->skb, -(__s32)size, 0, 0)) {
		cutting->failed = 1;
		return 1;
	}
	cutting->rest -= size;
	return 0;
}

/* Cuts off what has come before: TCP keeps a buffer as a whole of which the beginning is a repetition, or all but the end
 * of the stream behind it, and Linux passes over that only for those who read the socket, not for a program
 * (tcp_read_skb). Returns whether what is left, if anything, is what comes next. */
static __always_inline int cut_repeated(struct __sk_buff *skb, struct lane *lane)
{
	if (!lane->has_begun) { /* all that came before has been read */
		struct bpf_sock *sk = skb->sk;
		struct tcp_sock *tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
		if (!tcp)
			return 0;
		lane->next = tcp->copied_seq;
		lane->has_begun = 1;
	}
	__u32 repeated = lane->next - skb->cb[0]; /* struct tcp_skb_cb begins with the first byte's sequence number */
	if (repeated > skb->len)
		return 0;
	if (repeated) {
		struct cutting cutting = { .skb = skb, .rest = repeated };
		bpf_loop(CUTS_MOST, cut, &cutting, 0);
		if (cutting.failed || cutting.rest)
			return 0;
	}
	lane->next += skb->len;
	return 1;
}

SEC("sk_skb/stream_verdict")
int relay(struct __sk_buff *skb)
{
	/* The end of the stream comes as an empty buffer. Sent on, it would break the sink: there, nothing sent is an error
	 * (EPIPE). Whoever waits for the end is told of it anyway. */
	if (!skb->len)
		return SK_DROP;
	__u64 cookie = bpf_get_socket_cookie(skb);
	__u32 *place = bpf_map_lookup_elem(&places, &cookie);
	if (!place)
		return SK_PASS;
	struct lane *lane = bpf_map_lookup_elem(&lanes, place);
	if (!lane)
		return SK_PASS;

	if (lane->lost)
		return leave(lane, skb->len, 0);
	if (!cut_repeated(skb, lane)) {
		lane->lost = 1; /* before `left` */
		return leave(lane, skb->len, STOP_LOST);
	}
	if (!skb->len)
		return SK_DROP;
	if (lane->stopped) {
		if (lane->asked || lane->resume_at != lane->left)
			return leave(lane, skb->len, 0);
		lane->stopped = 0;
		lane->remaining = lane->resume_remaining;
		lane->resume_at = ~0ULL;
	}
	if (lane->asked)
		return leave(lane, skb->len, STOP_ASKED);

	struct scan scan = {
		.skb = skb, .lane = lane, .size = skb->len, .remaining = lane->remaining,
	};
	bpf_loop(FRAMES_MOST, next_frame, &scan, 0);
	if (!scan.stop && scan.at != scan.size)
		scan.stop = STOP_FRAME; /* more frames than are looked at */
	if (scan.stop)
		return leave(lane, scan.size, scan.stop);
	if (is_behind(lane))
		return leave(lane, scan.size, STOP_BACKLOG);

	__u64 frames_until = 0, bytes_until = 0, frames_over = 0, bytes_over = 0;
	if (lane->frame_bucket.cost || lane->byte_bucket.cost) {
		__u64 now = bpf_ktime_get_ns();
		if (lane->frame_bucket.cost)
			frames_over = scan.begun - allowed(&lane->frame_bucket, scan.begun, now, &frames_until);
		if (frames_over && lane->frame_bucket.enforced)
			return leave(lane, scan.size, STOP_FRAMES);
		if (lane->byte_bucket.cost)
			bytes_over = scan.size - allowed(&lane->byte_bucket, scan.size, now, &bytes_until);
		if (bytes_over && lane->byte_bucket.enforced)
			return leave(lane, scan.size, STOP_BYTES);
		lane->frame_bucket.busy_until = frames_until;
		lane->frame_bucket.over += frames_over;
		lane->byte_bucket.busy_until = bytes_until;
		lane->byte_bucket.over += bytes_over;
	}

	lane->remaining = scan.remaining;
	lane->begun += scan.begun;
	lane->bytes += scan.size;
	lane->buffers++;
	return bpf_sk_redirect_map(skb, &sinks, lane->sink, 0);
}
