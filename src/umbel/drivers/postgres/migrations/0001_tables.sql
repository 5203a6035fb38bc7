-- serves: 1
-- Tables. `umbel.` stands for the schema, which is another if the option `schema` says so.
--
-- A message is one row of one of: ready, delayed, claimed, letters (parked and dead). To move it is to delete it here and insert it
-- there in one transaction. All times are seconds since the epoch by this server's clock.

-- Tells these tables from those of any other database, so that a connection of the caller's can be checked.
CREATE TABLE umbel.store (id uuid NOT NULL DEFAULT gen_random_uuid());
INSERT INTO umbel.store DEFAULT VALUES;

CREATE SEQUENCE umbel.positions;  -- order in the queue. A claim keeps its position, so what is given back returns to the head.
CREATE SEQUENCE umbel.fences;

-- ready, claimed, counts and bus are rings: each has a few tables, its slots, of which one takes what is new (rings.slot). Readers look into all.
-- `umbel.turn` goes on to another slot when this one is large, carries the few rows that are left in an old one over, and truncates it.
-- So dead rows are dropped without a vacuum, also while an old snapshot somewhere keeps a vacuum from removing any.
CREATE TABLE umbel.rings (
    name text PRIMARY KEY,
    slot smallint NOT NULL DEFAULT 0,
    again double precision NOT NULL DEFAULT 0  -- not before this time: a lock could not be had
);
INSERT INTO umbel.rings (name) VALUES ('ready'), ('claimed'), ('counts'), ('bus');

CREATE TABLE umbel.ready (
    slot smallint NOT NULL,
    priority smallint NOT NULL,
    suspect boolean NOT NULL,
    attempts integer NOT NULL,
    position bigint NOT NULL,
    queue text NOT NULL,
    id text NOT NULL,
    raw bytea NOT NULL
) PARTITION BY LIST (slot);
ALTER TABLE umbel.ready ALTER raw SET STORAGE EXTERNAL;  -- compressing it would take longer than writing it
CREATE TABLE umbel.ready_0 PARTITION OF umbel.ready FOR VALUES IN (0);
CREATE TABLE umbel.ready_1 PARTITION OF umbel.ready FOR VALUES IN (1);
CREATE TABLE umbel.ready_2 PARTITION OF umbel.ready FOR VALUES IN (2);
CREATE TABLE umbel.ready_3 PARTITION OF umbel.ready FOR VALUES IN (3);
CREATE INDEX ready_order ON umbel.ready (queue, priority, position);

CREATE TABLE umbel.claimed (
    slot smallint NOT NULL,
    priority smallint NOT NULL,
    suspect boolean NOT NULL,
    started boolean NOT NULL,
    attempts integer NOT NULL,
    owner bigint NOT NULL,  -- owners.number
    seq bigint NOT NULL,  -- the fetch that claimed it; negative: the recovery that took it
    position bigint NOT NULL,
    fence bigint NOT NULL,
    id text NOT NULL,
    raw bytea NOT NULL
) PARTITION BY LIST (slot);
ALTER TABLE umbel.claimed ALTER raw SET STORAGE EXTERNAL;
CREATE TABLE umbel.claimed_0 PARTITION OF umbel.claimed FOR VALUES IN (0);
CREATE TABLE umbel.claimed_1 PARTITION OF umbel.claimed FOR VALUES IN (1);
CREATE TABLE umbel.claimed_2 PARTITION OF umbel.claimed FOR VALUES IN (2);
CREATE TABLE umbel.claimed_3 PARTITION OF umbel.claimed FOR VALUES IN (3);
CREATE INDEX claimed_order ON umbel.claimed (owner, seq, position);

CREATE TABLE umbel.delayed (
    priority smallint NOT NULL,
    suspect boolean NOT NULL,
    attempts integer NOT NULL,
    due double precision NOT NULL,
    position bigint NOT NULL,
    queue text NOT NULL,
    id text NOT NULL,
    raw bytea NOT NULL
);
ALTER TABLE umbel.delayed ALTER raw SET STORAGE EXTERNAL;
CREATE INDEX delayed_order ON umbel.delayed (queue, due, position);

