-- Whether a session lives, when the first lease ends, and whether a run, or one of its steps, holds or
-- waits.
-- name: at_a_glance
SELECT EXISTS (SELECT 1 FROM lifeguard_sessions WHERE session = :session AND lease_until > 0),
  (SELECT min(lease_until) FROM lifeguard_sessions),
  EXISTS (SELECT 1 FROM lifeguard_holdings
          WHERE run_id = :run_id AND (:step_key IS NULL OR step_key = :step_key)),
  EXISTS (SELECT 1 FROM lifeguard_tickets
          WHERE run_id = :run_id AND (:step_key IS NULL OR step_key = :step_key));

-- What is set of a pool: its lasting limit in Dagster's table, and the rest.
-- part: settings
l."limit", p.rate_starts, p.rate_seconds, p.rate_burst, p.fair_by,
  p.temporary_limit, p.temporary_until;

-- name: pool
SELECT EXISTS (SELECT 1 FROM lifeguard_queue q WHERE q.pool = p.pool),
  p.fence, p.limit_known, p.due_ns, p.turn, {settings}
FROM lifeguard_pools p
LEFT JOIN concurrency_limits l ON l.concurrency_key = p.pool AND l.using_default_limit IS NOT TRUE
WHERE p.pool = ?;

-- name: add_pool
INSERT INTO lifeguard_pools (pool) VALUES (?) ON CONFLICT (pool) DO NOTHING;

-- name: taken
SELECT slot_no FROM lifeguard_holdings WHERE pool = ?;

-- How many slots those ask for whom the limit is large enough. From size to size along the index,
-- whatever there is of each.
-- name: sizes
WITH RECURSIVE sizes (slots) AS (
  SELECT min(slots) FROM lifeguard_queue WHERE pool = :pool AND queued = 1 AND "group" IS NULL
  UNION ALL
  SELECT (SELECT min(q.slots) FROM lifeguard_queue q
          WHERE q.pool = :pool AND q.queued = 1 AND q."group" IS NULL AND q.slots > sizes.slots)
  FROM sizes WHERE sizes.slots < :most
)
SELECT slots FROM sizes WHERE slots <= :most;

-- name: sizes_of_lines
WITH RECURSIVE sizes (slots) AS (
  SELECT min(slots) FROM lifeguard_lines WHERE pool = :pool
  UNION ALL
  SELECT (SELECT min(i.slots) FROM lifeguard_lines i
          WHERE i.pool = :pool AND i.slots > sizes.slots)
  FROM sizes WHERE sizes.slots < :most
)
SELECT slots FROM sizes WHERE slots <= :most;

-- The best-ranked live waiters of one size. CROSS JOIN pins the order: along the index, rank by
-- rank.
-- name: queue_of_size
SELECT q.number, q.priority, q.slots, t.since, t.run_id, t.step_key, t.session
FROM lifeguard_queue q
CROSS JOIN lifeguard_tickets t ON t.number = q.number
CROSS JOIN lifeguard_sessions s ON s.session = t.session
WHERE q.pool = :pool AND q.queued = 1 AND q."group" IS NULL AND q.slots = :slots
  AND s.lease_until > :now
ORDER BY q.priority DESC, q.number
LIMIT :count;

-- The first live one of each group, of those that ask for so many slots. From line to line along the
-- index; what a line is ranked by may be out of date by what died.
-- name: heads
SELECT i.begins, q.number, q.priority, q.slots, t.since, t.run_id, t.step_key, t.session, q."group"
FROM lifeguard_lines i
CROSS JOIN lifeguard_queue q ON q.pool = i.pool AND q.number = (
  SELECT w.number
  FROM lifeguard_queue w
  CROSS JOIN lifeguard_tickets u ON u.number = w.number
  CROSS JOIN lifeguard_sessions s ON s.session = u.session
  WHERE w.pool = i.pool AND w.queued = 1 AND w."group" = i."group" AND w.slots = i.slots
    AND s.lease_until > :now
  ORDER BY w.priority DESC, w.number LIMIT 1)
