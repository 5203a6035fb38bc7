-- serves: 1
-- What the driver calls: each function is one step, in one transaction and one round trip.
--
-- Invariant: a function that deletes claims locks the table `claimed` first, so that the snapshot of the statement that follows is newer
-- than any turn of the ring: else a claim that was carried to another slot meanwhile would look lost.
-- The planner is told to use the indexes: what it knows of the sizes of such tables is always old. And rows to delete are named by keys that
-- all come from the list of them: with a constant among these, it may walk through all rows of the queue and look each up in the list.

CREATE FUNCTION umbel.clock() RETURNS double precision LANGUAGE sql VOLATILE AS
$$ SELECT extract(epoch FROM clock_timestamp())::double precision $$;

-- Rings for those who wait for one of p_keys, when this transaction commits.
CREATE FUNCTION umbel.ring(p_keys text[]) RETURNS void LANGUAGE plpgsql SET enable_seqscan TO off AS $$
DECLARE v_now double precision := umbel.clock();
BEGIN
    PERFORM pg_notify('umbel.bell', md5(key)) FROM umbel.sleepers WHERE key = ANY (p_keys) AND until > v_now;
END $$;

CREATE FUNCTION umbel.sleep(p_keys text[], p_name text, p_seconds double precision) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO umbel.sleepers (key, name, until) SELECT key, p_name, umbel.clock() + p_seconds FROM unnest(p_keys) key ORDER BY key
    ON CONFLICT (key, name) DO UPDATE SET until = excluded.until
$$;

CREATE FUNCTION umbel.publish(
    p_queues text[], p_priorities smallint[], p_dues double precision[], p_ids text[], p_raws bytea[]
) RETURNS void LANGUAGE plpgsql SET lock_timeout TO '1500ms' AS $$
DECLARE
    v_now double precision := umbel.clock();
    v_slot smallint := (SELECT slot FROM umbel.rings WHERE name = 'ready');
BEGIN
    IF cardinality(p_ids) = 1 AND (p_dues[1] IS NULL OR p_dues[1] <= v_now) THEN  -- as of delay(), which waits for it
        INSERT INTO umbel.ready (slot, priority, suspect, attempts, position, queue, id, raw)
        VALUES (v_slot, p_priorities[1], false, 0, nextval('umbel.positions'), p_queues[1], p_ids[1], p_raws[1]);
        PERFORM umbel.ring(ARRAY['q:' || p_queues[1]]);
        RETURN;
    END IF;
    INSERT INTO umbel.ready (slot, priority, suspect, attempts, position, queue, id, raw)
    SELECT v_slot, i.priority, false, 0, nextval('umbel.positions'), i.queue, i.id, i.raw
    FROM unnest(p_queues, p_priorities, p_dues, p_ids, p_raws) AS i (queue, priority, due, id, raw)
    WHERE i.due IS NULL OR i.due <= v_now;
    INSERT INTO umbel.delayed (priority, suspect, attempts, due, position, queue, id, raw)
    SELECT i.priority, false, 0, i.due, nextval('umbel.positions'), i.queue, i.id, i.raw
    FROM unnest(p_queues, p_priorities, p_dues, p_ids, p_raws) AS i (queue, priority, due, id, raw)
    WHERE i.due > v_now;
    PERFORM umbel.ring(ARRAY(SELECT DISTINCT 'q:' || queue FROM unnest(p_queues) queue));
END $$;

-- Owners

-- Answers whether all were entered: false, if one was reaped.
CREATE FUNCTION umbel.enter(p_owner text, p_queues text[], p_lease double precision) RETURNS boolean LANGUAGE plpgsql
SET lock_timeout TO '1500ms' AS $$
DECLARE v_entered bigint;
BEGIN
    INSERT INTO umbel.owners AS o (queue, name, expires)
    SELECT queue, p_owner, umbel.clock() + p_lease FROM (SELECT DISTINCT unnest(p_queues) AS queue ORDER BY 1) q
    ON CONFLICT (queue, name) DO UPDATE SET expires = excluded.expires WHERE NOT o.reaped;
    GET DIAGNOSTICS v_entered = ROW_COUNT;
    IF v_entered < (SELECT count(DISTINCT queue) FROM unnest(p_queues) queue) THEN
        RAISE EXCEPTION 'owner lost' USING ERRCODE = 'UM001';
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION umbel.renew(p_owner text, p_queues text[], p_lease double precision) RETURNS boolean LANGUAGE plpgsql
SET lock_timeout TO '1500ms' AS $$
DECLARE v_renewed bigint;
BEGIN
    UPDATE umbel.owners o SET expires = umbel.clock() + p_lease
    WHERE o.number IN (
        SELECT number FROM umbel.owners WHERE name = p_owner AND queue = ANY (p_queues) AND NOT reaped ORDER BY number FOR NO KEY UPDATE);
    GET DIAGNOSTICS v_renewed = ROW_COUNT;
    RETURN v_renewed = (SELECT count(DISTINCT queue) FROM unnest(p_queues) queue);
