# ruff: noqa: S608 - what is joined here are constants
"""The SQL of the broker. `place = <number>` stands in each text, as SQLite takes a partial index only for a constant."""

from typing import Final

PUBLISH: Final = "INSERT INTO umbel_messages (queue, place, priority, due, id, raw) VALUES (?, ?, ?, ?, ?, ?)"
REMEMBER: Final = """
INSERT INTO umbel_once (queue, key, expires) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET expires = excluded.expires WHERE expires <= ?"""
FORGET_KEYS: Final = "DELETE FROM umbel_once WHERE (queue, key) IN (SELECT queue, key FROM umbel_once WHERE expires <= ? LIMIT ?)"

JOIN: Final = """
INSERT INTO umbel_owners (queue, name, expires) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET expires = excluded.expires WHERE NOT reaped"""
RENEW: Final = "UPDATE umbel_owners SET expires = ? WHERE queue = ? AND name = ? AND NOT reaped"
OWNER: Final = "SELECT seq FROM umbel_owners WHERE queue = ? AND name = ? AND NOT reaped"
SET_SEQ: Final = "UPDATE umbel_owners SET seq = ? WHERE queue = ? AND name = ?"
REMOVE_OWNER: Final = "DELETE FROM umbel_owners WHERE queue = ? AND name = ?"
LAPSED: Final = (
    "SELECT name FROM umbel_owners WHERE queue = ? AND name != ? AND (reaped OR expires <= ?) ORDER BY reaped DESC, expires LIMIT 2"
)
REAP: Final = "UPDATE umbel_owners SET reaped = 1 WHERE queue = ? AND name = ?"

NEXT_FENCE: Final = "UPDATE umbel_meta SET value = value + 1 WHERE name = 'fence' RETURNING value"
CLAIM: Final = """
UPDATE umbel_messages SET place = 2, owner = ?, seq = ?, fence = ?, started = 0
WHERE position IN (SELECT position FROM umbel_messages WHERE queue = ? AND place = 0 ORDER BY priority, position LIMIT ?)"""
READY_SIZES: Final = "SELECT length(raw) FROM umbel_messages WHERE queue = ? AND place = 0 ORDER BY priority, position LIMIT ?"
CLAIMED: Final = """
SELECT position, fence, attempts, suspect, raw FROM umbel_messages
WHERE queue = ? AND place = 2 AND owner = ? AND seq = ? ORDER BY priority, position"""
COUNT_CLAIMED: Final = "SELECT count(*) FROM umbel_messages WHERE queue = ? AND place = 2 AND owner = ?"
CLAIMED_SIZES: Final = """
SELECT length(raw) FROM umbel_messages WHERE queue = ? AND place = 2 AND owner = ? ORDER BY priority, position LIMIT ?"""
TAKE_OVER: Final = """
UPDATE umbel_messages
SET owner = ?, seq = 0, fence = ?, attempts = attempts + started, suspect = NOT started, started = 0
WHERE position IN (
    SELECT position FROM umbel_messages WHERE queue = ? AND place = 2 AND owner = ? ORDER BY priority, position LIMIT ?)"""
TAKEN: Final = """
SELECT position, fence, attempts, suspect, raw FROM umbel_messages
WHERE queue = ? AND place = 2 AND owner = ? AND seq = 0 AND fence = ? ORDER BY priority, position"""
LEAVE: Final = """
UPDATE umbel_messages SET place = 0, owner = NULL, seq = NULL, started = 0 WHERE queue = ? AND place = 2 AND owner = ?"""

# A claim is held while this finds it: its position may have been used again, its fence never is.
HELD = "WHERE position = ? AND fence = ? AND owner = ? AND queue = ? AND place = 2"
ACK: Final = f"DELETE FROM umbel_messages {HELD}"
GIVE_BACK: Final = f"UPDATE umbel_messages SET place = 0, owner = NULL, seq = NULL, started = 0, attempts = ?, suspect = ? {HELD}"
PUT_AWAY: Final = f"UPDATE umbel_messages SET place = ?, owner = NULL, seq = NULL, reason = ?, evidence = ?, at = ? {HELD}"
DELAY: Final = f"UPDATE umbel_messages SET place = 1, owner = NULL, seq = NULL, started = 0, due = ?, raw = coalesce(?, raw) {HELD}"
MARK_STARTED: Final = f"UPDATE umbel_messages SET started = 1 {HELD}"

REVOKED_MARK: Final = "SELECT value FROM umbel_meta WHERE name = 'revoked'"
NEXT_REVOKED_MARK: Final = "UPDATE umbel_meta SET value = value + 1 WHERE name = 'revoked' RETURNING value"
REVOKE: Final = """
INSERT INTO umbel_revoked (id, mark, expires, signal) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET mark = excluded.mark, expires = max(expires, excluded.expires),
    signal = CASE excluded.signal WHEN '' THEN signal ELSE excluded.signal END"""