CROSS JOIN lifeguard_tickets t ON t.number = q.number
WHERE i.pool = :pool AND i.slots = :slots
ORDER BY i.priority DESC, i.held, i.begins, i.number
LIMIT :count;

-- name: sizes_of_group
SELECT slots FROM lifeguard_lines WHERE pool = :pool AND "group" = :group AND slots <= :most;

-- name: queue_of_line
SELECT q.number, q.priority, q.slots, t.since, t.run_id, t.step_key, t.session, q."group"
FROM lifeguard_queue q
CROSS JOIN lifeguard_tickets t ON t.number = q.number
CROSS JOIN lifeguard_sessions s ON s.session = t.session
WHERE q.pool = :pool AND q.queued = 1 AND q."group" = :group AND q.slots = :slots
  AND s.lease_until > :now
ORDER BY q.priority DESC, q.number
LIMIT :count;

-- name: turn_of_group
SELECT begins FROM lifeguard_groups WHERE pool = ? AND "group" = ?;

-- name: turns
SELECT "group", begins FROM lifeguard_groups WHERE pool = ?;

-- name: holders
SELECT slot_no, coalesce("group", '') FROM lifeguard_holdings WHERE pool = ?;

-- A held slot, with the sessions that own it.
-- part: holding
h.pool, h.slot_no, h.run_id, h.step_key, h.fence, h.priority, h.since,
  (SELECT group_concat(w.session) FROM lifeguard_owners w
   WHERE w.run_id = h.run_id AND w.step_key = h.step_key);

-- name: holdings_of_step
SELECT {holding}
FROM lifeguard_holdings h WHERE h.run_id = :run_id AND h.step_key = :step_key
ORDER BY h.pool, h.slot_no;

-- name: holdings_of_run
SELECT {holding}
FROM lifeguard_holdings h WHERE h.run_id = :run_id
ORDER BY h.run_id, h.step_key, h.pool, h.slot_no;

-- name: holdings_of_session
SELECT {holding}
FROM lifeguard_owners o
JOIN lifeguard_holdings h ON h.run_id = o.run_id AND h.step_key = o.step_key
WHERE o.session = :session
ORDER BY h.run_id, h.step_key, h.pool, h.slot_no;

-- name: holdings_of_pool
SELECT {holding}
FROM lifeguard_holdings h WHERE h.pool = :pool
ORDER BY h.fence, h.run_id, h.step_key, h.slot_no;

-- name: tickets_of_step
SELECT number, run_id, step_key, priority, demand, session, since
FROM lifeguard_tickets WHERE run_id = :run_id AND step_key = :step_key;

-- name: tickets_of_run
SELECT number, run_id, step_key, priority, demand, session, since
FROM lifeguard_tickets WHERE run_id = :run_id ORDER BY number;

-- name: tickets_of_session
SELECT number, run_id, step_key, priority, demand, session, since
FROM lifeguard_tickets WHERE session = :session ORDER BY number LIMIT {ending_tickets};

-- name: tickets_of_pool
SELECT t.number, t.run_id, t.step_key, t.priority, t.demand, t.session, t.since
FROM lifeguard_queue q JOIN lifeguard_tickets t ON t.number = q.number
WHERE q.pool = :pool ORDER BY q.priority DESC, q.number;

-- name: groups_of_tickets
SELECT number, "group" FROM lifeguard_queue WHERE pool = ? AND "group" IS NOT NULL;

-- name: queued_at
SELECT pool FROM lifeguard_queue WHERE number = ? AND queued = 1 ORDER BY pool;

-- name: ending_session
SELECT lease_until FROM lifeguard_sessions WHERE session = ?;

-- name: add_ticket
INSERT INTO lifeguard_tickets (run_id, step_key, priority, demand, session, since)
VALUES (?, ?, ?, ?, ?, ?);

-- name: add_to_queue
INSERT INTO lifeguard_queue (pool, number, priority, slots, queued) VALUES (?, ?, ?, ?, ?);