END $$;

-- Holds this owner still until the transaction ends: its fetches, recoveries and end come one after another.
CREATE FUNCTION umbel.hold(p_number bigint) RETURNS void LANGUAGE sql VOLATILE AS
$$ SELECT pg_advisory_xact_lock(1886217578, (p_number % 2147483647)::integer) $$;

CREATE FUNCTION umbel.leave(p_owner text, p_queues text[]) RETURNS void LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off SET jit TO off AS $$
DECLARE
    v_me record;
    v_slot smallint := (SELECT slot FROM umbel.rings WHERE name = 'ready');
BEGIN
    FOR v_me IN SELECT number, queue FROM umbel.owners WHERE name = p_owner AND queue = ANY (p_queues) AND NOT reaped ORDER BY number LOOP
        PERFORM umbel.hold(v_me.number);
        LOCK TABLE umbel.claimed IN ROW EXCLUSIVE MODE;
        DELETE FROM umbel.owners WHERE number = v_me.number AND NOT reaped;
        IF FOUND THEN
            DELETE FROM umbel.fetches WHERE owner = v_me.number;
            WITH gone AS (DELETE FROM umbel.claimed WHERE owner = v_me.number RETURNING *)
            INSERT INTO umbel.ready (slot, priority, suspect, attempts, position, queue, id, raw)
            SELECT v_slot, priority, suspect, attempts, position, v_me.queue, id, raw FROM gone;
            IF FOUND THEN
                PERFORM umbel.ring(ARRAY['q:' || v_me.queue]);
            END IF;
        END IF;
    END LOOP;
    DELETE FROM umbel.sleepers WHERE name = p_owner AND key IN (SELECT 'q:' || queue FROM unnest(p_queues) queue);
END $$;

-- Claims

-- Moves what is due to the tail; only what has been due since p_from, if all before was looked for not long ago.
CREATE FUNCTION umbel.promote(p_queue text, p_limit integer, p_from double precision) RETURNS void LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off SET jit TO off AS $$
DECLARE
    v_now double precision := umbel.clock();
    v_slot smallint;
BEGIN
    IF NOT EXISTS (SELECT FROM umbel.delayed WHERE queue = p_queue AND due <= v_now AND due >= p_from) THEN
        RETURN;
    END IF;
    v_slot := (SELECT slot FROM umbel.rings WHERE name = 'ready');
    WITH due AS MATERIALIZED (
        SELECT queue, due, position FROM umbel.delayed WHERE queue = p_queue AND due <= v_now AND due >= p_from
        ORDER BY due, position LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM umbel.delayed d USING due WHERE d.queue = due.queue AND d.due = due.due AND d.position = due.position RETURNING d.*
    )
    INSERT INTO umbel.ready (slot, priority, suspect, attempts, position, queue, id, raw)
    SELECT v_slot, g.priority, g.suspect, g.attempts, nextval('umbel.positions'), g.queue, g.id, g.raw
    FROM (SELECT * FROM gone ORDER BY due, position) g;
    PERFORM umbel.ring(ARRAY['q:' || p_queue]);
END $$;

-- In how many seconds there is something to claim, null if nothing changes; all that has been due for longer is found by `promote`.
CREATE FUNCTION umbel.due_in(p_queues text[], p_recent double precision) RETURNS double precision LANGUAGE plpgsql
SET enable_seqscan TO off SET enable_bitmapscan TO off SET jit TO off AS $$
DECLARE v_now double precision := umbel.clock();
BEGIN
    IF EXISTS (SELECT FROM unnest(p_queues) q WHERE EXISTS (SELECT FROM umbel.ready r WHERE r.queue = q)) THEN
        RETURN 0;
    END IF;
    RETURN (SELECT min((SELECT due FROM umbel.delayed WHERE queue = q AND due > v_now - p_recent ORDER BY due LIMIT 1)) - v_now
        FROM unnest(p_queues) q);
END $$;

-- Takes up to p_limit messages for the owner v_me; see `Broker.fetch`. p_settled is not used: it makes `settle` run before.
-- p_doubt: a call with this number may still be under way, so it is written down that it is over, even if nothing is claimed.
-- p_recent: only messages that have been due for fewer seconds are looked for.
-- p_from_*: dead rows before this place were passed not long ago, and it took long; now they are not looked at.
CREATE FUNCTION umbel.fetch(
    p_settled integer[], p_queue text, p_owner text, p_seq bigint, p_limit integer, p_bytes bigint, p_parked text[],
    p_doubt boolean, p_awake boolean, p_recent double precision, p_from_priority smallint, p_from_position bigint
) RETURNS TABLE (
    o_position bigint, o_owner bigint, o_fence bigint, o_attempts integer, o_suspect boolean, o_priority smallint, o_raw bytea,
    o_mark bigint, o_took double precision
) LANGUAGE plpgsql SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off
SET enable_bitmapscan TO off SET enable_sort TO off SET jit TO off SET plan_cache_mode TO force_generic_plan AS $$
DECLARE
    v_me bigint;
    v_last bigint;
    v_fence bigint;
    v_mark bigint;
    v_slot smallint;
    v_began timestamptz;
    v_took double precision := 0;
    v_slots smallint[];
    v_queues text[];
    v_priorities smallint[];
    v_positions bigint[];
    v_numbers bigint[];
    v_left bigint := p_bytes;
    v_task text;
    v_any boolean := false;