REVOKED_SINCE: Final = "SELECT id, expires, signal FROM umbel_revoked WHERE mark > ? AND expires > ? ORDER BY mark"
FORGET_REVOKED: Final = "DELETE FROM umbel_revoked WHERE id IN (SELECT id FROM umbel_revoked WHERE expires <= ? LIMIT ?)"

COUNT: Final = """
INSERT INTO umbel_tallies (minute, queue, tally, count) VALUES (?, ?, ?, ?)
ON CONFLICT (minute, queue, tally) DO UPDATE SET count = count + excluded.count"""
TALLIES: Final = "SELECT minute, tally, count FROM umbel_tallies WHERE minute >= ? AND queue = ? ORDER BY minute, tally"
FORGET_TALLIES: Final = """
DELETE FROM umbel_tallies WHERE (minute, queue, tally) IN (SELECT minute, queue, tally FROM umbel_tallies WHERE minute <= ? LIMIT ?)"""

ANY_READY: Final = "SELECT EXISTS (SELECT 1 FROM umbel_messages WHERE queue = ? AND place = 0)"
NEXT_DUE: Final = "SELECT min(due) FROM umbel_messages WHERE queue = ? AND place = 1"
DUE: Final = "SELECT position FROM umbel_messages WHERE queue = ? AND place = 1 AND due <= ? ORDER BY due, position LIMIT ?"
TO_TAIL: Final = """
UPDATE umbel_messages SET place = 0, due = NULL, position = (SELECT max(position) + 1 FROM umbel_messages) WHERE position = ?"""

DEPTH: Final = """
SELECT (SELECT count(*) FROM umbel_messages WHERE queue = ?1 AND place = 0),
       (SELECT count(*) FROM umbel_messages WHERE queue = ?1 AND place = 1),
       (SELECT count(*) FROM umbel_messages WHERE queue = ?1 AND place = 2),
       (SELECT count(*) FROM umbel_messages WHERE queue = ?1 AND place = 3),
       (SELECT count(*) FROM umbel_messages WHERE queue = ?1 AND place = 4)"""
LAST_POSITION: Final = "SELECT max(position) FROM umbel_messages"
PURGE_READY: Final = """
DELETE FROM umbel_messages WHERE position IN (
    SELECT position FROM umbel_messages WHERE queue = ? AND place = 0 AND position <= ? LIMIT ?)"""
PURGE_DELAYED: Final = """
DELETE FROM umbel_messages WHERE position IN (
    SELECT position FROM umbel_messages WHERE queue = ? AND place = 1 AND position <= ? LIMIT ?)"""

# Letters are named by their position and time; the position may have been used again, the two together are not.
LETTER = "SELECT position, id, raw, reason, evidence, at FROM umbel_messages"
DEAD: Final = f"{LETTER} WHERE queue = ? AND place = 4 AND (at, position) < (?, ?) ORDER BY at DESC, position DESC LIMIT ?"
PARKED: Final = f"{LETTER} WHERE queue = ? AND place = 3 AND (at, position) > (?, ?) ORDER BY at, position LIMIT ?"
# Of one id: by its own index, which SQLite would not choose; it is one of `place >= 3`, and taken only where these words stand.
LETTER_OF = f"{LETTER} INDEXED BY umbel_put_away WHERE queue = ? AND place >= 3"
DEAD_OF: Final = f"{LETTER_OF} AND place = 4 AND (at, position) < (?, ?) AND id = ? ORDER BY at DESC, position DESC LIMIT ?"
PARKED_OF: Final = f"{LETTER_OF} AND place = 3 AND (at, position) > (?, ?) AND id = ? ORDER BY at, position LIMIT ?"
ANY_PARKED: Final = "SELECT EXISTS (SELECT 1 FROM umbel_messages WHERE queue = ? AND place = 3)"
PARKED_FOR: Final = "SELECT EXISTS (SELECT 1 FROM umbel_messages WHERE queue = ? AND place = 3 AND reason = ?)"
PARKED_SIZES: Final = """
SELECT length(raw) FROM umbel_messages WHERE queue = ? AND place = 3 AND reason = ? ORDER BY at, position LIMIT ?"""
CLAIM_PARKED: Final = """
UPDATE umbel_messages SET place = 2, owner = ?, seq = ?, fence = ?, started = 0
WHERE position IN (SELECT position FROM umbel_messages WHERE queue = ? AND place = 3 AND reason = ? ORDER BY at, position LIMIT ?)"""
THERE = "WHERE position = ? AND at = ? AND queue = ? AND place = ?"
REQUEUE: Final = f"""
UPDATE umbel_messages SET place = 0, due = NULL, attempts = 0, suspect = 0, started = 0, reason = NULL, evidence = NULL, at = NULL,
    position = (SELECT max(position) + 1 FROM umbel_messages) {THERE}"""
DISCARD: Final = f"DELETE FROM umbel_messages {THERE}"
