-- The farm's tables, version 1 (docs/farm, "Tables"). Times are seconds since the epoch.

CREATE TABLE proxies (
    id TEXT PRIMARY KEY,
    beat REAL NOT NULL,          -- last sign of life
    pid INTEGER NOT NULL,
    process_started TEXT,        -- with the pid: which process exactly
    place TEXT NOT NULL          -- where that pid means something: boot and pid namespace
);

CREATE TABLE game_servers (
    id TEXT NOT NULL PRIMARY KEY,
    game TEXT NOT NULL,
    state TEXT NOT NULL,         -- starting, ready, draining, lost, closed
    host TEXT,
    port INTEGER,
    capacity INTEGER NOT NULL,
    connections INTEGER NOT NULL DEFAULT 0,
    connections_added INTEGER NOT NULL DEFAULT 0,
    connections_removed INTEGER NOT NULL DEFAULT 0,
    reserved INTEGER NOT NULL DEFAULT 0,
    reported_load REAL,
    started_at REAL,
    heartbeat_at REAL,
    origin TEXT NOT NULL DEFAULT 'started',   -- started by a proxy, listed in its configuration, unlisted while it drains since then, or closed: the sums of old servers
    proxy TEXT,                               -- the proxy that looks after it
    pid INTEGER,
    process_started TEXT,
    place TEXT,
    lot INTEGER,                 -- its number among the usable servers of its game, NULL when it is none of them
    -- What selection asks, said once; a row edited to nonsense is not usable and so never selected.
    taken INTEGER GENERATED ALWAYS AS (connections + reserved) VIRTUAL,
    load REAL GENERATED ALWAYS AS (
        max(coalesce(reported_load, 0.0), (connections + reserved) * 1.0 / capacity)
    ) VIRTUAL,
    usable INTEGER GENERATED ALWAYS AS (
        state = 'ready' AND typeof(id) = 'text' AND typeof(capacity) = 'integer' AND capacity > 0
        AND typeof(host) = 'text' AND host <> ''
        AND typeof(port) = 'integer' AND port BETWEEN 1 AND 65535
    ) VIRTUAL,
    open INTEGER GENERATED ALWAYS AS (usable AND connections + reserved < capacity) VIRTUAL
);

CREATE INDEX open_by_load ON game_servers (game, load DESC, id) WHERE open = 1;
CREATE INDEX open_by_taken ON game_servers (game, taken, id) WHERE open = 1;
CREATE INDEX servers_by_lot ON game_servers (game, lot) WHERE lot IS NOT NULL;
CREATE INDEX living_servers ON game_servers (game, state) WHERE state <> 'closed';

-- No foreign key to game_servers: a row deleted by hand must not stop a session from ending.
CREATE TABLE slots (
    arrival INTEGER PRIMARY KEY,              -- order of arrival over all proxies
    session TEXT NOT NULL UNIQUE,
    server TEXT,                              -- NULL while queued
    proxy TEXT NOT NULL REFERENCES proxies (id),
    player TEXT NOT NULL,
    address TEXT NOT NULL,
    game TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'reserved', 'connected')),
    queued_at REAL NOT NULL,
    tried TEXT NOT NULL DEFAULT '[]',         -- JSON: servers not to be taken now
    evict TEXT,                               -- the close reason with which its proxy must end it
    doubted_at REAL,                          -- when it last kept its player out: is its client still there?
    CHECK ((server IS NULL) = (state = 'queued'))
);

CREATE INDEX slots_by_player ON slots (player);
CREATE INDEX slots_by_server ON slots (server) WHERE server IS NOT NULL;
CREATE INDEX slots_by_proxy ON slots (proxy);
CREATE INDEX slots_to_evict ON slots (proxy) WHERE evict IS NOT NULL;
CREATE INDEX slots_in_doubt ON slots (proxy) WHERE doubted_at IS NOT NULL;
CREATE INDEX queue ON slots (game, arrival) WHERE state = 'queued';

