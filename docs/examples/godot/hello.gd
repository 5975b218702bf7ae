extends SceneTree
# Joins as a guest, says hello, prints what comes back, and leaves:
#     PROXY_HOST=127.0.0.1 PROXY_PORT=7777 godot3-server --no-window -s hello.gd

var client: Node = load(get_script().resource_path.get_base_dir().plus_file("client.gd")).new()

func _initialize() -> void:
	client.connect("status", self, "on_status")
	client.connect("welcomed", self, "on_welcomed")
	client.connect("frame_received", self, "on_frame")
	client.connect("ended", self, "on_ended")
	root.add_child(client)
	var port := int(OS.get_environment("PROXY_PORT"))
	client.join(OS.get_environment("PROXY_HOST"), port, {"mechanism": "guest", "name": "ada"})

func on_status(value: Dictionary) -> void:
	print(value["message"])

func on_welcomed(value: Dictionary) -> void:
	print("playing as ", value["player"])
	client.send(PoolByteArray([0x10]) + "hello".to_utf8())

func on_frame(body: PoolByteArray) -> void:
	# Escaped: what others send must not steer a terminal.
	print("received ", body.subarray(1, -1).get_string_from_utf8().http_escape())
	client.leave()

func on_ended(code: String, message: String) -> void:
	print("ended: ", code.http_escape(), " ", message.http_escape())
	quit(0 if code == "left" else 1)
