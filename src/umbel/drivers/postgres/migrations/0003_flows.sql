-- serves: 1
-- Workflows. What has expired may still be there: who reads asks `flows`, which alone says how long a flow lives.
--
-- Invariant: whoever locks several rows locks flows before joins, and each in the order of its key, so that nobody waits in a ring.

CREATE TABLE umbel.flows (
    id text PRIMARY KEY,
    expires double precision
);
CREATE INDEX flows_expire ON umbel.flows (expires) WHERE expires IS NOT NULL;

-- A node has its number; what is known of a join has -1 less the number of the join, so that the row that changes with each part is small.
CREATE TABLE umbel.nodes (
    flow text NOT NULL,
    number bigint NOT NULL,
    node bytea NOT NULL,
    PRIMARY KEY (flow, number)
);

CREATE TABLE umbel.joins (
    number bigint NOT NULL,
    size integer NOT NULL,
    done integer NOT NULL DEFAULT 0,
    decider integer,  -- the position of the part that ended it, -1 if it had none; null: it is not over
    sent boolean NOT NULL DEFAULT false,
    since double precision,  -- when it was over, or somebody asked to answer for it; null: it is not over, or sent
    flow text NOT NULL,
    failed text,
    failure bytea,
    PRIMARY KEY (flow, number)
) WITH (fillfactor = 70);
CREATE INDEX joins_over ON umbel.joins (since) WHERE since IS NOT NULL;

CREATE TABLE umbel.parts (
    number bigint NOT NULL,  -- of the join
    position integer NOT NULL,
    flow text NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (flow, number, position)
);
ALTER TABLE umbel.parts ALTER value SET STORAGE EXTERNAL;

CREATE TABLE umbel.grown (
    number bigint NOT NULL,
    position integer NOT NULL,
    flow text NOT NULL,
    name text NOT NULL,  -- what it has grown for
    PRIMARY KEY (flow, number, name)
);

-- Which copy of a task's message has started.
CREATE TABLE umbel.bound (
    id text PRIMARY KEY,
    copy text NOT NULL,
    expires double precision
);
CREATE INDEX bound_expire ON umbel.bound (expires) WHERE expires IS NOT NULL;

CREATE TABLE umbel.groups (
    id text PRIMARY KEY,
    document bytea NOT NULL,
    expires double precision
);
CREATE INDEX groups_expire ON umbel.groups (expires) WHERE expires IS NOT NULL;

CREATE FUNCTION umbel.lives(p_flow text) RETURNS boolean LANGUAGE sql VOLATILE AS $$
    SELECT EXISTS (SELECT FROM umbel.flows WHERE id = p_flow AND (expires IS NULL OR expires > umbel.clock()))
$$;

-- Deletes all of the flows but their rows in `flows`.
CREATE FUNCTION umbel.empty(p_flows text[]) RETURNS void LANGUAGE sql VOLATILE SET enable_seqscan TO off AS $$
    DELETE FROM umbel.nodes WHERE flow = ANY (p_flows);
    DELETE FROM umbel.parts WHERE flow = ANY (p_flows);
    DELETE FROM umbel.grown WHERE flow = ANY (p_flows);
    DELETE FROM umbel.joins WHERE flow = ANY (p_flows);
$$;

-- p_seconds is null for ever.
CREATE FUNCTION umbel.begin_flow(
    p_flow text, p_seconds double precision, n_number bigint[], n_node bytea[], j_number bigint[], j_size integer[], j_data bytea[]
) RETURNS void LANGUAGE plpgsql SET lock_timeout TO '1500ms' SET enable_seqscan TO off AS $$
DECLARE v_now double precision := umbel.clock();
BEGIN
    PERFORM FROM umbel.flows WHERE id = p_flow AND expires <= v_now FOR UPDATE;
    IF FOUND THEN
        PERFORM umbel.empty(ARRAY[p_flow]);
        DELETE FROM umbel.flows WHERE id = p_flow;
    END IF;
    INSERT INTO umbel.flows AS f (id, expires) VALUES (p_flow, v_now + p_seconds)
    ON CONFLICT (id) DO UPDATE SET expires = CASE WHEN f.expires IS NULL THEN NULL ELSE v_now + p_seconds END
    WHERE f.expires IS NOT NULL AND (p_seconds IS NULL OR f.expires < v_now + p_seconds);
    INSERT INTO umbel.nodes (flow, number, node) SELECT p_flow, n.number, n.node FROM unnest(n_number, n_node) AS n (number, node)
    ORDER BY n.number ON CONFLICT (flow, number) DO NOTHING;
    INSERT INTO umbel.nodes (flow, number, node) SELECT p_flow, -1 - j.number, j.data FROM unnest(j_number, j_data) AS j (number, data)
    ORDER BY j.number ON CONFLICT (flow, number) DO NOTHING;
    INSERT INTO umbel.joins (flow, number, size, decider, since)
    SELECT p_flow, j.number, j.size, CASE j.size WHEN 0 THEN -1 END, CASE j.size WHEN 0 THEN v_now END
    FROM unnest(j_number, j_size) AS j (number, size) ORDER BY j.number ON CONFLICT (flow, number) DO NOTHING;
