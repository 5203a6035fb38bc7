-- serves: 1
-- Keys of messages that are stored once, and schedules.

-- Until when a key is remembered. Invariant: whoever writes several rows does so in the order of their keys, so that nobody waits in a ring.
CREATE TABLE umbel.once (
    queue text NOT NULL,
    key text NOT NULL,
    expires double precision NOT NULL,
    PRIMARY KEY (queue, key)
);
CREATE INDEX once_expire ON umbel.once (expires);

-- As umbel.publish, without those whose key (not '') is remembered. Who publishes a key that another transaction has just written waits for
-- its end.
CREATE FUNCTION umbel.publish_once(
    p_queues text[], p_priorities smallint[], p_dues double precision[], p_ids text[], p_raws bytea[],
    p_keys text[], p_seconds double precision[]
) RETURNS void LANGUAGE plpgsql SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET jit TO off AS $$
DECLARE
    v_now double precision := umbel.clock();
    v_new bigint[];
BEGIN
    WITH asked AS (
        SELECT DISTINCT ON (queue, key) queue, key, seconds, n
        FROM unnest(p_queues, p_keys, p_seconds) WITH ORDINALITY AS i (queue, key, seconds, n) WHERE key <> '' ORDER BY queue, key, n
    ), written AS (
        INSERT INTO umbel.once AS o (queue, key, expires) SELECT queue, key, v_now + seconds FROM asked ORDER BY queue, key
        ON CONFLICT (queue, key) DO UPDATE SET expires = excluded.expires WHERE o.expires <= v_now RETURNING o.queue, o.key
    )
    SELECT array_agg(a.n) INTO v_new FROM asked a JOIN written w ON w.queue = a.queue AND w.key = a.key;
    SELECT coalesce(array_agg(queue ORDER BY n), '{}'), array_agg(priority ORDER BY n), array_agg(due ORDER BY n), array_agg(id ORDER BY n),
        array_agg(raw ORDER BY n)
    INTO p_queues, p_priorities, p_dues, p_ids, p_raws
    FROM unnest(p_queues, p_priorities, p_dues, p_ids, p_raws, p_keys) WITH ORDINALITY AS i (queue, priority, due, id, raw, key, n)
    WHERE key = '' OR n = ANY (v_new);
    -- Last, as it locks in another order: from here on nothing waits.
    DELETE FROM umbel.once WHERE (queue, key) IN (
        SELECT queue, key FROM umbel.once WHERE expires <= v_now ORDER BY expires LIMIT 2 * cardinality(p_ids) + 100
        FOR UPDATE SKIP LOCKED);
    IF cardinality(p_queues) > 0 THEN
        PERFORM umbel.publish(p_queues, p_priorities, p_dues, p_ids, p_raws);
    END IF;
END $$;

-- Schedules. A mark is a time in microseconds, or one more than the last mark, if that is larger. The row of a schedule is locked by who
-- changes one of its entries, until the end of the transaction: so marks become visible in their order.
CREATE TABLE umbel.schedules (
    name text PRIMARY KEY,
    mark bigint NOT NULL DEFAULT 0,  -- of the last change
    floor bigint NOT NULL DEFAULT 0,  -- who knows less may have missed a removal that is forgotten
    fence bigint NOT NULL DEFAULT 0  -- of the last who wrote states
);
CREATE TABLE umbel.schedule_rows (
    schedule text NOT NULL,
    name text NOT NULL,
    mark bigint NOT NULL,
    text bytea,  -- empty: removed
    PRIMARY KEY (schedule, name)
);
CREATE INDEX schedule_marks ON umbel.schedule_rows (schedule, mark);
CREATE INDEX schedule_removed ON umbel.schedule_rows (schedule, mark) WHERE text IS NULL;
CREATE TABLE umbel.schedule_states (
    schedule text NOT NULL,
    name text NOT NULL,
    slot double precision NOT NULL,
    runs bigint NOT NULL,
    id text NOT NULL,
    sent double precision NOT NULL,
    PRIMARY KEY (schedule, name)
);

-- Locks a schedule; returns the mark before the next change.
CREATE FUNCTION umbel.hold_schedule(p_schedule text) RETURNS bigint LANGUAGE plpgsql SET lock_timeout TO '1500ms' AS $$
DECLARE
    v_now bigint := umbel.clock() * 1000000;
    v_mark bigint;
BEGIN
    INSERT INTO umbel.schedules AS s (name, floor) VALUES (p_schedule, v_now)
    ON CONFLICT (name) DO UPDATE SET floor = CASE s.floor WHEN 0 THEN v_now ELSE s.floor END
    RETURNING greatest(s.mark, v_now) INTO v_mark;
    RETURN v_mark;
END $$;

-- Defines or redefines entries, each named once.
CREATE FUNCTION umbel.schedule_put(p_schedule text, p_names text[], p_texts bytea[]) RETURNS void LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET jit TO off AS $$
DECLARE
    v_mark bigint := umbel.hold_schedule(p_schedule);
    v_last bigint;
