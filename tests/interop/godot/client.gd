extends SceneTree
# A client of gameproxy for Godot 3, and a test: the game server must echo every frame.
#
#     PROXY_HOST=127.0.0.1 PROXY_PORT=7777 godot3-server --no-window -s client.gd
#
# PLAYER_NAME (godot) is the guest's name; GAME_NAME, if set, is the game that AUTH asks for.
# Prints "OK 200" and exits 0, or says what is wrong and exits 1.

const AUTH = 0x01
const WELCOME = 0x02
const SETTINGS = 0x03
const STATUS = 0x04
const ERROR = 0x05
const CLOSE = 0x06
const FIRST_GAME_TYPE = 0x10

const MAX_FRAME = 2097151 # bytes of body
const FRAMES = 200
const LARGEST = 65536
const DEADLINE_MSEC = 60000

enum State { CONNECTING, AUTHENTICATING, PLAYING, LEAVING, DONE }

var peer := StreamPeerTCP.new()
var state: int = State.CONNECTING
var started := OS.get_ticks_msec()

var outgoing := PoolByteArray() # what the socket has not yet taken
var sent := 0 # game frames put into outgoing
var echoed := 0 # game frames that came back

var body_length := -1 # of the frame that is being read; -1: its length comes first
var body := PoolByteArray()

var noise := PoolByteArray() # what the game frames are cut from


func _initialize() -> void:
	noise = make_noise(LARGEST + FRAMES)
	peer.big_endian = true # frames begin with a big-endian length
	var error := peer.connect_to_host(OS.get_environment("PROXY_HOST"), int(OS.get_environment("PROXY_PORT")))
	if error != OK:
		fail("cannot connect: error %d" % error)


# Called for every frame of the main loop, as _process() is in a node. Nothing here ever blocks:
# what can be written is written, what has come is read, and so neither side waits for the other.
func _idle(_delta: float) -> bool:
	if state == State.DONE:
		return true
	if OS.get_ticks_msec() - started > DEADLINE_MSEC:
		fail("not done after %d ms: %d frames sent, %d echoed" % [DEADLINE_MSEC, sent, echoed])
		return true
	if state == State.CONNECTING:
		connecting()
	else:
		write_some()
		while state != State.DONE and peer.is_connected_to_host() and read_some():
			pass
		# The status is asked for last: what came before the end of the stream has been read.
		if state != State.DONE and peer.get_status() != StreamPeerTCP.STATUS_CONNECTED:
			ended()
	return state == State.DONE


func connecting() -> void:
	match peer.get_status():
		StreamPeerTCP.STATUS_CONNECTED:
			peer.set_no_delay(true)
			state = State.AUTHENTICATING
			send_own(AUTH, auth())
		StreamPeerTCP.STATUS_ERROR, StreamPeerTCP.STATUS_NONE:
			fail("cannot connect")


func ended() -> void:
	if state == State.LEAVING and outgoing.empty() and body_length < 0:
		print("OK %d" % echoed)
		stop(0)
	else:
		fail("the stream ended too early: %d frames sent, %d echoed" % [sent, echoed])


# ---- writing ----

func auth() -> Dictionary:
	var name := OS.get_environment("PLAYER_NAME") if OS.has_environment("PLAYER_NAME") else "godot"
	var value := {"protocol": 1, "mechanism": "guest", "name": name}
	if OS.has_environment("GAME_NAME"):
		value["game"] = OS.get_environment("GAME_NAME")
	return value


# Appends a frame: its length in four bytes, then its body.
func send(frame_body: PoolByteArray) -> void:
	var buffer := StreamPeerBuffer.new()
	buffer.big_endian = true
	buffer.put_u32(frame_body.size())
	buffer.put_data(frame_body)
	outgoing.append_array(buffer.data_array)


# Appends one of the proxy's own frames: its type, then JSON.
func send_own(type: int, value: Dictionary) -> void:
	var frame_body := PoolByteArray([type])
	frame_body.append_array(to_json(value).to_utf8())
	send(frame_body)