BEGIN
    IF p_awake THEN
        DELETE FROM umbel.sleepers WHERE key = 'q:' || p_queue AND name = p_owner;
    END IF;
    SELECT number INTO v_me FROM umbel.owners WHERE queue = p_queue AND name = p_owner AND NOT reaped;
    IF v_me IS NULL THEN
        RAISE EXCEPTION 'owner lost' USING ERRCODE = 'UM001';
    END IF;
    IF p_limit > 0 THEN
        PERFORM umbel.promote(p_queue, 1000, umbel.clock() - p_recent);
    END IF;
    PERFORM umbel.hold(v_me);
    LOCK TABLE umbel.claimed IN ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM umbel.owners WHERE number = v_me AND NOT reaped) THEN
        RAISE EXCEPTION 'owner lost' USING ERRCODE = 'UM001';
    END IF;
    v_last := coalesce((SELECT seq FROM umbel.fetches WHERE owner = v_me AND seq > 0 ORDER BY seq DESC LIMIT 1), 0);
    IF p_seq > v_last THEN
        v_slot := (SELECT slot FROM umbel.rings WHERE name = 'claimed');
        v_fence := CASE WHEN cardinality(p_parked) > 0 THEN nextval('umbel.fences') END;
        FOREACH v_task IN ARRAY p_parked LOOP
            EXIT WHEN p_limit <= 0 OR v_left <= 0;
            SELECT array_agg(x.number), v_left - coalesce(sum(x.size), 0) INTO v_numbers, v_left FROM (
                SELECT y.number, y.size, sum(y.size) OVER (ORDER BY y.number) - y.size AS before FROM (
                    SELECT number, octet_length(raw) AS size FROM umbel.letters
                    WHERE queue = p_queue AND md5(reason) = md5(v_task) AND place = 3 AND reason = v_task
                    ORDER BY number LIMIT p_limit FOR UPDATE SKIP LOCKED) y) x
            WHERE x.before < v_left;
            WITH gone AS (DELETE FROM umbel.letters WHERE number = ANY (v_numbers) RETURNING *)
            INSERT INTO umbel.claimed (slot, priority, suspect, started, attempts, owner, seq, position, fence, id, raw)
            SELECT v_slot, priority, false, false, 0, v_me, p_seq, nextval('umbel.positions'), v_fence, id, raw
            FROM (SELECT * FROM gone ORDER BY number) g;
            p_limit := p_limit - coalesce(cardinality(v_numbers), 0);
            v_any := v_any OR v_numbers IS NOT NULL;
        END LOOP;
        IF p_limit > 0 AND v_left > 0 THEN
            v_began := clock_timestamp();
            SELECT array_agg(x.slot), array_agg(x.queue), array_agg(x.priority), array_agg(x.position)
            INTO v_slots, v_queues, v_priorities, v_positions FROM (
                SELECT y.*, sum(y.size) OVER (ORDER BY y.priority, y.position) - y.size AS before FROM (
                    SELECT slot, queue, priority, position, octet_length(raw) AS size FROM umbel.ready
                    WHERE queue = p_queue AND (priority, position) >= (p_from_priority, p_from_position)
                    ORDER BY priority, position LIMIT p_limit FOR UPDATE SKIP LOCKED) y) x
            WHERE x.before < v_left;
            v_took := extract(epoch FROM clock_timestamp() - v_began);
            IF v_slots IS NOT NULL THEN
                v_any := true;
                v_fence := coalesce(v_fence, nextval('umbel.fences'));
                WITH gone AS (
                    DELETE FROM umbel.ready r
                    USING unnest(v_slots, v_queues, v_priorities, v_positions) AS t (slot, queue, priority, position)
                    WHERE r.slot = t.slot AND r.queue = t.queue AND r.priority = t.priority AND r.position = t.position RETURNING r.*
                )
                INSERT INTO umbel.claimed (slot, priority, suspect, started, attempts, owner, seq, position, fence, id, raw)
                SELECT v_slot, priority, suspect, false, attempts, v_me, p_seq, position, v_fence, id, raw FROM gone;
            END IF;
        END IF;
        IF NOT v_any AND NOT p_doubt THEN
            RETURN;  -- without a write: an idle worker costs no disk
        END IF;
        INSERT INTO umbel.fetches (owner, seq) VALUES (v_me, p_seq);
        DELETE FROM umbel.fetches WHERE owner = v_me AND seq = v_last;
    END IF;
    -- After the claim, so that what was revoked before it has been seen.
    v_mark := (SELECT revoked FROM umbel.marks);
    RETURN QUERY SELECT c.position, c.owner, c.fence, c.attempts, c.suspect, c.priority, c.raw, v_mark, v_took
    FROM umbel.claimed c WHERE c.owner = v_me AND c.seq = p_seq;