CREATE TABLE bans (
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT,
    actor TEXT,
    created_at REAL,
    expires_at REAL,
    UNIQUE (kind, subject)
);
CREATE INDEX bans_by_expiry ON bans (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE used_tickets (
    jti TEXT PRIMARY KEY,
    expires_at REAL NOT NULL
);
CREATE INDEX used_tickets_by_expiry ON used_tickets (expires_at);

-- How the starts of a game went: what all proxies need to know to wait, back off and give up.
CREATE TABLE starts (
    game TEXT PRIMARY KEY,
    failures INTEGER NOT NULL DEFAULT 0,      -- ever
    streak INTEGER NOT NULL DEFAULT 0,        -- in a row
    pause REAL NOT NULL DEFAULT 0,            -- seconds after the latest failure, without chance
    not_before REAL NOT NULL DEFAULT 0        -- when the next start may be made
);

-- One row that every change of bans counts up, so that readers know when to read them again.
CREATE TABLE bans_version (value INTEGER NOT NULL);
INSERT INTO bans_version (value) VALUES (0);
CREATE TRIGGER bans_inserted AFTER INSERT ON bans BEGIN UPDATE bans_version SET value = value + 1; END;
CREATE TRIGGER bans_updated AFTER UPDATE ON bans BEGIN UPDATE bans_version SET value = value + 1; END;
CREATE TRIGGER bans_deleted AFTER DELETE ON bans BEGIN UPDATE bans_version SET value = value + 1; END;

CREATE TRIGGER start_succeeded AFTER UPDATE OF state ON game_servers
WHEN OLD.state = 'starting' AND NEW.state = 'ready'
BEGIN
    UPDATE starts SET streak = 0, pause = 0, not_before = 0 WHERE game = NEW.game;
END;

-- A slot needs room. Selection looks for it first; this is what makes it true at every commit.
CREATE TRIGGER room_for_inserted BEFORE INSERT ON slots WHEN NEW.server IS NOT NULL
BEGIN
    SELECT RAISE (ABORT, 'no room') WHERE NOT EXISTS (
        SELECT 1 FROM game_servers WHERE id = NEW.server AND connections + reserved < capacity);
END;
CREATE TRIGGER room_for_moved BEFORE UPDATE OF server ON slots
WHEN NEW.server IS NOT NULL AND NEW.server IS NOT OLD.server
BEGIN
    SELECT RAISE (ABORT, 'no room') WHERE NOT EXISTS (
        SELECT 1 FROM game_servers WHERE id = NEW.server AND connections + reserved < capacity);
END;

-- No ON DELETE CASCADE: the sqlite3 shell, by which a row may be deleted by hand, does not heed foreign keys.
CREATE TRIGGER proxy_deleted AFTER DELETE ON proxies BEGIN DELETE FROM slots WHERE proxy = OLD.id; END;

-- These alone write reserved and connections*.
CREATE TRIGGER slot_inserted AFTER INSERT ON slots WHEN NEW.server IS NOT NULL
BEGIN
    UPDATE game_servers SET
        reserved = reserved + (NEW.state = 'reserved'),
        connections = connections + (NEW.state = 'connected'),
        connections_added = connections_added + (NEW.state = 'connected')
    WHERE id = NEW.server;
END;
CREATE TRIGGER slot_deleted AFTER DELETE ON slots WHEN OLD.server IS NOT NULL
BEGIN
    UPDATE game_servers SET
        reserved = reserved - (OLD.state = 'reserved'),
        connections = connections - (OLD.state = 'connected'),
        connections_removed = connections_removed + (OLD.state = 'connected')
    WHERE id = OLD.server;
END;
CREATE TRIGGER slot_changed AFTER UPDATE OF server, state ON slots
WHEN NEW.server IS NOT OLD.server OR NEW.state IS NOT OLD.state
BEGIN
    UPDATE game_servers SET
        reserved = reserved - (OLD.state = 'reserved'),
        connections = connections - (OLD.state = 'connected'),
        connections_removed = connections_removed + (OLD.state = 'connected')
    WHERE id = OLD.server;
    UPDATE game_servers SET
        reserved = reserved + (NEW.state = 'reserved'),
        connections = connections + (NEW.state = 'connected'),
        connections_added = connections_added + (NEW.state = 'connected')
    WHERE id = NEW.server;
END;

-- A row that was deleted by hand and comes back finds the slots that it still has.
CREATE TRIGGER server_inserted AFTER INSERT ON game_servers
BEGIN
    UPDATE game_servers SET
        state = state,           -- so that it gets its lot
        reserved = (SELECT count(*) FROM slots WHERE server = NEW.id AND state = 'reserved'),
        connections = (SELECT count(*) FROM slots WHERE server = NEW.id AND state = 'connected'),
        connections_added = (SELECT count(*) FROM slots WHERE server = NEW.id AND state = 'connected'),
        connections_removed = 0
    WHERE id = NEW.id;
END;

-- The lots of a game's usable servers are 1, 2, 3 and so on: to draw a number is to draw a server. The last fills the gap
-- of one that leaves. A row deleted by hand leaves its gap, which costs a draw now and then, no more.
CREATE TRIGGER lot_changed AFTER UPDATE OF game, state, host, port, capacity ON game_servers
WHEN (NEW.usable IS 1) <> (NEW.lot IS NOT NULL) OR NEW.game IS NOT OLD.game
BEGIN
    UPDATE game_servers SET lot = NULL WHERE id = NEW.id;
    UPDATE game_servers SET lot = OLD.lot WHERE game = OLD.game AND lot > OLD.lot AND lot = (
        SELECT max(lot) FROM game_servers WHERE game = OLD.game AND lot IS NOT NULL);
    UPDATE game_servers SET lot = 1 + coalesce(
        (SELECT max(lot) FROM game_servers WHERE game = NEW.game AND lot IS NOT NULL), 0)
    WHERE id = NEW.id AND usable = 1;
END;