# Writes what the socket takes, and makes more while it takes all.
func write_some() -> void:
	while true:
		if outgoing.empty() and state == State.PLAYING and sent < FRAMES:
			send(game_frame(sent))
			sent += 1
		if outgoing.empty():
			return
		var result := peer.put_partial_data(outgoing)
		if result[0] != OK:
			return # the end of the stream is noticed by reading
		var taken: int = result[1]
		if taken < outgoing.size():
			if taken > 0:
				outgoing = outgoing.subarray(taken, outgoing.size() - 1)
			return
		outgoing = PoolByteArray()


# ---- reading ----

# Reads what has come of one length or body. False: nothing more is there for now.
func read_some() -> bool:
	var available := peer.get_available_bytes()
	if body_length < 0:
		if available < 4:
			return false
		body_length = peer.get_u32()
		body = PoolByteArray()
		if body_length > MAX_FRAME:
			fail("a frame of %d bytes" % body_length)
			return false
	elif available <= 0:
		return false
	# get_partial_data() must not be asked for nothing; an empty body is complete already.
	var wanted := int(min(peer.get_available_bytes(), body_length - body.size()))
	if wanted > 0:
		var result := peer.get_partial_data(wanted)
		if result[0] != OK:
			return false
		body.append_array(result[1])
	if body.size() == body_length:
		body_length = -1
		frame_received(body)
	return true


func frame_received(received: PoolByteArray) -> void:
	if received.empty() or received[0] >= FIRST_GAME_TYPE:
		echo_received(received)
		return
	var text := ""
	if received.size() > 1:
		text = received.subarray(1, received.size() - 1).get_string_from_utf8()
	match received[0]:
		STATUS:
			print("STATUS ", text)
			if state != State.AUTHENTICATING:
				fail("STATUS after WELCOME")
		WELCOME:
			print("WELCOME ", text)
			var welcome = parse_json(text)
			if state != State.AUTHENTICATING or not welcome is Dictionary or not welcome.has("session"):
				fail("a wrong WELCOME")
			else:
				state = State.PLAYING
		SETTINGS:
			print("SETTINGS, %d bytes" % (received.size() - 1))
		ERROR, CLOSE:
			fail("the session was ended: " + text)
		_:
			fail("type %d is not for clients" % received[0])


func echo_received(received: PoolByteArray) -> void:
	if state != State.PLAYING or echoed >= sent or received != game_frame(echoed):
		fail("frame %d came back wrong (%d bytes)" % [echoed, received.size()])
		return
	echoed += 1
	if echoed == FRAMES:
		state = State.LEAVING
		send_own(CLOSE, {"code": "left", "message": ""})


# ---- game frames ----

# The n-th game frame: always the same bytes and unlike all others; sizes from 1 to 65536.
func game_frame(n: int) -> PoolByteArray:
	var edges := [1, LARGEST, 2, 255, 256, 4096, 4097, LARGEST - 1]
	var size: int = edges[n] if n < edges.size() else 1 + (n * n * 7919) % LARGEST
	var frame_body := noise.subarray(n, n + size - 1)
	frame_body[0] = FIRST_GAME_TYPE + n % (0x100 - FIRST_GAME_TYPE)
	return frame_body


# Bytes without a pattern, the same in every run.
func make_noise(size: int) -> PoolByteArray:
	var bytes := PoolByteArray()
	bytes.resize(size)
	var x := 1
	for i in size:
		x = (x * 1103515245 + 12345) & 0x7fffffff
		bytes[i] = (x >> 16) & 0xff
	return bytes


# ---- the end ----

func fail(problem: String) -> void:
	if state != State.DONE:
		print("FAILED: " + problem)
		stop(1)


func stop(exit_code: int) -> void:
	state = State.DONE
	peer.disconnect_from_host()
	quit(exit_code)