END $$;

-- Settles the claims (owner, seq, position, fence), each named once; returns the numbers of those that were held. What rides on number n
-- (m_: what a claim that is not acknowledged becomes; i_: messages; r_: results; t_: what is counted) has n in its `_of`.
-- Verbs: 1 ack, 2 retry, 3 give back, 4 bury, 5 park, 6 delay.
CREATE FUNCTION umbel.settle(
    p_owner bigint[], p_seq bigint[], p_position bigint[], p_fence bigint[], p_verb smallint[],
    m_of integer[], m_attempts integer[], m_suspect boolean[], m_due double precision[], m_reason text[], m_evidence bytea[], m_raw bytea[],
    i_of integer[], i_queue text[], i_priority smallint[], i_due double precision[], i_id text[], i_raw bytea[],
    r_of integer[], r_id text[], r_state text[], r_fence bigint[], r_expires double precision[], r_meta bytea[],
    t_of integer[], t_tally text[]
) RETURNS integer[] LANGUAGE plpgsql SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET enable_hashjoin TO off
SET enable_mergejoin TO off SET jit TO off AS $$
DECLARE
    v_done integer[];
    v_moved integer[];
    v_all boolean;
    v_now double precision := umbel.clock();
    v_slot smallint := (SELECT slot FROM umbel.rings WHERE name = 'ready');
BEGIN
    LOCK TABLE umbel.claimed IN ROW EXCLUSIVE MODE;
    WITH s AS MATERIALIZED (
        SELECT s.*, o.number FROM unnest(p_owner, p_seq, p_position, p_fence, p_verb)
            WITH ORDINALITY AS s (owner, seq, position, fence, verb, n)
        JOIN umbel.owners o ON o.number = s.owner AND NOT o.reaped
        WHERE s.verb <= 2
    ), gone AS (
        DELETE FROM umbel.claimed c USING s
        WHERE c.owner = s.owner AND c.seq = s.seq AND c.position = s.position AND c.fence = s.fence RETURNING s.n
    )
    SELECT coalesce(array_agg(n::integer), '{}') INTO v_done FROM gone;
    IF cardinality(m_of) > 0 THEN
        WITH s AS MATERIALIZED (
            SELECT p_owner[m.n] AS owner, p_seq[m.n] AS seq, p_position[m.n] AS position, p_fence[m.n] AS fence, p_verb[m.n] AS verb,
                m.*, o.queue
            FROM unnest(m_of, m_attempts, m_suspect, m_due, m_reason, m_evidence, m_raw)
                AS m (n, attempts, suspect, due, reason, evidence, raw)
            JOIN umbel.owners o ON o.number = p_owner[m.n] AND NOT o.reaped
        ), gone AS (
            DELETE FROM umbel.claimed c USING s
            WHERE c.owner = s.owner AND c.seq = s.seq AND c.position = s.position AND c.fence = s.fence
            RETURNING s.n, s.verb, s.queue, s.due, s.attempts, s.suspect, s.reason, s.evidence, coalesce(s.raw, c.raw) AS raw,
                c.id, c.position, c.priority, c.attempts AS had_attempts, c.suspect AS was_suspect
        ), back AS (
            INSERT INTO umbel.ready (slot, priority, suspect, attempts, position, queue, id, raw)
            SELECT v_slot, priority, suspect, attempts, position, queue, id, raw FROM gone WHERE verb = 3
        ), tail AS (
            INSERT INTO umbel.ready (slot, priority, suspect, attempts, position, queue, id, raw)
            SELECT v_slot, priority, was_suspect, had_attempts, nextval('umbel.positions'), queue, id, raw
            FROM (SELECT * FROM gone WHERE verb = 6 AND (due IS NULL OR due <= v_now) ORDER BY n) g
        ), later AS (
            INSERT INTO umbel.delayed (priority, suspect, attempts, due, position, queue, id, raw)
            SELECT priority, was_suspect, had_attempts, due, nextval('umbel.positions'), queue, id, raw
            FROM (SELECT * FROM gone WHERE verb = 6 AND due > v_now ORDER BY n) g
        ), away AS (
            INSERT INTO umbel.letters (place, priority, at, queue, id, reason, evidence, raw)
            SELECT CASE verb WHEN 4 THEN 4 ELSE 3 END, priority, v_now, queue, id, reason, evidence, raw
            FROM (SELECT * FROM gone WHERE verb IN (4, 5) ORDER BY n) g
        )
        SELECT coalesce(array_agg(n), '{}') INTO v_moved FROM gone;
        PERFORM umbel.ring(ARRAY(
            SELECT DISTINCT 'q:' || o.queue FROM unnest(v_moved) n JOIN umbel.owners o ON o.number = p_owner[n] WHERE p_verb[n] IN (3, 6)));
        v_done := v_done || v_moved;
    END IF;
    v_all := cardinality(v_done) = cardinality(p_owner);
    IF NOT v_all THEN  -- only what was carried out takes along what rides on it
        SELECT coalesce(array_agg(queue), '{}'), array_agg(priority), array_agg(due), array_agg(id), array_agg(raw)
        INTO i_queue, i_priority, i_due, i_id, i_raw
        FROM unnest(i_of, i_queue, i_priority, i_due, i_id, i_raw) WITH ORDINALITY AS i (n, queue, priority, due, id, raw, k)
        WHERE n = ANY (v_done);
        SELECT coalesce(array_agg(id), '{}'), array_agg(state), array_agg(fence), array_agg(expires), array_agg(meta)
        INTO r_id, r_state, r_fence, r_expires, r_meta
        FROM unnest(r_of, r_id, r_state, r_fence, r_expires, r_meta) WITH ORDINALITY AS r (n, id, state, fence, expires, meta, k)
        WHERE n = ANY (v_done);
        SELECT coalesce(array_agg(n), '{}'), array_agg(tally) INTO t_of, t_tally
        FROM unnest(t_of, t_tally) AS t (n, tally) WHERE n = ANY (v_done);
    END IF;
    IF cardinality(r_id) > 0 THEN
        PERFORM umbel.store(r_id, r_state, r_fence, r_expires, r_meta);
    END IF;
    IF cardinality(i_queue) > 0 THEN
        PERFORM umbel.publish(i_queue, i_priority, i_due, i_id, i_raw);
    END IF;
    IF cardinality(t_of) > 0 THEN
        INSERT INTO umbel.counts (slot, minute, queue, tally, count)
        SELECT (SELECT slot FROM umbel.rings WHERE name = 'counts'), floor(v_now / 60)::bigint * 60, o.queue, c.tally, c.count
        FROM (SELECT p_owner[n] AS owner, tally, count(*) AS count FROM unnest(t_of, t_tally) AS t (n, tally) GROUP BY 1, 2) c
        JOIN umbel.owners o ON o.number = c.owner;
    END IF;
    RETURN v_done;