END $$;

-- Lets flows live on. What moves their end by less than a hundredth, and by less than a minute, is not worth a write.
CREATE FUNCTION umbel.live_on(p_flows text[], p_seconds double precision) RETURNS void LANGUAGE plpgsql SET enable_seqscan TO off AS $$
DECLARE v_now double precision := umbel.clock();
BEGIN
    WITH due AS (
        SELECT id FROM umbel.flows WHERE id = ANY (p_flows) AND expires > v_now
            AND (p_seconds IS NULL OR expires < v_now + p_seconds - least(60, p_seconds / 100))
        ORDER BY id FOR UPDATE)
    UPDATE umbel.flows f SET expires = v_now + p_seconds FROM due WHERE f.id = due.id;
END $$;

-- Notes parts; one without a value has failed. Returns those (their number n, from 1) that are to answer for what follows, and those of
-- which there is no join, without a size.
CREATE FUNCTION umbel.arrive(
    p_flow text[], p_join bigint[], p_position integer[], p_id text[], p_value bytea[], p_failure bytea[], p_seconds double precision
) RETURNS TABLE (o_n integer, o_size integer, o_failed text, o_failure bytea) LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET jit TO off AS $$
DECLARE
    r record;
    j umbel.joins;
    v_there boolean;
    v_news integer;
    v_changed boolean := false;
BEGIN
    PERFORM umbel.live_on(ARRAY(SELECT DISTINCT unnest(p_flow)), p_seconds);
    FOR r IN
        SELECT * FROM unnest(p_flow, p_join, p_position, p_id, p_value, p_failure)
            WITH ORDINALITY AS u (flow, number, position, id, value, failure, n) ORDER BY u.flow, u.number, u.n
    LOOP
        IF j.flow IS DISTINCT FROM r.flow OR j.number IS DISTINCT FROM r.number THEN
            IF v_changed THEN
                PERFORM umbel.write_join(j);
            END IF;
            v_changed := false;
            SELECT * INTO j FROM umbel.joins t WHERE t.flow = r.flow AND t.number = r.number AND umbel.lives(r.flow) FOR UPDATE;
            v_there := FOUND;
            j.flow := r.flow;
            j.number := r.number;
        END IF;
        IF NOT v_there THEN
            o_n := r.n; o_size := NULL; o_failed := NULL; o_failure := NULL;
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF j.decider IS NULL AND r.position >= 0 AND r.position < j.size THEN
            IF r.value IS NULL THEN
                PERFORM FROM umbel.parts t WHERE t.flow = r.flow AND t.number = r.number AND t.position = r.position;
                v_news := CASE WHEN FOUND THEN 0 ELSE 1 END;
                IF v_news = 1 THEN
                    j.failed := r.id;
                    j.failure := r.failure;
                END IF;
            ELSE
                INSERT INTO umbel.parts (flow, number, position, value) VALUES (r.flow, r.number, r.position, r.value) ON CONFLICT DO NOTHING;
                GET DIAGNOSTICS v_news = ROW_COUNT;
                j.done := j.done + v_news;
            END IF;
            IF v_news = 1 THEN
                v_changed := true;
                IF j.failed IS NOT NULL OR j.done = j.size THEN
                    j.decider := r.position;
                END IF;
            END IF;
        END IF;
        IF j.decider = r.position AND NOT j.sent THEN
            o_n := r.n; o_size := j.size; o_failed := j.failed; o_failure := j.failure;
            RETURN NEXT;
        END IF;
    END LOOP;
    IF v_changed THEN
        PERFORM umbel.write_join(j);
    END IF;
END $$;

CREATE FUNCTION umbel.write_join(j umbel.joins) RETURNS void LANGUAGE sql VOLATILE AS $$
    UPDATE umbel.joins t SET done = j.done, decider = j.decider, failed = j.failed, failure = j.failure,
        since = CASE WHEN j.decider IS NOT NULL THEN umbel.clock() END
    WHERE t.flow = j.flow AND t.number = j.number
