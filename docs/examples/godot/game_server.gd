extends SceneTree
# A game server behind gameproxy, for Godot 3.2 or later: godot3-server --no-window -s game_server.gd
# The proxy starts it, and tells it all in GAMEPROXY_*. Godot has no SQLite: the program sqlite3 must be installed.
# Nor can it catch SIGTERM, at which it simply ends: "gameproxy farm drain ID" first lets its players finish.

# ---- the game: this is what you change. Its frames begin with a byte of 0x10 or more, or are empty. player.admit has
# player (the name), session, address, properties. player.send_own(KICK, {"code": "kicked", "message": "Go."}) ends it.
func joined(player: Player) -> void: print(player.admit["player"], " has come")
func received(player: Player, frame: PoolByteArray) -> void: player.send(frame)
func left(player: Player) -> void: print(player.admit["player"], " has gone")

enum { SETTINGS = 3, CLOSE = 6, CHALLENGE, ADMIT, ADMITTED, REFUSED, KICK, FIRST_GAME_TYPE = 0x10 }
enum { MAX_OWN_FRAME = 4096, MAX_FRAME = 2097151 } # bytes of body: up to ADMIT, and after it
class Player: # a connection from the proxy
	var peer: StreamPeerTCP
	var admit := {} # what the proxy has said of the player; empty until then
	var deadline := OS.get_ticks_msec() + 5000 # for that
	var nonce := Crypto.new().generate_random_bytes(16).hex_encode()
	var unsent := PoolByteArray()
	var body_length := -1 # of the frame that is being read; -1: its length comes first
	var body := PoolByteArray()
	func send(frame: PoolByteArray) -> void:
		var n := frame.size()
		unsent.append_array(PoolByteArray([n >> 24, n >> 16 & 255, n >> 8 & 255, n & 255]) + frame)
	func send_own(type: int, value: Dictionary) -> void:
		send(PoolByteArray([type]) + to_json(value).to_utf8())
	func next_frame(): # its body if it has come as a whole, else null: TCP keeps no borders
		if body_length < 0:
			if peer.get_available_bytes() < 4: return null
			body_length = peer.get_u32()
			body = PoolByteArray()
			if body_length > (MAX_OWN_FRAME if admit.empty() else MAX_FRAME): return peer.disconnect_from_host()
		var there := int(min(peer.get_available_bytes(), body_length - body.size()))
		if there > 0: body.append_array(peer.get_partial_data(there)[1])
		if body.size() < body_length: return null
		body_length = -1
		return body

var server_id := OS.get_environment("GAMEPROXY_SERVER_ID")
var key := PoolByteArray()
var listener := TCP_Server.new()
var players := []
var heart := Thread.new()
var next_beat := OS.get_ticks_msec() + 5000

func _initialize():
	var file := File.new()
	var error := file.open(OS.get_environment("GAMEPROXY_SECRET_FILE"), File.READ)
	var digits := file.get_as_text().strip_edges().to_lower() if error == OK else ""
	for i in range(0, digits.length(), 2): key.append(("0x" + digits.substr(i, 2)).hex_to_int())
	var host := OS.get_environment("GAMEPROXY_HOST")
	var port := int(OS.get_environment("GAMEPROXY_PORT"))
	if port == 0: port = 20000 + OS.get_process_id() % 12000 # Godot 3 cannot tell which one the system would choose
	if key.size() != 32 or key.hex_encode() != digits or listener.listen(port, host) != OK: return quit(1)
	if update_row(", state='ready', host='%s', port=%d WHERE state='starting'" % [host, port]) != 1: quit(1)

# Says in the farm's database that we live, and more; the number of rows changed. Godot puts it through a shell: the id
# is hexadecimal, in which nothing has a meaning to that, or to SQL.
func update_row(more: String) -> int:
	var file := "file:%s?mode=rw" % OS.get_environment("GAMEPROXY_FARM").trim_prefix("sqlite:///").http_escape()
	var values := [OS.get_system_time_msecs() / 1000.0, more, server_id.to_utf8().hex_encode()]
	var sql := "UPDATE game_servers SET heartbeat_at=%.3f%s AND id=CAST(x'%s' AS TEXT); SELECT changes()" % values
	var output := []
	OS.execute("sqlite3", ["-init", "/dev/null", "-cmd", ".timeout 10000", file, sql], true, output)
	return int(output[0])

func _idle(_delta: float):
	if OS.get_ticks_msec() >= next_beat:
		next_beat += 5000
		if heart.is_active(): heart.wait_to_finish() # of the last time
		heart.start(self, "update_row", " WHERE true")
	while listener.is_connection_available():
		var player := Player.new()
		player.peer = listener.take_connection()
		player.peer.big_endian = true # as the length of a frame is
		player.peer.set_no_delay(true)
		player.send_own(CHALLENGE, {"protocol": 1, "server": server_id, "nonce": player.nonce})
		players.append(player)
	for player in players.duplicate(): serve(player)

func serve(player: Player) -> void:
	for _i in 64: # frames at most, so that nobody holds up the others
		if player.unsent and player.peer.is_connected_to_host():
			var written: int = player.peer.put_partial_data(player.unsent)[1]
			player.unsent = player.unsent.subarray(written, -1) if written < player.unsent.size() else PoolByteArray()
		if player.unsent or not player.peer.is_connected_to_host(): break # who does not read is not read from
		var frame = player.next_frame()
		if frame == null: break
		if player.admit.empty(): admission_received(player, frame)
		elif frame.empty() or frame[0] >= FIRST_GAME_TYPE: received(player, frame)
		else: player.peer.disconnect_from_host() # CLOSE, or what must not come: in any case it is over
	if player.admit.empty() and OS.get_ticks_msec() > player.deadline: player.peer.disconnect_from_host()
	if player.peer.get_status() != StreamPeerTCP.STATUS_CONNECTED:
		players.erase(player)
		if player.admit: left(player)

func admission_received(player: Player, frame: PoolByteArray):
	if frame.size() < 34 or frame[0] != ADMIT: return player.peer.disconnect_from_host()
	var json := frame.subarray(33, -1)
	var expected := mac_of("gameproxy/1 admit", json)
	var difference := 0
	for i in 32: difference |= frame[1 + i] ^ expected[i] # all of them: the time it takes tells nothing
	var admit: Dictionary = parse_json(json.get_string_from_utf8()) if difference == 0 else {}
	if admit.get("nonce") != player.nonce or admit.get("server") != server_id: return player.peer.disconnect_from_host()
	player.admit = admit
	var answer := to_json({"session": admit["session"], "proxy_nonce": admit["proxy_nonce"]}).to_utf8()
	player.send(PoolByteArray([ADMITTED]) + mac_of("gameproxy/1 admitted", answer) + answer)
	joined(player)

func mac_of(label: String, json: PoolByteArray) -> PoolByteArray: # HMAC-SHA256 as in RFC 2104
	var message := label.to_utf8() + PoolByteArray([0]) + json
	for pad in [0x36, 0x5c]:
		var block := PoolByteArray()
		for i in 64: block.append(pad ^ (key[i] if i < key.size() else 0))
		var sha256 := HashingContext.new()
		sha256.start(HashingContext.HASH_SHA256)
		sha256.update(block + message)
		message = sha256.finish()
	return message
