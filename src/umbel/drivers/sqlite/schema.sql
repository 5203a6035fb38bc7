-- One row of umbel_messages is one message. `place` says where it is: 0 ready, 1 delayed, 2 claimed, 3 parked, 4 dead.
-- Each place has its own partial index, so that a message is in the index of its place and in no other.

CREATE TABLE IF NOT EXISTS umbel_meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS umbel_messages (
    position INTEGER PRIMARY KEY,  -- order in the queue: one more than the largest there is. A claim keeps it.
    queue TEXT NOT NULL,
    place INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    due REAL,
    owner TEXT,
    seq INTEGER,  -- the fetch that claimed it; 0: recovered
    fence INTEGER,
    started INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    evidence BLOB,  -- of why it was parked or buried, as JSON
    at REAL,  -- when that was
    id TEXT NOT NULL,
    raw BLOB NOT NULL  -- last: what stands before a long value is read without it
);

CREATE INDEX IF NOT EXISTS umbel_ready ON umbel_messages (queue, priority, position) WHERE place = 0;
CREATE INDEX IF NOT EXISTS umbel_delayed ON umbel_messages (queue, due) WHERE place = 1;
CREATE INDEX IF NOT EXISTS umbel_claimed ON umbel_messages (queue, owner, seq) WHERE place = 2;
CREATE INDEX IF NOT EXISTS umbel_parked ON umbel_messages (queue, at) WHERE place = 3;
CREATE INDEX IF NOT EXISTS umbel_parked_tasks ON umbel_messages (queue, reason, at) WHERE place = 3;
CREATE INDEX IF NOT EXISTS umbel_dead ON umbel_messages (queue, at) WHERE place = 4;
CREATE INDEX IF NOT EXISTS umbel_put_away ON umbel_messages (id) WHERE place >= 3;

CREATE TABLE IF NOT EXISTS umbel_owners (
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    expires REAL NOT NULL,
    seq INTEGER NOT NULL DEFAULT 0,
    reaped INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS umbel_results (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    fence INTEGER NOT NULL,
    expires REAL,
    meta BLOB NOT NULL
);

CREATE INDEX IF NOT EXISTS umbel_results_expire ON umbel_results (expires) WHERE expires IS NOT NULL;

CREATE TABLE IF NOT EXISTS umbel_leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    fence INTEGER NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS umbel_bus (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, so that a listener's place stays right
    topic TEXT NOT NULL,
    body BLOB NOT NULL,
    at REAL NOT NULL
);

CREATE TABLE IF NOT EXISTS umbel_revoked (
    id TEXT PRIMARY KEY,
    mark INTEGER NOT NULL,  -- grows with every entry
    expires REAL NOT NULL,
    signal TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS umbel_revoked_mark ON umbel_revoked (mark);
CREATE INDEX IF NOT EXISTS umbel_revoked_expire ON umbel_revoked (expires);

-- How often something was counted. The minute is first, as old ones are deleted whatever their queue.
CREATE TABLE IF NOT EXISTS umbel_tallies (
    minute INTEGER NOT NULL,  -- when it begins, in seconds since the epoch
    queue TEXT NOT NULL,
    tally TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (minute, queue, tally)
) WITHOUT ROWID;

-- Workflows. What has expired may still be there: who reads asks umbel_flows, which alone says how long a flow lives.
CREATE TABLE IF NOT EXISTS umbel_flows (
    id TEXT PRIMARY KEY,
    expires REAL
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS umbel_flows_expire ON umbel_flows (expires) WHERE expires IS NOT NULL;

CREATE TABLE IF NOT EXISTS umbel_nodes (
    flow TEXT NOT NULL,
    number INTEGER NOT NULL,
    node BLOB NOT NULL,
    PRIMARY KEY (flow, number)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS umbel_joins (
    flow TEXT NOT NULL,
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,
    decider INTEGER,  -- the position of the part that ended it, -1 if it had none; empty: it is not over
    sent INTEGER NOT NULL DEFAULT 0,
    since REAL,  -- when it was over, or somebody asked to answer for it; empty: it is not over, or sent
    failed TEXT,
    failure BLOB,
    data BLOB NOT NULL,
    PRIMARY KEY (flow, number)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS umbel_joins_over ON umbel_joins (since) WHERE since IS NOT NULL;

CREATE TABLE IF NOT EXISTS umbel_parts (
    flow TEXT NOT NULL,
    number INTEGER NOT NULL,  -- of the join
    position INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (flow, number, position)
);

CREATE TABLE IF NOT EXISTS umbel_grown (
    flow TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,  -- what it has grown for
    position INTEGER NOT NULL,
    PRIMARY KEY (flow, number, name)
) WITHOUT ROWID;

-- Which copy of a task's message has started.
CREATE TABLE IF NOT EXISTS umbel_bound (
    id TEXT PRIMARY KEY,
    copy TEXT NOT NULL,
    expires REAL
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS umbel_bound_expire ON umbel_bound (expires) WHERE expires IS NOT NULL;

CREATE TABLE IF NOT EXISTS umbel_groups (
    id TEXT PRIMARY KEY,
    document BLOB NOT NULL,
    expires REAL
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS umbel_groups_expire ON umbel_groups (expires) WHERE expires IS NOT NULL;

-- Keys of messages that are stored once (see `Item.once`).
CREATE TABLE IF NOT EXISTS umbel_once (
    queue TEXT NOT NULL,
    key TEXT NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (queue, key)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS umbel_once_expire ON umbel_once (expires);

-- Schedules. A mark is a time in microseconds, or one more than the last mark, if that is larger.
CREATE TABLE IF NOT EXISTS umbel_schedules (
    name TEXT PRIMARY KEY,
    mark INTEGER NOT NULL,  -- of the last change
    floor INTEGER NOT NULL,  -- who knows less may have missed a removal that is forgotten
    fence INTEGER NOT NULL DEFAULT 0  -- of the last who wrote states
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS umbel_schedule_rows (
    schedule TEXT NOT NULL,
    name TEXT NOT NULL,
    mark INTEGER NOT NULL,
    text BLOB,  -- empty: removed
    PRIMARY KEY (schedule, name)
);

CREATE INDEX IF NOT EXISTS umbel_schedule_marks ON umbel_schedule_rows (schedule, mark);
CREATE INDEX IF NOT EXISTS umbel_schedule_removed ON umbel_schedule_rows (schedule, mark) WHERE text IS NULL;

CREATE TABLE IF NOT EXISTS umbel_schedule_states (
    schedule TEXT NOT NULL,
    name TEXT NOT NULL,
    slot REAL NOT NULL,
    runs INTEGER NOT NULL,
    id TEXT NOT NULL,
    sent REAL NOT NULL,
    PRIMARY KEY (schedule, name)
) WITHOUT ROWID;

INSERT OR IGNORE INTO umbel_meta VALUES ('schema', 2), ('fence', 0), ('revoked', 0);
