extends "../../../docs/examples/godot/game_server.gd"
# The example with settings for each player, and with frames that make it do something else than echo: 0x10 and the
# word kick, close or die.


func joined(player: Player) -> void:
	.joined(player)
	player.send(PoolByteArray([SETTINGS]) + "of the game".to_utf8())


func received(player: Player, frame: PoolByteArray) -> void:
	match frame.get_string_from_ascii():
		"\u0010kick":
			player.send_own(KICK, {"code": "kicked", "message": "You asked for it."})
		"\u0010close":
			player.send_own(CLOSE, {"code": "left", "message": "The game is over."})
		"\u0010die":
			OS.kill(OS.get_process_id())
		_:
			.received(player, frame)
