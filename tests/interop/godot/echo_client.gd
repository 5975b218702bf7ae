extends SceneTree
# Plays with docs/examples/godot/client.gd: the game server must echo every frame. From the environment: PROXY_HOST,
# PROXY_PORT, and OPTIONS, a JSON object: frames: how many to send (0: only listens); early: how many of them right
# behind AUTH; all other keys are AUTH's. Each event is a line of JSON. The exit status is 0 unless an echo was wrong;
# Godot's own is 0 as well when it cannot load a script, so look for the events.

const Client = preload("../../../docs/examples/godot/client.gd")
const LARGEST = 65536

var client := Client.new()
var options: Dictionary = parse_json(OS.get_environment("OPTIONS"))
var frames := int(options.get("frames", 0))
var early := int(options.get("early", 0))
var noise := PoolByteArray() # what the game frames are cut from
var playing := false
var sent := 0
var echoed := 0


func _initialize() -> void:
	make_noise(LARGEST + frames)
	for signal_name in ["status", "welcomed", "settings_received", "frame_received", "ended"]:
		client.connect(signal_name, self, "on_" + signal_name)
	root.add_child(client)
	var auth := {"mechanism": "guest", "name": "godot"}
	for name in options:
		if not name in ["frames", "early"]:
			auth[name] = options[name]
	client.join(OS.get_environment("PROXY_HOST"), int(OS.get_environment("PROXY_PORT")), auth)
	send_up_to(early)


func _idle(_delta: float) -> bool:
	if playing:
		send_up_to(frames)
	return false


func send_up_to(count: int) -> void:
	while sent < count and client.unsent.size() < LARGEST:
		client.send(game_frame(sent))
		sent += 1


func on_status(value: Dictionary) -> void:
	tell("status", value)


func on_welcomed(value: Dictionary) -> void:
	tell("welcome", value)
	playing = true


func on_settings_received(bytes: PoolByteArray) -> void:
	tell("settings", {"text": bytes.get_string_from_utf8()})


func on_frame_received(body: PoolByteArray) -> void:
	if frames == 0:
		tell("frame", {"hex": body.hex_encode()})
	elif echoed >= sent or body != game_frame(echoed):
		tell("wrong", {"frame": echoed, "length": body.size()})
		quit(1)
	else:
		echoed += 1
		if echoed == frames:
			client.leave()


func on_ended(code: String, message: String) -> void:
	tell("ended", {"code": code, "message": message, "echoed": echoed})
	quit(0)


func tell(event: String, value: Dictionary) -> void:
	value["event"] = event
	print(to_json(value))


# The n-th game frame: always the same bytes and unlike all others; sizes from 0 to 65536.
func game_frame(n: int) -> PoolByteArray:
	var edges := [1, 0, 2, 255, 256, 4096, 4097, LARGEST - 1, LARGEST]
	var size: int = edges[n] if n < edges.size() else 1 + (n * n * 7919) % LARGEST
	if size == 0:
		return PoolByteArray()
	var body := noise.subarray(n, n + size - 1)
	body[0] = 0x10 + n % 0xf0
	return body


# Bytes without a pattern, the same in every run.
func make_noise(size: int) -> void:
	noise.resize(size)
	var x := 1
	for i in size:
		x = (x * 1103515245 + 12345) & 0x7fffffff
		noise[i] = (x >> 16) & 0xff