-- name: requeue
UPDATE lifeguard_queue SET queued = ? WHERE pool = ? AND number = ?;

-- name: hand_ticket
UPDATE lifeguard_tickets SET session = ? WHERE number = ?;

-- name: drop_ticket
DELETE FROM lifeguard_tickets WHERE number = ?;

-- name: drop_from_queue
DELETE FROM lifeguard_queue WHERE number = ?;

-- name: add_holding
INSERT INTO lifeguard_holdings (pool, slot_no, run_id, step_key, fence, priority, since)
VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: raise_fence
UPDATE lifeguard_pools SET fence = ? WHERE pool = ?;

-- name: add_owner
INSERT INTO lifeguard_owners (run_id, step_key, session) VALUES (?, ?, ?);

-- name: adopt
INSERT INTO lifeguard_owners (run_id, step_key, session, executes) VALUES (?, ?, ?, ?);

-- Before its owners go.
-- name: lose
UPDATE lifeguard_holdings
SET lost = (SELECT label FROM lifeguard_sessions WHERE session = :session)
WHERE (run_id, step_key) IN (
  SELECT run_id, step_key FROM lifeguard_owners WHERE session = :session AND executes);

-- name: drop_owner
DELETE FROM lifeguard_owners WHERE run_id = ? AND step_key = ? AND session = ?;

-- name: drop_holding
DELETE FROM lifeguard_holdings WHERE run_id = ? AND step_key = ?;

-- name: drop_owners
DELETE FROM lifeguard_owners WHERE run_id = ? AND step_key = ?;

-- name: drop_owner_session
DELETE FROM lifeguard_owners WHERE session = ?;

-- name: drop_session
DELETE FROM lifeguard_sessions WHERE session = :session
  AND NOT EXISTS (SELECT 1 FROM lifeguard_tickets WHERE session = :session);

-- name: revoke_session
UPDATE lifeguard_sessions SET lease_until = 0 WHERE session = :session;

-- name: set_limit
INSERT INTO concurrency_limits (concurrency_key, "limit", using_default_limit)
VALUES (:pool, :limit, FALSE)
ON CONFLICT (concurrency_key)
DO UPDATE SET "limit" = excluded."limit", using_default_limit = FALSE;

-- name: delete_limit
DELETE FROM concurrency_limits WHERE concurrency_key = :pool;

-- name: know_limit
UPDATE lifeguard_pools SET limit_known = :limit WHERE pool = :pool;

-- name: set_settings
UPDATE lifeguard_pools SET rate_starts = :rate_starts, rate_seconds = :rate_seconds,
  rate_burst = :rate_burst, fair_by = :fair_by,
  temporary_limit = :temporary_limit, temporary_until = :temporary_until
WHERE pool = :pool;

-- Nobody's group by one tag says anything about another.
-- name: regroup_queue
UPDATE lifeguard_queue SET "group" = :group WHERE pool = :pool;

-- name: regroup_holdings
UPDATE lifeguard_holdings SET "group" = :group WHERE pool = :pool;

-- name: drop_groups
DELETE FROM lifeguard_groups WHERE pool = :pool;

-- name: set_group
UPDATE lifeguard_queue SET "group" = :group WHERE pool = :pool AND number =
  (SELECT number FROM lifeguard_tickets WHERE run_id = :run_id AND step_key = :step_key);

-- name: set_group_of_holder
UPDATE lifeguard_holdings SET "group" = :group
WHERE pool = :pool AND run_id = :run_id AND step_key = :step_key;

-- name: set_turn_of_group
INSERT INTO lifeguard_groups (pool, "group", begins) VALUES (:pool, :group, :begins)
ON CONFLICT (pool, "group") DO UPDATE SET begins = excluded.begins;

-- name: set_turn
UPDATE lifeguard_pools SET turn = :turn WHERE pool = :pool;

-- name: forget_turns
DELETE FROM lifeguard_groups WHERE pool = :pool AND in_line = 0 AND begins <= :turn;