END $$;

CREATE FUNCTION umbel.mark_started(p_owner bigint, p_seq bigint, p_position bigint, p_fence bigint) RETURNS boolean LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET jit TO off AS $$
BEGIN
    LOCK TABLE umbel.claimed IN ROW EXCLUSIVE MODE;
    UPDATE umbel.claimed c SET started = true
    WHERE c.owner = p_owner AND c.seq = p_seq AND c.position = p_position AND c.fence = p_fence
        AND EXISTS (SELECT FROM umbel.owners WHERE number = p_owner AND NOT reaped);
    RETURN FOUND;
END $$;

-- Looks, without writing, whether an owner other than the caller has lapsed; with the time, for p_until of `recover`.
CREATE FUNCTION umbel.lapsed(p_queue text, p_owner text) RETURNS TABLE (o_known boolean, o_lapsed boolean, o_now double precision)
LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (SELECT FROM umbel.owners WHERE queue = p_queue AND name = p_owner AND NOT reaped),
        EXISTS (SELECT FROM umbel.owners WHERE queue = p_queue AND name <> p_owner AND (reaped OR expires <= umbel.clock())), umbel.clock()
$$;

-- Takes claims of one lapsed owner; see `Broker.recover`. p_step is a number of the caller's own, negative, the same in a repeat.
-- After p_until nothing is taken: while this order waited, nobody could renew either.
CREATE FUNCTION umbel.recover(
    p_queue text, p_owner text, p_step bigint, p_limit integer, p_bytes bigint, p_until double precision
) RETURNS TABLE (
    o_position bigint, o_owner bigint, o_fence bigint, o_attempts integer, o_suspect boolean, o_priority smallint, o_raw bytea, o_more boolean
) LANGUAGE plpgsql SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off
SET jit TO off AS $$
DECLARE
    v_me bigint;
    v_lost bigint;
    v_fence bigint;
    v_more boolean := false;
    v_owners bigint[];
    v_positions bigint[];
    v_seqs bigint[];