-- What is put away: place 3 parked, 4 dead.
CREATE TABLE umbel.letters (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- never used twice
    place smallint NOT NULL,
    priority smallint NOT NULL,
    at double precision NOT NULL,
    queue text NOT NULL,
    id text NOT NULL,
    reason text NOT NULL,
    evidence bytea NOT NULL,
    raw bytea NOT NULL
);
ALTER TABLE umbel.letters ALTER raw SET STORAGE EXTERNAL;
CREATE INDEX letters_order ON umbel.letters (queue, place, number);
CREATE INDEX letters_task ON umbel.letters (queue, md5(reason), number) WHERE place = 3;
CREATE INDEX letters_id ON umbel.letters (id);

CREATE TABLE umbel.owners (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL,
    name text NOT NULL,
    expires double precision NOT NULL,
    reaped boolean NOT NULL DEFAULT false,
    UNIQUE (queue, name)
);

-- The last fetch of each owner, and its recoveries. Each fetch inserts its own and deletes the one before: a counter that is updated
-- would have to be looked for among all its old versions while an old snapshot keeps them.
CREATE TABLE umbel.fetches (
    owner bigint NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (owner, seq)
);

CREATE TABLE umbel.revoked (
    id text PRIMARY KEY,
    mark bigint NOT NULL,  -- grows with every entry
    expires double precision NOT NULL,
    signal text NOT NULL
);
CREATE INDEX revoked_mark ON umbel.revoked (mark);
CREATE INDEX revoked_expire ON umbel.revoked (expires);
CREATE TABLE umbel.marks (revoked bigint NOT NULL);  -- one row: its lock lets the marks become visible in their order
INSERT INTO umbel.marks VALUES (0);

-- How often something was counted: what is new is only inserted, so that nobody waits for anybody, and added up when the ring turns.
CREATE TABLE umbel.counts (
    slot smallint NOT NULL,
    minute bigint NOT NULL,  -- when it begins, in seconds since the epoch
    queue text NOT NULL,
    tally text NOT NULL,
    count bigint NOT NULL
) PARTITION BY LIST (slot);
CREATE TABLE umbel.counts_0 PARTITION OF umbel.counts FOR VALUES IN (0);
CREATE TABLE umbel.counts_1 PARTITION OF umbel.counts FOR VALUES IN (1);
CREATE TABLE umbel.counts_2 PARTITION OF umbel.counts FOR VALUES IN (2);
CREATE TABLE umbel.counts_3 PARTITION OF umbel.counts FOR VALUES IN (3);
CREATE TABLE umbel.tallies (
    minute bigint NOT NULL,
    queue text NOT NULL,
    tally text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (minute, queue, tally)
);

CREATE TABLE umbel.results (
    id text PRIMARY KEY,
    state text NOT NULL,
    fence bigint NOT NULL,
    expires double precision,
    meta bytea NOT NULL
);
ALTER TABLE umbel.results ALTER meta SET STORAGE EXTERNAL;
CREATE INDEX results_expire ON umbel.results (expires) WHERE expires IS NOT NULL;

CREATE TABLE umbel.leases (
    name text PRIMARY KEY,
    holder text NOT NULL,
    fence bigint NOT NULL,
    expires double precision NOT NULL
);

-- The next two keep nothing that must outlive the server, so they are not written to its log.
CREATE UNLOGGED TABLE umbel.sleepers (  -- who waits for what: it is rung for these only
    key text NOT NULL,  -- 'q:' and a queue, 'r:' and a task id, 'bus'
    name text NOT NULL,
    until double precision NOT NULL,
    PRIMARY KEY (key, name)
);

CREATE SEQUENCE umbel.said;
CREATE TABLE umbel.bus (  -- its slots alone can be without a log
    slot smallint NOT NULL,
    number bigint NOT NULL,
    topic text NOT NULL,
    body bytea NOT NULL,
    at double precision NOT NULL
) PARTITION BY LIST (slot);
CREATE UNLOGGED TABLE umbel.bus_0 PARTITION OF umbel.bus FOR VALUES IN (0);
CREATE UNLOGGED TABLE umbel.bus_1 PARTITION OF umbel.bus FOR VALUES IN (1);
CREATE UNLOGGED TABLE umbel.bus_2 PARTITION OF umbel.bus FOR VALUES IN (2);
CREATE UNLOGGED TABLE umbel.bus_3 PARTITION OF umbel.bus FOR VALUES IN (3);
CREATE INDEX bus_order ON umbel.bus (number);