$$;

-- Marks joins that are over as sent, and deletes their values.
CREATE FUNCTION umbel.sent(p_flow text[], p_join bigint[]) RETURNS void LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off AS $$
DECLARE r record;
BEGIN
    FOR r IN SELECT DISTINCT u.flow, u.number FROM unnest(p_flow, p_join) AS u (flow, number) ORDER BY u.flow, u.number LOOP
        UPDATE umbel.joins t SET sent = true, since = NULL
        WHERE t.flow = r.flow AND t.number = r.number AND t.decider IS NOT NULL AND NOT t.sent;
        IF FOUND THEN
            DELETE FROM umbel.parts t WHERE t.flow = r.flow AND t.number = r.number;
        END IF;
    END LOOP;
END $$;

-- Returns the first of the new positions, the same for the same name; null if the join is over or unknown.
CREATE FUNCTION umbel.grow(p_flow text, p_join bigint, p_by integer, p_name text) RETURNS integer LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off AS $$
DECLARE
    j umbel.joins;
    v_position integer;
BEGIN
    SELECT * INTO j FROM umbel.joins t WHERE t.flow = p_flow AND t.number = p_join AND umbel.lives(p_flow) FOR UPDATE;
    IF NOT FOUND OR j.decider IS NOT NULL THEN
        RETURN NULL;
    END IF;
    SELECT position INTO v_position FROM umbel.grown t WHERE t.flow = p_flow AND t.number = p_join AND t.name = p_name;
    IF FOUND THEN
        RETURN v_position;
    END IF;
    INSERT INTO umbel.grown (flow, number, name, position) VALUES (p_flow, p_join, p_name, j.size);
    UPDATE umbel.joins t SET size = j.size + p_by WHERE t.flow = p_flow AND t.number = p_join;
    RETURN j.size;
END $$;

-- Returns the numbers, from 1, of those that are bound to their copy.
CREATE FUNCTION umbel.bind(p_id text[], p_copy text[], p_seconds double precision) RETURNS integer[] LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off AS $$
DECLARE
    r record;
    v_now double precision := umbel.clock();
    v_bound integer[] := '{}';
BEGIN
    FOR r IN SELECT * FROM unnest(p_id, p_copy) WITH ORDINALITY AS u (id, copy, n) ORDER BY u.id, u.n LOOP
        INSERT INTO umbel.bound AS b (id, copy, expires) VALUES (r.id, r.copy, v_now + p_seconds)
        ON CONFLICT (id) DO UPDATE SET copy = excluded.copy, expires = excluded.expires
        WHERE b.copy = excluded.copy OR b.expires <= v_now;
        IF FOUND THEN
            v_bound := v_bound || r.n::integer;
        END IF;
    END LOOP;
    RETURN v_bound;
END $$;

CREATE FUNCTION umbel.forget_flows(p_flows text[]) RETURNS void LANGUAGE plpgsql SET lock_timeout TO '1500ms' AS $$
BEGIN
    PERFORM FROM umbel.flows WHERE id = ANY (p_flows) ORDER BY id FOR UPDATE;
    PERFORM umbel.empty(p_flows);
    DELETE FROM umbel.flows WHERE id = ANY (p_flows);
END $$;

-- Deletes what has expired, at most p_limit flows, bindings and documents each; returns how many.
CREATE FUNCTION umbel.prune_flows(p_limit integer) RETURNS bigint LANGUAGE plpgsql
SET lock_timeout TO '1500ms' SET enable_seqscan TO off SET jit TO off AS $$
DECLARE
    v_now double precision := umbel.clock();
    v_flows text[];
    v_bound bigint;
    v_groups bigint;
BEGIN
    v_flows := ARRAY(SELECT id FROM umbel.flows WHERE expires <= v_now ORDER BY expires LIMIT p_limit FOR UPDATE SKIP LOCKED);
    PERFORM umbel.empty(v_flows);
    DELETE FROM umbel.flows WHERE id = ANY (v_flows);
    DELETE FROM umbel.bound WHERE id IN (
        SELECT id FROM umbel.bound WHERE expires <= v_now ORDER BY expires LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_bound = ROW_COUNT;
    DELETE FROM umbel.groups WHERE id IN (
        SELECT id FROM umbel.groups WHERE expires <= v_now ORDER BY expires LIMIT p_limit FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS v_groups = ROW_COUNT;
    RETURN cardinality(v_flows) + v_bound + v_groups;
END $$;