BEGIN
    SELECT number INTO v_me FROM umbel.owners WHERE queue = p_queue AND name = p_owner AND NOT reaped;
    IF v_me IS NULL THEN
        RAISE EXCEPTION 'owner lost' USING ERRCODE = 'UM001';
    END IF;
    SELECT number INTO v_lost FROM umbel.owners
    WHERE queue = p_queue AND number <> v_me AND (reaped OR expires <= umbel.clock()) ORDER BY reaped DESC, expires LIMIT 1;
    PERFORM umbel.hold(number) FROM (SELECT unnest(ARRAY[v_me, v_lost]) AS number ORDER BY 1) o WHERE number IS NOT NULL;
    LOCK TABLE umbel.claimed IN ROW EXCLUSIVE MODE;
    INSERT INTO umbel.fetches (owner, seq) VALUES (v_me, p_step) ON CONFLICT DO NOTHING;
    IF FOUND AND v_lost IS NOT NULL AND umbel.clock() <= p_until THEN
        -- Again, now that nobody moves: it may have been renewed, or recovered by another.
        UPDATE umbel.owners SET reaped = true WHERE number = v_lost AND (reaped OR expires <= umbel.clock());
        IF FOUND AND EXISTS (SELECT FROM umbel.owners WHERE number = v_me AND NOT reaped) THEN
            v_fence := nextval('umbel.fences');
            SELECT array_agg(x.owner), array_agg(x.seq), array_agg(x.position) INTO v_owners, v_seqs, v_positions FROM (
                SELECT y.*, sum(y.size) OVER (ORDER BY y.priority, y.position) - y.size AS before FROM (
                    SELECT owner, seq, position, priority, octet_length(raw) AS size FROM umbel.claimed
                    WHERE owner = v_lost ORDER BY priority, position LIMIT p_limit FOR UPDATE) y) x
            WHERE x.before < p_bytes;
            UPDATE umbel.claimed c SET owner = v_me, seq = p_step, fence = v_fence, attempts = c.attempts + c.started::integer,
                suspect = NOT c.started, started = false
            FROM unnest(v_owners, v_seqs, v_positions) AS t (owner, seq, position)
            WHERE c.owner = t.owner AND c.seq = t.seq AND c.position = t.position;
            IF NOT EXISTS (SELECT FROM umbel.claimed WHERE owner = v_lost) THEN
                DELETE FROM umbel.owners WHERE number = v_lost;
                DELETE FROM umbel.fetches WHERE owner = v_lost;
            END IF;
        END IF;
    END IF;
    v_more := EXISTS (SELECT FROM umbel.owners WHERE queue = p_queue AND number <> v_me AND (reaped OR expires <= umbel.clock()));
    RETURN QUERY SELECT c.position, c.owner, c.fence, c.attempts, c.suspect, c.priority, c.raw, v_more
    FROM umbel.claimed c WHERE c.owner = v_me AND c.seq = p_step;
    IF NOT FOUND THEN
        RETURN QUERY SELECT NULL::bigint, v_me, NULL::bigint, NULL::integer, NULL::boolean, NULL::smallint, NULL::bytea, v_more;
    END IF;
END $$;

-- Letters

CREATE FUNCTION umbel.requeue(p_numbers bigint[], p_queues text[], p_places smallint[]) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off SET jit TO off AS $$
DECLARE
    v_back bigint;
    v_slot smallint := (SELECT slot FROM umbel.rings WHERE name = 'ready');
BEGIN
    PERFORM FROM umbel.letters WHERE number = ANY (p_numbers) ORDER BY number FOR UPDATE;  -- in one order, so that two do not block each other
    WITH asked AS MATERIALIZED (
        SELECT DISTINCT ON (number) * FROM unnest(p_numbers, p_queues, p_places) WITH ORDINALITY AS a (number, queue, place, n)
        ORDER BY number, n
    ), gone AS (
        DELETE FROM umbel.letters l USING asked a WHERE l.number = a.number AND l.queue = a.queue AND l.place = a.place RETURNING l.*, a.n
    )
    INSERT INTO umbel.ready (slot, priority, suspect, attempts, position, queue, id, raw)
    SELECT v_slot, g.priority, false, 0, nextval('umbel.positions'), g.queue, g.id, g.raw FROM (SELECT * FROM gone ORDER BY n) g;
    GET DIAGNOSTICS v_back = ROW_COUNT;
    PERFORM umbel.ring(ARRAY(SELECT DISTINCT 'q:' || queue FROM unnest(p_queues) queue));
    RETURN v_back;
END $$;

CREATE FUNCTION umbel.discard(p_numbers bigint[], p_queues text[], p_places smallint[]) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off SET jit TO off AS $$
DECLARE v_gone bigint;
BEGIN
    PERFORM FROM umbel.letters WHERE number = ANY (p_numbers) ORDER BY number FOR UPDATE;
    DELETE FROM umbel.letters l USING unnest(p_numbers, p_queues, p_places) AS a (number, queue, place)
    WHERE l.number = a.number AND l.queue = a.queue AND l.place = a.place;
    GET DIAGNOSTICS v_gone = ROW_COUNT;
    RETURN v_gone;
END $$;

-- Revoked tasks

CREATE FUNCTION umbel.revoke(p_ids text[], p_ttl double precision, p_signal text) RETURNS void LANGUAGE plpgsql
SET lock_timeout TO '1500ms' AS $$
DECLARE
    v_now double precision := umbel.clock();
    v_mark bigint;
