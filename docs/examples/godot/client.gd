extends Node
# A client of gameproxy, for Godot 3 (3.2 or later). Add it to your scene, connect its signals, and call
#     $Client.join("play.example.org", 7777, {"mechanism": "guest", "name": "ada"})
# or with {"mechanism": "ticket", "ticket": ...}, or {"mechanism": "password", "username": ..., "password": ...};
# "game" and "properties" may stand beside them. hello.gd is a program that does so. The frames: docs/protocol.

signal status(value) # a Dictionary; any number of times while the player waits
signal welcomed(value) # a Dictionary; the game begins
signal settings_received(bytes) # from the game server
signal frame_received(body) # of the game
signal ended(code, message) # in every case and once

enum { AUTH = 1, WELCOME, SETTINGS, STATUS, ERROR, CLOSE, FIRST_GAME_TYPE = 0x10 }
const MAX_FRAME = 2097151 # bytes of body
const FRAMES_AT_ONCE = 64 # in one _process(), so that the picture never stands still

enum { APART, WAITING, PLAYING, LEAVING }

var peer: StreamPeerTCP
var state := APART
var unsent := PoolByteArray() # while this is not empty, sending more only piles it up
var body_length := -1 # of the frame that is being read; -1: its length comes first
var body := PoolByteArray()

func join(host: String, port: int, auth: Dictionary) -> void:
	peer = StreamPeerTCP.new()
	peer.big_endian = true # as the length of a frame is
	state = WAITING
	body_length = -1
	unsent = PoolByteArray()
	var value := auth.duplicate()
	value["protocol"] = 1
	send_own(AUTH, value)
	if peer.connect_to_host(host, port) == OK:
		peer.set_no_delay(true)
	# If not, _process() notices.

# Sends a frame of the game: empty, or with a first byte of 0x10 or more. Up to 64 KiB may be sent before "welcomed".
func send(frame: PoolByteArray) -> void:
	var length := StreamPeerBuffer.new()
	length.big_endian = true
	length.put_u32(frame.size())
	unsent.append_array(length.data_array + frame)

# Ends the session in good order; "ended" follows. What is still on its way to us is lost.
func leave() -> void:
	if state == PLAYING:
		send_own(CLOSE, {"code": "left", "message": ""})
		state = LEAVING # the proxy ends the connection
	elif state != LEAVING:
		end("left", "You have left.")

func send_own(type: int, value: Dictionary) -> void:
	send(PoolByteArray([type]) + to_json(value).to_utf8())

# Nothing here ever blocks: what can be written is written, what has come is read.
func _process(_delta: float) -> void:
	if state == APART:
		return
	var status := peer.get_status() # tells of the end only when all that came before it has been read
	if status == StreamPeerTCP.STATUS_CONNECTED:
		for _i in FRAMES_AT_ONCE:
			if not peer.is_connected_to_host() or not read_some():
				break
		write_some()
	elif status != StreamPeerTCP.STATUS_CONNECTING:
		end("left" if state == LEAVING else "server_lost", "The connection has ended.")

func write_some() -> void:
	if peer.is_connected_to_host() and not unsent.empty():
		var written: int = peer.put_partial_data(unsent)[1]
		unsent = PoolByteArray() if written == unsent.size() else unsent.subarray(written, -1)

# TCP keeps the order of bytes, but no borders: a frame may come in pieces, and several at once.
# Reads what is there of one frame. False: nothing more for now.
func read_some() -> bool:
	if body_length < 0:
		if peer.get_available_bytes() < 4:
			return false
		body_length = peer.get_u32()
		body = PoolByteArray()
		if body_length > MAX_FRAME:
			end("protocol_error", "A frame of %d bytes came." % body_length)
			return false
	var there := int(min(peer.get_available_bytes(), body_length - body.size()))
	if there > 0:
		body.append_array(peer.get_partial_data(there)[1])
	if body.size() < body_length:
		return false
	body_length = -1
	if state != LEAVING: # after our last word nothing counts
		received(FIRST_GAME_TYPE if body.empty() else body[0], body)
	return true

func received(type: int, frame: PoolByteArray):
	if state == PLAYING and type >= FIRST_GAME_TYPE:
		return emit_signal("frame_received", frame)
	var payload := frame.subarray(1, -1) if frame.size() > 1 else PoolByteArray()
	if state == PLAYING and type == SETTINGS:
		return emit_signal("settings_received", payload)
	var value = JSON.parse(payload.get_string_from_utf8()).result
	if not value is Dictionary or not type in ([CLOSE] if state == PLAYING else [WELCOME, STATUS, ERROR]):
		end("protocol_error", "Type %d came." % type)
	elif type == STATUS:
		emit_signal("status", value)
	elif type == WELCOME:
		state = PLAYING
		emit_signal("welcomed", value)
	else: # ERROR or CLOSE: docs/protocol says for each code what to do
		end(str(value.get("code")), str(value.get("message")))

func end(code: String, message: String) -> void:
	state = APART
	peer.disconnect_from_host()
	emit_signal("ended", code, message)