-- name: set_due
UPDATE lifeguard_pools SET due_ns = ? WHERE pool = ?;

-- name: all_settings
SELECT l.concurrency_key, {settings}
FROM concurrency_limits l LEFT JOIN lifeguard_pools p ON p.pool = l.concurrency_key
WHERE l.using_default_limit IS NOT TRUE
UNION ALL
SELECT p.pool, {settings}
FROM lifeguard_pools p
LEFT JOIN concurrency_limits l ON l.concurrency_key = p.pool AND l.using_default_limit IS NOT TRUE
WHERE (p.rate_starts IS NOT NULL OR p.fair_by IS NOT NULL OR p.temporary_until IS NOT NULL)
  AND l.concurrency_key IS NULL;

-- name: settings_of_pool
SELECT p.due_ns, p.turn, {settings}
FROM (SELECT ? AS pool) asked
LEFT JOIN concurrency_limits l
  ON l.concurrency_key = asked.pool AND l.using_default_limit IS NOT TRUE
LEFT JOIN lifeguard_pools p ON p.pool = asked.pool;

-- name: add_entry
INSERT INTO lifeguard_ledger
  (at, kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", detail)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: wake
UPDATE lifeguard_tickets SET wakes = wakes + 1 WHERE number = ?;

-- name: wakes
SELECT number, run_id, step_key, wakes FROM lifeguard_tickets WHERE session = ? AND wakes > 0;

-- name: open_session
INSERT INTO lifeguard_sessions (session, label, started_at, lease_until, package, tables)
SELECT :session, :label, :now, :now + :lease, :package, :tables
FROM lifeguard_schema WHERE usable_from <= :tables;

-- name: heartbeat
UPDATE lifeguard_sessions SET lease_until = ? WHERE session = ? AND lease_until > 0;

-- name: expired_sessions
SELECT session FROM lifeguard_sessions WHERE lease_until <= ? ORDER BY lease_until LIMIT ?;

-- name: revoke_expired
UPDATE lifeguard_sessions SET lease_until = 0 WHERE session IN (
  SELECT s.session FROM lifeguard_sessions s
  WHERE s.lease_until > 0 AND s.lease_until <= :now
    AND NOT EXISTS (SELECT 1 FROM lifeguard_owners o WHERE o.session = s.session)
  ORDER BY s.lease_until LIMIT :count);

-- name: dead_tickets
SELECT t.number FROM lifeguard_sessions s CROSS JOIN lifeguard_tickets t ON t.session = s.session
WHERE s.lease_until = 0 LIMIT :count;

-- name: drop_dead_sessions
DELETE FROM lifeguard_sessions WHERE session IN (
  SELECT s.session FROM lifeguard_sessions s WHERE s.lease_until = 0
    AND NOT EXISTS (SELECT 1 FROM lifeguard_tickets t WHERE t.session = s.session)
    AND NOT EXISTS (SELECT 1 FROM lifeguard_owners o WHERE o.session = s.session)
  LIMIT :count);

-- name: holders_over
SELECT DISTINCT o.session
FROM lifeguard_holdings h
CROSS JOIN lifeguard_owners o ON o.run_id = h.run_id AND o.step_key = h.step_key
CROSS JOIN lifeguard_sessions s ON s.session = o.session
WHERE h.pool = :pool AND s.lease_until <= :now
LIMIT :count;

-- name: revoked_sessions
SELECT session FROM lifeguard_sessions WHERE lease_until = 0;

-- name: expired_entry
SELECT 1 FROM lifeguard_ledger WHERE run_id = ? AND step_key = ? AND kind = 'expired' LIMIT 1;

-- name: busy_pools
SELECT pool FROM lifeguard_holdings UNION SELECT pool FROM lifeguard_queue ORDER BY pool;

-- What the next claim will take back, found by the index of leases: this costs as much as died.
-- part: expired
SELECT session FROM lifeguard_sessions WHERE lease_until <= :now;

-- name: over_tickets
SELECT number FROM lifeguard_tickets WHERE session IN ({expired});

-- name: over_holdings
SELECT o.run_id, o.step_key FROM lifeguard_owners o
WHERE o.session IN ({expired}) AND NOT EXISTS (
  SELECT 1 FROM lifeguard_owners w
  WHERE w.run_id = o.run_id AND w.step_key = o.step_key AND w.session NOT IN ({expired}));

-- The processes that executed steps and are dead, where another owner keeps the holding.
-- name: lost_steps
SELECT h.run_id, h.step_key, h.lost FROM lifeguard_holdings h
WHERE h.lost IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM lifeguard_owners w
  WHERE w.run_id = h.run_id AND w.step_key = h.step_key AND w.executes
    AND w.session NOT IN ({expired}))