BEGIN
    UPDATE umbel.marks SET revoked = revoked + cardinality(p_ids) RETURNING revoked - cardinality(p_ids) INTO v_mark;
    DELETE FROM umbel.revoked WHERE id IN (SELECT id FROM umbel.revoked WHERE expires <= v_now LIMIT 2 * cardinality(p_ids) + 1000);
    INSERT INTO umbel.revoked AS r (id, mark, expires, signal)
    SELECT DISTINCT ON (id) id, v_mark + n, v_now + p_ttl, p_signal FROM unnest(p_ids) WITH ORDINALITY AS i (id, n) ORDER BY id, n DESC
    ON CONFLICT (id) DO UPDATE SET mark = excluded.mark, expires = greatest(r.expires, excluded.expires),
        signal = CASE excluded.signal WHEN '' THEN r.signal ELSE excluded.signal END;
END $$;

-- What was entered after p_mark (all, if it is none of ours) and has not expired; the first row has only the newest mark.
CREATE FUNCTION umbel.revoked_since(p_mark bigint) RETURNS TABLE (
    o_mark bigint, o_id text, o_expires double precision, o_signal text
) LANGUAGE plpgsql SET enable_seqscan TO off SET jit TO off AS $$
DECLARE
    v_now double precision := umbel.clock();
    v_last bigint := (SELECT revoked FROM umbel.marks);
BEGIN
    RETURN QUERY SELECT v_last, NULL::text, NULL::double precision, NULL::text;
    RETURN QUERY SELECT r.mark, r.id, r.expires, r.signal FROM umbel.revoked r
    WHERE r.mark > CASE WHEN p_mark <= v_last THEN p_mark ELSE 0 END AND r.mark <= v_last AND r.expires > v_now ORDER BY r.mark;
END $$;

-- Results

-- Stores what may replace what is there (see `drivers/acceptance.py`); returns the ids that were stored. Each id comes once.
CREATE FUNCTION umbel.store(
    p_ids text[], p_states text[], p_fences bigint[], p_expires double precision[], p_metas bytea[]
) RETURNS text[] LANGUAGE plpgsql SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET enable_hashjoin TO off
SET enable_mergejoin TO off SET jit TO off AS $$
DECLARE
    v_now double precision := umbel.clock();
    v_stored text[];
BEGIN
    WITH written AS (
        INSERT INTO umbel.results AS r (id, state, fence, expires, meta)
        SELECT n.id, n.state, n.fence, v_now + n.expires, n.meta
        FROM unnest(p_ids, p_states, p_fences, p_expires, p_metas) AS n (id, state, fence, expires, meta) ORDER BY n.id
        ON CONFLICT (id) DO UPDATE SET state = excluded.state, expires = excluded.expires, meta = excluded.meta,
            fence = CASE WHEN r.expires <= v_now THEN excluded.fence ELSE greatest(r.fence, excluded.fence) END
        WHERE r.expires <= v_now OR NOT (
            r.state = 'SUCCESS' OR (excluded.fence > 0 AND excluded.fence < r.fence) OR (
                r.state IN ('FAILURE', 'REVOKED') AND excluded.state NOT IN ('SUCCESS', 'FAILURE', 'REVOKED')
                AND excluded.fence = r.fence AND r.fence <> 0))
        RETURNING r.id
    )
    SELECT coalesce(array_agg(id), '{}') INTO v_stored FROM written;
    PERFORM umbel.ring(ARRAY(SELECT 'r:' || id FROM unnest(v_stored) id));
    RETURN v_stored;
END $$;

-- Leases

CREATE FUNCTION umbel.acquire(p_name text, p_holder text, p_ttl double precision) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    WITH cut AS ( -- where the clock was set back, a term would last for so much longer
        UPDATE umbel.leases SET expires = umbel.clock() + p_ttl
        WHERE name = p_name AND holder <> p_holder AND expires > umbel.clock() + p_ttl
    )
    INSERT INTO umbel.leases AS l (name, holder, fence, expires) VALUES (p_name, p_holder, 1, umbel.clock() + p_ttl)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = l.fence + 1, expires = excluded.expires
    WHERE l.holder = excluded.holder OR l.expires <= umbel.clock()
    RETURNING fence
$$;

-- Bus

-- One after another, so that what is said becomes visible in its order; it need not be on the disk.
CREATE FUNCTION umbel.say(p_topic text, p_body bytea) RETURNS void LANGUAGE plpgsql SET lock_timeout TO '1500ms' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1886217579, 0);
    INSERT INTO umbel.bus (slot, number, topic, body, at)
    SELECT slot, nextval('umbel.said'), p_topic, p_body, umbel.clock() FROM umbel.rings WHERE name = 'bus';
    PERFORM umbel.ring(ARRAY['bus']);
END $$;

-- Care

-- What was counted of a queue in the minutes since p_since. The lock first: see the beginning of this file.
CREATE FUNCTION umbel.counted(p_queue text, p_since double precision) RETURNS TABLE (o_minute bigint, o_tally text, o_count bigint)
LANGUAGE plpgsql SET lock_timeout TO '1500ms' AS $$
BEGIN
    LOCK TABLE umbel.counts IN ACCESS SHARE MODE;
    RETURN QUERY SELECT c.minute, c.tally, sum(c.count)::bigint FROM (
        SELECT minute, tally, count FROM umbel.tallies WHERE queue = p_queue
        UNION ALL SELECT minute, tally, count FROM umbel.counts WHERE queue = p_queue) c
    WHERE c.minute >= p_since GROUP BY 1, 2 ORDER BY 1, 2;