BEGIN
    DELETE FROM umbel.schedule_states s WHERE s.schedule = p_schedule AND s.name = ANY (p_names) AND NOT EXISTS (
        SELECT FROM umbel.schedule_rows r WHERE r.schedule = p_schedule AND r.name = s.name AND r.text IS NOT NULL);
    WITH written AS (
        INSERT INTO umbel.schedule_rows AS r (schedule, name, mark, text)
        SELECT p_schedule, name, v_mark + n, text FROM unnest(p_names, p_texts) WITH ORDINALITY AS i (name, text, n)
        ON CONFLICT (schedule, name) DO UPDATE SET mark = excluded.mark, text = excluded.text WHERE r.text IS DISTINCT FROM excluded.text
        RETURNING r.mark
    )
    SELECT max(mark) INTO v_last FROM written;
    IF v_last IS NOT NULL THEN
        UPDATE umbel.schedules SET mark = v_last WHERE name = p_schedule;
    END IF;
END $$;

-- Removes rows and states, and forgets removals that are older than p_kept seconds; returns how many rows there were.
CREATE FUNCTION umbel.schedule_remove(p_schedule text, p_names text[], p_kept double precision) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET jit TO off AS $$
DECLARE
    v_mark bigint := umbel.hold_schedule(p_schedule);
    v_removed bigint;
    v_floor bigint;
BEGIN
    DELETE FROM umbel.schedule_states WHERE schedule = p_schedule AND name = ANY (p_names);
    UPDATE umbel.schedule_rows r SET text = NULL, mark = v_mark + i.n
    FROM unnest(p_names) WITH ORDINALITY AS i (name, n)
    WHERE r.schedule = p_schedule AND r.name = i.name AND r.text IS NOT NULL;
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    IF v_removed > 0 THEN
        UPDATE umbel.schedules SET mark = (SELECT max(mark) FROM umbel.schedule_rows WHERE schedule = p_schedule) WHERE name = p_schedule;
    END IF;
    SELECT max(mark) INTO v_floor FROM (
        SELECT mark FROM umbel.schedule_rows
        WHERE schedule = p_schedule AND text IS NULL AND mark < (umbel.clock() - p_kept) * 1000000 ORDER BY mark LIMIT 2000) old;
    IF v_floor IS NOT NULL THEN
        DELETE FROM umbel.schedule_rows WHERE schedule = p_schedule AND text IS NULL AND mark <= v_floor;
        UPDATE umbel.schedules SET floor = greatest(floor, v_floor) WHERE name = p_schedule;
    END IF;
    RETURN v_removed;
END $$;

-- What has changed since p_mark; the first row has only the mark of the last change, and whether all rows follow. STABLE: of one moment.
CREATE FUNCTION umbel.schedule_changes(p_schedule text, p_mark bigint, p_limit integer) RETURNS TABLE (
    o_mark bigint, o_name text, o_text bytea, o_whole boolean
) LANGUAGE plpgsql STABLE SET enable_seqscan TO off SET jit TO off AS $$
DECLARE
    v_last bigint;
    v_floor bigint;
    v_whole boolean;
BEGIN
    SELECT s.mark, s.floor INTO v_last, v_floor FROM umbel.schedules s WHERE s.name = p_schedule;
    v_last := coalesce(v_last, 0);
    v_floor := greatest(v_floor, 1);
    v_whole := NOT (p_mark BETWEEN -v_last AND -1 OR p_mark BETWEEN v_floor AND v_last);
    RETURN QUERY SELECT v_last, NULL::text, NULL::bytea, v_whole;
    IF p_mark <> v_last OR p_mark = 0 THEN
        RETURN QUERY SELECT r.mark, r.name, r.text, v_whole FROM umbel.schedule_rows r
            WHERE r.schedule = p_schedule AND r.mark > CASE WHEN v_whole THEN 0 ELSE abs(p_mark) END AND (r.text IS NOT NULL OR NOT v_whole)
            ORDER BY r.mark LIMIT p_limit;
    END IF;
END $$;

-- Writes states, each of another name, all or none; false if somebody with a larger fence has written.
CREATE FUNCTION umbel.schedule_advance(
    p_schedule text, p_fence bigint, p_names text[], p_slots double precision[], p_runs bigint[], p_ids text[],
    p_sents double precision[]
) RETURNS boolean LANGUAGE plpgsql SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET jit TO off AS $$
BEGIN
    INSERT INTO umbel.schedules AS s (name, fence) VALUES (p_schedule, p_fence)
    ON CONFLICT (name) DO UPDATE SET fence = excluded.fence WHERE s.fence <= excluded.fence;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO umbel.schedule_states AS s (schedule, name, slot, runs, id, sent)
    SELECT p_schedule, i.* FROM unnest(p_names, p_slots, p_runs, p_ids, p_sents) AS i (name, slot, runs, id, sent)
    ON CONFLICT (schedule, name) DO UPDATE SET slot = excluded.slot, runs = excluded.runs, id = excluded.id, sent = excluded.sent
    WHERE s.slot <= excluded.slot;
    RETURN true;
END $$;