UNION
SELECT o.run_id, o.step_key, s.label FROM lifeguard_sessions s
JOIN lifeguard_owners o ON o.session = s.session
WHERE s.lease_until <= :now AND o.executes AND NOT EXISTS (
  SELECT 1 FROM lifeguard_owners w
  WHERE w.run_id = o.run_id AND w.step_key = o.step_key AND w.executes
    AND w.session NOT IN ({expired}));

-- name: busy_pools_without_over
SELECT pool FROM lifeguard_holdings WHERE (run_id, step_key) NOT IN ({over_holdings})
UNION SELECT pool FROM lifeguard_queue WHERE number NOT IN ({over_tickets}) ORDER BY pool;

-- name: run_ids
SELECT run_id FROM lifeguard_holdings WHERE (run_id, step_key) NOT IN ({over_holdings})
UNION SELECT run_id FROM lifeguard_tickets WHERE number NOT IN ({over_tickets});

-- name: ledger
SELECT kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", at, detail, entry
FROM lifeguard_ledger ORDER BY entry DESC LIMIT :count;

-- name: ledger_of_pool
SELECT kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", at, detail, entry
FROM lifeguard_ledger WHERE pool = :pool ORDER BY entry DESC LIMIT :count;

-- name: entries
SELECT kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", at, detail, entry
FROM lifeguard_ledger
WHERE entry > :after AND at >= :since AND (:kind IS NULL OR kind = :kind)
ORDER BY entry LIMIT :count;

-- name: entries_of_pool
SELECT kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", at, detail, entry
FROM lifeguard_ledger
WHERE pool = :pool AND entry > :after AND at >= :since AND (:kind IS NULL OR kind = :kind)
ORDER BY entry LIMIT :count;

-- What was held when the number was given: what ended since then or is held now, without the grants
-- since then, whose fences are larger than all before them in their pool.
-- name: held_at
WITH first AS (
  SELECT pool, min(fence) AS fence FROM lifeguard_ledger
  WHERE kind = 'granted' AND entry >= :number AND (:pool IS NULL OR pool = :pool)
  GROUP BY pool
), held AS (
  SELECT pool, run_id, step_key, slots, fence, session, at - seconds AS since
  FROM lifeguard_ledger
  WHERE kind IN ('released', 'expired') AND entry >= :number AND (:pool IS NULL OR pool = :pool)
  UNION ALL
  SELECT pool, run_id, step_key, count(*), fence, '', since
  FROM lifeguard_holdings WHERE :pool IS NULL OR pool = :pool
  GROUP BY pool, run_id, step_key, fence, since
)
SELECT 'granted', held.pool, run_id, step_key, slots, held.fence, session, NULL, NULL, since
FROM held LEFT JOIN first ON first.pool = held.pool
WHERE first.fence IS NULL OR held.fence < first.fence
ORDER BY held.pool, held.fence;

-- The oldest rows come first in the table, so this looks at no more than it deletes, and one.
-- name: trim_ledger
DELETE FROM lifeguard_ledger WHERE entry IN (
  SELECT entry FROM (
    SELECT entry, max(at) OVER (ORDER BY entry) AS newest
    FROM (SELECT entry, at FROM lifeguard_ledger ORDER BY entry LIMIT :count))
  WHERE newest < :before
);
