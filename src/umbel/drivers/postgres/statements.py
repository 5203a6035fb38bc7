# ruff: noqa: S608 - what is joined here are constants
"""The SQL of the broker. `umbel.` stands for the schema; what has several steps is a function in `migrations/`."""

from typing import Final

PUBLISH: Final = "SELECT umbel.publish(%s::text[], %s::smallint[], %s::double precision[], %s::text[], %b::bytea[])"
# The same for a connection of the caller's, whose library may know only this one kind of placeholder.
PUBLISH_USING: Final = PUBLISH.replace("%b", "%s")
PUBLISH_ONCE: Final = PUBLISH.replace("publish(", "publish_once(").replace("%b::bytea[]", "%b::bytea[], %s::text[], %s::double precision[]")
PUBLISH_ONCE_USING: Final = PUBLISH_ONCE.replace("%b", "%s")

JOIN: Final = "SELECT umbel.enter(%s, %s::text[], %s)"
RENEW: Final = "SELECT umbel.renew(%s, %s::text[], %s)"
LEAVE: Final = "SELECT umbel.leave(%s, %s::text[])"

SETTLE_CALL = """umbel.settle(
    %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[],
    %s::integer[], %s::integer[], %s::boolean[], %s::double precision[], %s::text[], %b::bytea[], %b::bytea[],
    %s::integer[], %s::text[], %s::smallint[], %s::double precision[], %s::text[], %b::bytea[],
    %s::integer[], %s::text[], %s::text[], %s::bigint[], %s::double precision[], %b::bytea[],
    %s::integer[], %s::text[])"""
SETTLE: Final = f"SELECT {SETTLE_CALL}"
FETCH_ARGUMENTS = "%s, %s, %s, %s::integer, %s, %s::text[], %s, %s, %s::double precision, %s::smallint, %s"
FETCHED = "o_position, o_owner, o_fence, o_attempts, o_suspect, o_priority, o_raw, o_mark, o_took"
# Binary, as most of it is bytes, which as text would be twice as long.
FETCH: Final = f"SELECT {FETCHED} FROM umbel.fetch(NULL, {FETCH_ARGUMENTS})"
# The claim depends on what is settled, so that it comes after.
SETTLE_AND_FETCH: Final = (
    f"SELECT {FETCHED} FROM (SELECT {SETTLE_CALL} AS done OFFSET 0) s CROSS JOIN LATERAL umbel.fetch(s.done, {FETCH_ARGUMENTS})"
)
MARK_STARTED: Final = "SELECT umbel.mark_started(%s, %s, %s, %s)"

LAPSED: Final = "SELECT o_known, o_lapsed, o_now FROM umbel.lapsed(%s, %s)"
RECOVER: Final = """
SELECT o_position, o_owner, o_fence, o_attempts, o_suspect, o_priority, o_raw, o_more FROM umbel.recover(%s, %s, %s, %s::integer, %s, %s)"""

PROMOTE: Final = "SELECT umbel.promote(%s, %s::integer, '-Infinity')"
NEXT_DUE: Final = "SELECT due FROM umbel.delayed WHERE queue = %s ORDER BY due LIMIT 1"
DUE_IN: Final = "SELECT umbel.due_in(%s::text[], %s)"

# Bytes after which a slot is left; how many rows, of how many bytes, may be carried over.
TURNS: Final = (
    "SELECT umbel.turn('ready', 16777216, 2000, 1048576)",
    "SELECT umbel.turn('claimed', 16777216, 2000, 1048576)",
    "SELECT umbel.turn('counts', 1048576, 0, 0)",
    "SELECT umbel.sweep()",
)

DEPTH: Final = """
SELECT q, (SELECT count(*) FROM umbel.ready WHERE queue = q), (SELECT count(*) FROM umbel.delayed WHERE queue = q),
    (SELECT count(*) FROM umbel.claimed c WHERE c.owner IN (SELECT number FROM umbel.owners WHERE queue = q)),
    (SELECT count(*) FROM umbel.letters WHERE queue = q AND place = 3), (SELECT count(*) FROM umbel.letters WHERE queue = q AND place = 4)
FROM unnest(%s::text[]) q"""

# In steps, each of which is short; what comes after the last position is not waited for.
LAST_POSITION: Final = "SELECT last_value FROM umbel.positions"
PURGE_READY: Final = """
WITH picked AS MATERIALIZED (
    SELECT slot, queue, priority, position FROM umbel.ready WHERE queue = %s AND position <= %s LIMIT %s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM umbel.ready r USING picked s
    WHERE r.slot = s.slot AND r.queue = s.queue AND r.priority = s.priority AND r.position = s.position RETURNING 1)
SELECT count(*) FROM gone"""
PURGE_DELAYED: Final = """
WITH picked AS MATERIALIZED (
    SELECT queue, due, position FROM umbel.delayed WHERE queue = %s AND position <= %s LIMIT %s FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM umbel.delayed d USING picked s WHERE d.queue = s.queue AND d.due = s.due AND d.position = s.position RETURNING 1)
SELECT count(*) FROM gone"""

LETTER = "SELECT number, id, raw, reason, evidence, at FROM umbel.letters WHERE queue = %s AND place ="
DEAD: Final = f"{LETTER} 4 AND number < %s ORDER BY number DESC LIMIT %s"
PARKED: Final = f"{LETTER} 3 AND number > %s ORDER BY number LIMIT %s"
DEAD_OF: Final = f"{LETTER} 4 AND number < %s AND id = %s ORDER BY number DESC LIMIT %s"
PARKED_OF: Final = f"{LETTER} 3 AND number > %s AND id = %s ORDER BY number LIMIT %s"
PARKED_FOR: Final = """
SELECT task FROM unnest(%s::text[]) task
WHERE EXISTS (SELECT FROM umbel.letters WHERE queue = %s AND place = 3)
    AND EXISTS (SELECT FROM umbel.letters WHERE queue = %s AND place = 3 AND md5(reason) = md5(task) AND reason = task)"""
REQUEUE: Final = "SELECT umbel.requeue(%s::bigint[], %s::text[], %s::smallint[])"
DISCARD: Final = "SELECT umbel.discard(%s::bigint[], %s::text[], %s::smallint[])"

REVOKE: Final = "SELECT umbel.revoke(%s::text[], %s, %s)"
REVOKED_SINCE: Final = "SELECT o_mark, o_id, o_expires, o_signal FROM umbel.revoked_since(%s)"

COUNT: Final = """
INSERT INTO umbel.counts (slot, minute, queue, tally, count)
SELECT r.slot, floor(umbel.clock() / 60)::bigint * 60, %s, t.tally, t.count
FROM umbel.rings r, unnest(%s::text[], %s::bigint[]) AS t (tally, count) WHERE r.name = 'counts'"""
TALLIES: Final = "SELECT o_minute, o_tally, o_count FROM umbel.counted(%s, greatest(%s, umbel.clock() - %s))"