END $$;

-- Turns one ring: goes on to an empty slot if the current one is large (or holds nothing but dead rows), and empties old slots of which
-- little is left (p_most rows of p_bytes; p_most 0: whatever is left). It waits for a lock only shortly, and after a failure not again for a while: an open transaction may hold it for long.
CREATE FUNCTION umbel.turn(p_ring text, p_size bigint, p_most integer, p_bytes bigint) RETURNS void LANGUAGE plpgsql
SET jit TO off AS $$
DECLARE
    v_table text := p_ring || '_';
    v_current smallint;
    v_next smallint;
    v_left bigint;
    v_bytes bigint;
    v_columns text;
    v_full boolean;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1886217580, hashtext(p_ring)) THEN
        RETURN;  -- another worker is at it
    END IF;
    SELECT slot INTO v_current FROM umbel.rings WHERE name = p_ring AND again <= umbel.clock();
    IF v_current IS NULL THEN
        RETURN;
    END IF;
    v_full := pg_table_size('umbel.' || v_table || v_current) > p_size;
    IF NOT v_full AND pg_relation_size('umbel.' || v_table || v_current) > p_size / 16 THEN
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM umbel.%I)', v_table || v_current) INTO v_full;
    END IF;
    IF v_full THEN
        SELECT s INTO v_next FROM generate_series(0, 3) s WHERE pg_relation_size('umbel.' || v_table || s) = 0 ORDER BY s LIMIT 1;
        IF v_next IS NOT NULL THEN
            UPDATE umbel.rings SET slot = v_next WHERE name = p_ring;
            v_current := v_next;
        END IF;
    END IF;
    PERFORM set_config('lock_timeout', '100ms', true);
    FOR v_next IN SELECT s FROM generate_series(0, 3) s WHERE s <> v_current AND pg_relation_size('umbel.' || v_table || s) > 0 LOOP
        IF p_most > 0 THEN
            EXECUTE format(
                'SELECT count(*), coalesce(sum(octet_length(raw)), 0) FROM (SELECT raw FROM umbel.%I LIMIT %s) c', v_table || v_next, p_most + 1
            ) INTO v_left, v_bytes;
            CONTINUE WHEN v_left > p_most OR v_bytes > p_bytes;  -- while they are carried over, all wait
        END IF;
        IF p_ring = 'bus' THEN
            EXECUTE format('SELECT count(*) FROM (SELECT FROM umbel.%I WHERE at > umbel.clock() - 60 LIMIT 1) c', v_table || v_next) INTO v_left;
            CONTINUE WHEN v_left > 0;  -- somebody may still read on there
        END IF;
        BEGIN
            EXECUTE format('LOCK TABLE umbel.%I IN ACCESS EXCLUSIVE MODE', v_table || v_next);
            SELECT string_agg(quote_ident(attname), ', ') INTO v_columns FROM pg_attribute
            WHERE attrelid = ('umbel.' || p_ring)::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'slot';
            IF p_ring = 'counts' THEN
                EXECUTE format(
                    'INSERT INTO umbel.tallies AS t (minute, queue, tally, count) SELECT minute, queue, tally, sum(count) FROM umbel.%I '
                    'GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 ON CONFLICT (minute, queue, tally) DO UPDATE SET count = t.count + excluded.count',
                    v_table || v_next);
            ELSIF p_ring <> 'bus' THEN  -- what is on the bus may be dropped when it is old
                EXECUTE format(
                    'INSERT INTO umbel.%I (slot, %s) SELECT %s, %s FROM umbel.%I', p_ring, v_columns, v_current, v_columns, v_table || v_next);
            END IF;
            EXECUTE format('TRUNCATE umbel.%I', v_table || v_next);
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            UPDATE umbel.rings SET again = umbel.clock() + 5 WHERE name = p_ring;
        END;
    END LOOP;
END $$;

-- Deletes what has ended, a part at a time. Any worker calls it about once a second.
CREATE FUNCTION umbel.sweep() RETURNS void LANGUAGE plpgsql SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET jit TO off AS $$
DECLARE v_now double precision := umbel.clock();
BEGIN
    IF pg_try_advisory_xact_lock(1886217580, 0) THEN
        DELETE FROM umbel.tallies WHERE (minute, queue, tally) IN (
            SELECT minute, queue, tally FROM umbel.tallies WHERE minute <= v_now - 10860 LIMIT 2000);
        DELETE FROM umbel.sleepers WHERE until < v_now - 60;
        DELETE FROM umbel.results WHERE id IN (SELECT id FROM umbel.results WHERE expires <= v_now ORDER BY expires LIMIT 10000);
    END IF;
END $$;
