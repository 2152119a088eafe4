-- Prepared once for each connection. The parts in braces are named statements of this file.

-- part: clock
SELECT extract(epoch FROM clock_timestamp())::double precision;

-- name: add_pools
INSERT INTO lifeguard_pools (pool)
SELECT pool FROM unnest($1::text[]) AS pool ORDER BY pool
ON CONFLICT (pool) DO NOTHING;

-- The session first and the pools after it, in everything that locks both. KEY SHARE lets
-- heartbeats pass, and holds off only the end of the session.
-- name: lock_session
SELECT 1 FROM lifeguard_sessions WHERE session = $1 FOR KEY SHARE;

-- Whoever ends sessions skips those that another is ending, or that are claiming at this moment.
-- name: lock_ended
SELECT session FROM lifeguard_sessions
WHERE session = ANY($1::text[]) AND (lease_until <= ({clock}) OR NOT $2::boolean)
ORDER BY session FOR UPDATE SKIP LOCKED;

-- name: lock_pools
SELECT 1 FROM lifeguard_pools WHERE pool = ANY($1::text[]) ORDER BY pool FOR UPDATE;

-- Its own statement after the locks: in READ COMMITTED a statement sees what was committed
-- before it began, and the one that waited for the locks began too early.
-- name: view_of_step
SELECT ({clock}), {state}, ({pools}),
  ({holdings} WHERE h.run_id = $3::text AND h.step_key = $4::text),
  ({tickets} WHERE t.run_id = $3::text AND t.step_key = $4::text);

-- name: view_of_run
SELECT ({clock}), {state}, ({pools}),
  ({holdings} WHERE h.run_id = $3::text),
  ({tickets} WHERE t.run_id = $3::text);

-- name: view_of_sessions
SELECT ({clock}), {state}, ({pools}),
  ({holdings} JOIN (SELECT DISTINCT run_id, step_key FROM lifeguard_owners
                    WHERE session = ANY($3::text[])) AS o
     ON o.run_id = h.run_id AND o.step_key = h.step_key),
  (SELECT json_agg(json_build_array(
     t.number, t.run_id, t.step_key, t.priority, t.demand, t.session, t.since,
     (SELECT json_agg(a.pool) FROM lifeguard_queue a WHERE a.number = t.number AND a.queued)))
   FROM (SELECT * FROM lifeguard_tickets WHERE session = ANY($3::text[])
         ORDER BY session, number LIMIT {ending_tickets}) AS t);

-- name: view_of_nothing
SELECT ({clock}), {state}, ({pools}), NULL::json, NULL::json;

-- What the next claim will take back, found by the index of leases: this costs as much as died.
-- A read waits for no lock, so its clock may stand still.
-- part: read_clock
SELECT extract(epoch FROM statement_timestamp())::double precision;

-- part: expired
SELECT session FROM lifeguard_sessions WHERE lease_until <= ({read_clock});

-- part: over_tickets
SELECT number FROM lifeguard_tickets WHERE session IN ({expired});

-- part: over_holdings
SELECT o.run_id, o.step_key FROM lifeguard_owners o
WHERE o.session IN ({expired}) AND NOT EXISTS (
  SELECT 1 FROM lifeguard_owners w
  WHERE w.run_id = o.run_id AND w.step_key = o.step_key AND w.session NOT IN ({expired}));

-- The processes that executed steps and are dead, where another owner keeps the holding.
-- part: lost_steps
SELECT h.run_id, h.step_key, h.lost FROM lifeguard_holdings h
WHERE h.lost IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM lifeguard_owners w
  WHERE w.run_id = h.run_id AND w.step_key = h.step_key AND w.executes
    AND w.session NOT IN ({expired}))
UNION
SELECT o.run_id, o.step_key, s.label FROM lifeguard_sessions s
JOIN lifeguard_owners o ON o.session = s.session
WHERE s.lease_until <= ({read_clock}) AND o.executes AND NOT EXISTS (
  SELECT 1 FROM lifeguard_owners w
  WHERE w.run_id = o.run_id AND w.step_key = o.step_key AND w.executes
    AND w.session NOT IN ({expired}));

-- name: ticket
SELECT ({holdings} WHERE h.run_id = $1::text AND h.step_key = $2::text),
  ({tickets} WHERE t.run_id = $1::text AND t.step_key = $2::text),
  ($1::text, $2::text) IN ({over_holdings}),
  EXISTS (SELECT 1 FROM lifeguard_tickets t
          WHERE t.run_id = $1::text AND t.step_key = $2::text AND t.number IN ({over_tickets}));

-- name: snapshots
SELECT asked.pool, ({read_clock}), {settings}, p.due_ns,
  ({holdings} WHERE h.pool = asked.pool),
  ({tickets} JOIN lifeguard_queue q ON q.number = t.number WHERE q.pool = asked.pool),
  p.turn,
  CASE WHEN p.fair_by IS NOT NULL THEN
    (SELECT json_agg(json_build_array(h.slot_no, coalesce(h."group", '')))
     FROM lifeguard_holdings h WHERE h.pool = asked.pool) END,
  CASE WHEN p.fair_by IS NOT NULL THEN
    (SELECT json_agg(json_build_array(s."group", s.begins))
     FROM lifeguard_groups s WHERE s.pool = asked.pool) END,
  CASE WHEN p.fair_by IS NOT NULL THEN
    (SELECT json_agg(json_build_array(q.number, coalesce(q."group", '')))
     FROM lifeguard_queue q WHERE q.pool = asked.pool) END,
  (SELECT json_agg(json_build_array(h.run_id, h.step_key))
   FROM lifeguard_holdings h
   WHERE h.pool = asked.pool AND (h.run_id, h.step_key) IN ({over_holdings})),
  (SELECT json_agg(q.number)
   FROM lifeguard_queue q WHERE q.pool = asked.pool AND q.number IN ({over_tickets})),
  (SELECT json_agg(json_build_array(l.run_id, l.step_key, l.lost))
   FROM ({lost_steps}) AS l (run_id, step_key, lost)
   WHERE EXISTS (SELECT 1 FROM lifeguard_holdings h WHERE h.pool = asked.pool
                 AND h.run_id = l.run_id AND h.step_key = l.step_key))
FROM unnest($1::text[]) WITH ORDINALITY AS asked (pool, place)
LEFT JOIN concurrency_limits l
  ON l.concurrency_key = asked.pool AND l.using_default_limit IS NOT TRUE
LEFT JOIN lifeguard_pools p ON p.pool = asked.pool
ORDER BY asked.place;

-- What is set of a pool: its lasting limit in Dagster's table, and the rest.
-- part: settings
l."limit", p.rate_starts, p.rate_seconds, p.rate_burst, p.fair_by,
  p.temporary_limit, p.temporary_until;

-- part: state
EXISTS (SELECT 1 FROM lifeguard_sessions WHERE session = $2::text AND lease_until > 0),
(SELECT min(lease_until) FROM lifeguard_sessions);

-- The most slots that can be had of a pool at once, as far as the engine has seen its limit. A
-- temporary limit may be over; who reads the queue knows that, by the clock of the view.
-- part: most
CASE WHEN starts_with(p.pool, {all_partitions}) THEN {slots_max}
  ELSE greatest(p.temporary_limit, coalesce(l."limit", p.limit_known, {slots_max})) END;

-- Of the session of a ticket. Looked up by its key: a join may begin at all sessions that live.
-- part: lease
SELECT s.lease_until FROM lifeguard_sessions s WHERE s.session = t.session;

-- The queue is read from size to size along the index, whatever there is of each, up to the limit.
-- part: pools
SELECT json_agg(json_build_array(
  p.pool, p.fence, p.limit_known, p.due_ns, p.turn, {settings},
  (SELECT json_agg(h.slot_no) FROM lifeguard_holdings h WHERE h.pool = p.pool),
  (WITH RECURSIVE sizes (slots) AS (
     (SELECT q.slots FROM lifeguard_queue q
      WHERE q.pool = p.pool AND q.queued AND q."group" IS NULL ORDER BY q.slots LIMIT 1)
     UNION ALL
     SELECT (SELECT q.slots FROM lifeguard_queue q
             WHERE q.pool = p.pool AND q.queued AND q."group" IS NULL
               AND q.slots > sizes.slots
             ORDER BY q.slots LIMIT 1)
     FROM sizes WHERE sizes.slots < ({most}))
   SELECT json_agg(json_build_array(
     w.number, w.priority, w.slots, w.since, w.run_id, w.step_key, w.session))
   FROM sizes CROSS JOIN LATERAL (
     SELECT q.number, q.priority, q.slots, t.since, t.run_id, t.step_key, t.session
     FROM lifeguard_queue q
     JOIN lifeguard_tickets t ON t.number = q.number
     WHERE q.pool = p.pool AND q.queued AND q."group" IS NULL AND q.slots = sizes.slots
       AND ({lease}) > ({clock})
     ORDER BY q.priority DESC, q.number LIMIT {waiters_read}) AS w
   WHERE sizes.slots <= ({most}))))
FROM lifeguard_pools p
LEFT JOIN concurrency_limits l ON l.concurrency_key = p.pool AND l.using_default_limit IS NOT TRUE
WHERE p.pool = ANY($1::text[]);

-- What a pool whose order is fair needs besides: who holds, where the turn of the group that asks
-- begins, and the first live one of each of the lines that are ranked best. From line to line
-- along the index; what a line is ranked by may be out of date by what died.
-- name: heads
WITH RECURSIVE slots (most) AS (
  SELECT ({most}) FROM lifeguard_pools p
  LEFT JOIN concurrency_limits l
    ON l.concurrency_key = p.pool AND l.using_default_limit IS NOT TRUE
  WHERE p.pool = $1::text
), sizes (slots) AS (
  (SELECT i.slots FROM lifeguard_lines i WHERE i.pool = $1::text ORDER BY i.slots LIMIT 1)
  UNION ALL
  SELECT (SELECT i.slots FROM lifeguard_lines i
          WHERE i.pool = $1::text AND i.slots > sizes.slots ORDER BY i.slots LIMIT 1)
  FROM sizes WHERE sizes.slots < (SELECT slots.most FROM slots)
), heads AS (
  SELECT best.* FROM sizes CROSS JOIN LATERAL (
    SELECT i.begins, w.*, i."group" AS of_group
    FROM lifeguard_lines i CROSS JOIN LATERAL (
      SELECT q.number, q.priority, q.slots, t.since, t.run_id, t.step_key, t.session
      FROM lifeguard_queue q
      JOIN lifeguard_tickets t ON t.number = q.number
      WHERE q.pool = $1::text AND q.queued AND q."group" = i."group" AND q.slots = i.slots
        AND ({lease}) > ({clock})
      ORDER BY q.priority DESC, q.number LIMIT 1) AS w
    WHERE i.pool = $1::text AND i.slots = sizes.slots
    ORDER BY i.priority DESC, i.held, i.begins NULLS FIRST, i.number LIMIT {waiters_read}) AS best
  WHERE sizes.slots <= (SELECT slots.most FROM slots)
)
SELECT
  (SELECT json_agg(json_build_array(h.slot_no, coalesce(h."group", '')))
   FROM lifeguard_holdings h WHERE h.pool = $1::text),
  (SELECT g.begins FROM lifeguard_groups g WHERE g.pool = $1::text AND g."group" = $2::text),
  (SELECT json_agg(json_build_array(
     begins, number, priority, slots, since, run_id, step_key, session, of_group)) FROM heads);

-- Of each line of these groups the first live ones, so many.
-- name: members
SELECT w.number, w.priority, w.slots, w.since, w.run_id, w.step_key, w.session, seen.of_group
FROM unnest($2::text[], $3::integer[]) AS seen (of_group, count)
JOIN lifeguard_lines i
  ON i.pool = $1::text AND i."group" = seen.of_group AND i.slots <= $4::integer
CROSS JOIN LATERAL (
  SELECT q.number, q.priority, q.slots, t.since, t.run_id, t.step_key, t.session
  FROM lifeguard_queue q
  JOIN lifeguard_tickets t ON t.number = q.number
  WHERE q.pool = $1::text AND q.queued AND q."group" = i."group" AND q.slots = i.slots
    AND ({lease}) > ({clock})
  ORDER BY q.priority DESC, q.number LIMIT seen.count) AS w;

-- part: holdings
SELECT json_agg(json_build_array(
  h.pool, h.slot_no, h.run_id, h.step_key, h.fence, h.priority, h.since,
  (SELECT json_agg(w.session) FROM lifeguard_owners w
   WHERE w.run_id = h.run_id AND w.step_key = h.step_key))
  ORDER BY h.fence, h.run_id, h.step_key, h.pool, h.slot_no)
FROM lifeguard_holdings h;

-- part: tickets
SELECT json_agg(json_build_array(
  t.number, t.run_id, t.step_key, t.priority, t.demand, t.session, t.since,
  (SELECT json_agg(a.pool) FROM lifeguard_queue a WHERE a.number = t.number AND a.queued))
  ORDER BY t.priority DESC, t.number)
FROM lifeguard_tickets t;

-- Holding, owner, fence and ledger in one statement: the fewer, the faster.
-- name: grant
WITH holding AS (
  INSERT INTO lifeguard_holdings (pool, slot_no, run_id, step_key, fence, priority, since)
  SELECT pool, slot_no, $1::text, $2::text, $4::bigint, $5::integer, $6::double precision
  FROM unnest($7::text[], $8::integer[]) AS slot (pool, slot_no)
), pool AS (
  UPDATE lifeguard_pools SET fence = $4::bigint WHERE pool = ANY($7::text[])
), owner AS (
  INSERT INTO lifeguard_owners (run_id, step_key, session)
  VALUES ($1::text, $2::text, $3::text)
)
INSERT INTO lifeguard_ledger
  (at, kind, pool, run_id, step_key, slots, fence, session, seconds)
SELECT $6::double precision, $9::text, pool, $1::text, $2::text, slots, $4::bigint, $10::text,
  $11::double precision
FROM unnest($12::text[], $13::integer[]) AS entry (pool, slots);

-- The same for pools that are presumed to be idle, if they are: the message takes the locks first.
-- A limit that is new to the engine is told in the ledger, before the grant.
-- name: grant_unseen
WITH idle AS (
  SELECT ({clock}) AS now, 1 + max(p.fence) AS fence
  FROM unnest($1::text[], $2::integer[], $3::integer[]) AS presumed (pool, "limit", limit_known)
  JOIN lifeguard_pools p ON p.pool = presumed.pool
  LEFT JOIN concurrency_limits l
    ON l.concurrency_key = presumed.pool AND l.using_default_limit IS NOT TRUE
  WHERE l."limit" IS NOT DISTINCT FROM presumed."limit"
    AND p.rate_starts IS NULL
    AND p.fair_by IS NULL
    AND (p.temporary_until IS NULL OR p.temporary_until <= ({read_clock}))
    AND NOT EXISTS (SELECT 1 FROM lifeguard_holdings h WHERE h.pool = presumed.pool)
    AND NOT EXISTS (SELECT 1 FROM lifeguard_queue q WHERE q.pool = presumed.pool AND q.queued)
  HAVING count(*) = cardinality($1::text[])
    AND EXISTS (SELECT 1 FROM lifeguard_sessions WHERE session = $6::text)
    AND (SELECT min(lease_until) FROM lifeguard_sessions) > ({clock})
    AND NOT EXISTS (
      SELECT 1 FROM lifeguard_tickets WHERE run_id = $4::text AND step_key = $5::text)
    AND NOT EXISTS (
      SELECT 1 FROM lifeguard_holdings WHERE run_id = $4::text AND step_key = $5::text)
), holding AS (
  INSERT INTO lifeguard_holdings (pool, slot_no, run_id, step_key, fence, priority, since)
  SELECT pool, slot_no, $4::text, $5::text, fence, $7::integer, now
  FROM idle, unnest($8::text[], $9::integer[]) AS slot (pool, slot_no)
), pool AS (
  UPDATE lifeguard_pools p SET limit_known = presumed.limit_known,
    fence = CASE WHEN p.pool = ANY($8::text[]) THEN idle.fence ELSE p.fence END
  FROM idle, unnest($1::text[], $3::integer[]) AS presumed (pool, limit_known)
  WHERE p.pool = presumed.pool
    AND (p.pool = ANY($8::text[]) OR p.limit_known IS DISTINCT FROM presumed.limit_known)
), owner AS (
  INSERT INTO lifeguard_owners (run_id, step_key, session)
  SELECT $4::text, $5::text, $6::text FROM idle
), noticed AS (
  INSERT INTO lifeguard_ledger
    (at, kind, pool, run_id, step_key, slots, fence, session, "limit")
  SELECT now, 'limit', p.pool, '', '', 0, p.fence, $11::text, presumed.limit_known
  FROM idle, unnest($1::text[], $3::integer[]) AS presumed (pool, limit_known)
  JOIN lifeguard_pools p ON p.pool = presumed.pool
  WHERE p.limit_known IS DISTINCT FROM presumed.limit_known
  RETURNING entry
)
INSERT INTO lifeguard_ledger
  (at, kind, pool, run_id, step_key, slots, fence, session, seconds)
SELECT now, $10::text, pool, $4::text, $5::text, slots, fence, $11::text, $12::double precision
FROM idle, unnest($13::text[], $14::integer[]) AS entry (pool, slots),
  (SELECT count(*) FROM noticed) AS before
RETURNING fence;

-- name: drop_tickets
WITH queue AS (DELETE FROM lifeguard_queue WHERE number = ANY($1::bigint[]))
DELETE FROM lifeguard_tickets WHERE number = ANY($1::bigint[]);

-- name: drop_holding
WITH owner AS (
  DELETE FROM lifeguard_owners WHERE run_id = $1::text AND step_key = $2::text
), holding AS (
  DELETE FROM lifeguard_holdings WHERE run_id = $1::text AND step_key = $2::text
)
INSERT INTO lifeguard_ledger
  (at, kind, pool, run_id, step_key, slots, fence, session, seconds)
SELECT $4::double precision, $5::text, pool, $1::text, $2::text, slots, $3::bigint, $6::text,
  $7::double precision
FROM unnest($8::text[], $9::integer[]) AS entry (pool, slots);

-- The pools are as they were before, for all parts of a statement see the same.
-- name: release
WITH holding AS (
  DELETE FROM lifeguard_holdings
  WHERE run_id = $2::text AND step_key = $3::text AND fence = $4::bigint AND pool = ANY($1::text[])
  RETURNING since
), ended AS (
  SELECT ({clock}) AS now, since FROM holding LIMIT 1
), owner AS (
  DELETE FROM lifeguard_owners
  WHERE run_id = $2::text AND step_key = $3::text AND EXISTS (SELECT 1 FROM holding)
), entry AS (
  INSERT INTO lifeguard_ledger
    (at, kind, pool, run_id, step_key, slots, fence, session, seconds)
  SELECT now, 'released', pool, $2::text, $3::text, slots, $4::bigint, $5::text, now - since
  FROM ended, unnest($1::text[], $6::integer[]) AS freed (pool, slots)
)
SELECT now, since, ({pools}) FROM ended;

-- name: drop_sessions
WITH lost AS (
  UPDATE lifeguard_holdings h SET lost = s.label
  FROM lifeguard_owners o JOIN lifeguard_sessions s ON s.session = o.session
  WHERE $2::boolean AND o.session = ANY($1::text[]) AND o.executes
    AND h.run_id = o.run_id AND h.step_key = o.step_key
), owner AS (DELETE FROM lifeguard_owners WHERE session = ANY($1::text[]))
UPDATE lifeguard_sessions SET lease_until = 0 WHERE session = ANY($1::text[]);

-- name: drop_ended_sessions
DELETE FROM lifeguard_sessions s WHERE s.session = ANY($1::text[])
  AND NOT EXISTS (SELECT 1 FROM lifeguard_tickets t WHERE t.session = s.session);

-- name: enqueue
WITH ticket AS (
  INSERT INTO lifeguard_tickets (run_id, step_key, priority, demand, session, since)
  VALUES ($1::text, $2::text, $3::integer, $4::text, $5::text, $6::double precision)
  RETURNING number
)
INSERT INTO lifeguard_queue (pool, number, priority, slots, queued)
SELECT pool, number, $3::integer, slots, queued
FROM ticket, unnest($7::text[], $8::integer[], $9::boolean[]) AS term (pool, slots, queued);

-- name: requeue
WITH queue AS (
  UPDATE lifeguard_queue SET queued = (pool = ANY($3::text[])) WHERE number = $1::bigint
)
UPDATE lifeguard_tickets SET session = $2::text WHERE number = $1::bigint;

-- name: adopt
INSERT INTO lifeguard_owners (run_id, step_key, session, executes)
VALUES ($1::text, $2::text, $3::text, $4::boolean);

-- name: disown
DELETE FROM lifeguard_owners
WHERE run_id = $1::text AND step_key = $2::text AND session = $3::text;

-- name: set_limit
INSERT INTO concurrency_limits (concurrency_key, "limit", using_default_limit)
VALUES ($1::text, $2::integer, FALSE)
ON CONFLICT (concurrency_key)
DO UPDATE SET "limit" = excluded."limit", using_default_limit = FALSE;

-- name: delete_limit
DELETE FROM concurrency_limits WHERE concurrency_key = $1::text;

-- name: know_limit
UPDATE lifeguard_pools SET limit_known = $2::integer WHERE pool = $1::text;

-- name: set_settings
UPDATE lifeguard_pools
SET rate_starts = $2::integer, rate_seconds = $3::integer, rate_burst = $4::integer,
  fair_by = $5::text, temporary_limit = $6::integer, temporary_until = $7::double precision
WHERE pool = $1::text;

-- Nobody's group by one tag says anything about another.
-- name: regroup
WITH queue AS (
  UPDATE lifeguard_queue SET "group" = $2::text WHERE pool = $1::text
), holdings AS (
  UPDATE lifeguard_holdings SET "group" = $2::text WHERE pool = $1::text
)
DELETE FROM lifeguard_groups WHERE pool = $1::text;

-- name: set_group
UPDATE lifeguard_queue SET "group" = $4::text WHERE pool = $1::text AND number =
  (SELECT number FROM lifeguard_tickets WHERE run_id = $2::text AND step_key = $3::text);

-- name: set_group_of_holder
UPDATE lifeguard_holdings SET "group" = $4::text
WHERE pool = $1::text AND run_id = $2::text AND step_key = $3::text;

-- name: set_turn_of_group
INSERT INTO lifeguard_groups (pool, "group", begins) VALUES ($1::text, $2::text, $3::bigint)
ON CONFLICT (pool, "group") DO UPDATE SET begins = excluded.begins;

-- name: set_turn
UPDATE lifeguard_pools SET turn = $2::bigint WHERE pool = $1::text;

-- name: forget_turns
DELETE FROM lifeguard_groups WHERE pool = $1::text AND NOT in_line AND begins <= $2::bigint;

-- name: set_due
UPDATE lifeguard_pools SET due_ns = $2::bigint WHERE pool = $1::text;

-- name: all_settings
SELECT ({read_clock}), l.concurrency_key, {settings}
FROM concurrency_limits l LEFT JOIN lifeguard_pools p ON p.pool = l.concurrency_key
WHERE l.using_default_limit IS NOT TRUE
UNION ALL
SELECT ({read_clock}), p.pool, {settings}
FROM lifeguard_pools p
LEFT JOIN concurrency_limits l ON l.concurrency_key = p.pool AND l.using_default_limit IS NOT TRUE
WHERE (p.rate_starts IS NOT NULL OR p.fair_by IS NOT NULL OR p.temporary_until IS NOT NULL)
  AND l.concurrency_key IS NULL;

-- name: add_entry
INSERT INTO lifeguard_ledger
  (at, kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", detail)
VALUES ($1::double precision, $2::text, $3::text, $4::text, $5::text, $6::integer, $7::bigint,
  $8::text, $9::double precision, $10::integer, $11::text);

-- The lock is shared by claims on Dagster's own storage: each is committed and seen by this
-- session, or sees it. So is a new version of the tables. 1734440037 is "gate".
-- name: lock_gate
SELECT pg_advisory_xact_lock(1734440037);

-- Its own statement after the lock, so that it sees what was committed before it.
-- name: open_session
INSERT INTO lifeguard_sessions (session, label, started_at, lease_until, package, tables)
SELECT $1::text, $2::text, ({clock}), ({clock}) + $3::double precision, $4::text, $5::integer
FROM lifeguard_schema WHERE usable_from <= $5::integer RETURNING session;

-- name: now
SELECT ({clock});

-- name: heartbeat
UPDATE lifeguard_sessions SET lease_until = ({clock}) + $2::double precision
WHERE session = $1::text AND lease_until > 0 RETURNING session;

-- name: expired_sessions
SELECT session FROM lifeguard_sessions WHERE lease_until <= ({clock})
ORDER BY lease_until LIMIT $1::integer;

-- name: waiting
SELECT run_id, step_key FROM lifeguard_tickets WHERE session = $1::text;

-- Whoever claims under a session at this moment has it locked.
-- name: revoke_expired
UPDATE lifeguard_sessions SET lease_until = 0 WHERE session IN (
  SELECT s.session FROM lifeguard_sessions s
  WHERE s.lease_until > 0 AND s.lease_until <= ({clock})
    AND NOT EXISTS (SELECT 1 FROM lifeguard_owners o WHERE o.session = s.session)
  ORDER BY s.lease_until LIMIT $1::integer FOR UPDATE OF s SKIP LOCKED);

-- A ticket that another process asks for meanwhile is no more of a dead session.
-- name: drop_dead_tickets
WITH dead AS (
  SELECT t.number FROM lifeguard_sessions s JOIN lifeguard_tickets t ON t.session = s.session
  WHERE s.lease_until = 0 LIMIT $1::integer
), gone AS (
  DELETE FROM lifeguard_tickets t USING dead
  WHERE t.number = dead.number
    AND EXISTS (SELECT 1 FROM lifeguard_sessions s WHERE s.session = t.session AND s.lease_until = 0)
  RETURNING t.number
)
DELETE FROM lifeguard_queue q USING gone WHERE q.number = gone.number;

-- name: drop_dead_sessions
DELETE FROM lifeguard_sessions WHERE session IN (
  SELECT s.session FROM lifeguard_sessions s WHERE s.lease_until = 0
    AND NOT EXISTS (SELECT 1 FROM lifeguard_tickets t WHERE t.session = s.session)
    AND NOT EXISTS (SELECT 1 FROM lifeguard_owners o WHERE o.session = s.session)
  LIMIT $1::integer);

-- name: holders_over
SELECT DISTINCT o.session
FROM lifeguard_holdings h
JOIN lifeguard_owners o ON o.run_id = h.run_id AND o.step_key = h.step_key
JOIN lifeguard_sessions s ON s.session = o.session
WHERE h.pool = ANY($1::text[]) AND s.lease_until <= ({read_clock})
LIMIT $2::integer;

-- name: revoked_sessions
SELECT session FROM lifeguard_sessions WHERE lease_until = 0;

-- name: expired_entry
SELECT 1 FROM lifeguard_ledger
WHERE run_id = $1::text AND step_key = $2::text AND kind = 'expired' LIMIT 1;

-- name: busy_pools
SELECT pool FROM lifeguard_holdings UNION SELECT pool FROM lifeguard_queue;

-- name: busy_pools_without_over
SELECT pool FROM lifeguard_holdings WHERE (run_id, step_key) NOT IN ({over_holdings})
UNION SELECT pool FROM lifeguard_queue WHERE number NOT IN ({over_tickets});

-- name: run_ids
SELECT run_id FROM lifeguard_holdings WHERE (run_id, step_key) NOT IN ({over_holdings})
UNION SELECT run_id FROM lifeguard_tickets WHERE number NOT IN ({over_tickets});

-- name: ledger
SELECT kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", at, detail, entry
FROM lifeguard_ledger ORDER BY entry DESC LIMIT $1::integer;

-- name: ledger_of_pool
SELECT kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", at, detail, entry
FROM lifeguard_ledger WHERE pool = $2::text ORDER BY entry DESC LIMIT $1::integer;

-- name: entries
SELECT kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", at, detail, entry
FROM lifeguard_ledger
WHERE entry > $2::bigint AND at >= $1::double precision AND ($4::text IS NULL OR kind = $4::text)
ORDER BY entry LIMIT $3::integer;

-- name: entries_of_pool
SELECT kind, pool, run_id, step_key, slots, fence, session, seconds, "limit", at, detail, entry
FROM lifeguard_ledger
WHERE pool = $5::text AND entry > $2::bigint AND at >= $1::double precision
  AND ($4::text IS NULL OR kind = $4::text)
ORDER BY entry LIMIT $3::integer;

-- What was held when the number was given: what ended since then or is held now, without the grants
-- since then, whose fences are larger than all before them in their pool.
-- name: held_at
WITH first AS (
  SELECT pool, min(fence) AS fence FROM lifeguard_ledger
  WHERE kind = 'granted' AND entry >= $1::bigint AND ($2::text IS NULL OR pool = $2::text)
  GROUP BY pool
), held AS (
  SELECT pool, run_id, step_key, slots, fence, session, at - seconds AS since
  FROM lifeguard_ledger
  WHERE kind IN ('released', 'expired') AND entry >= $1::bigint
    AND ($2::text IS NULL OR pool = $2::text)
  UNION ALL
  SELECT pool, run_id, step_key, count(*), fence, '', since
  FROM lifeguard_holdings WHERE $2::text IS NULL OR pool = $2::text
  GROUP BY pool, run_id, step_key, fence, since
)
SELECT 'granted', held.pool, run_id, step_key, slots::integer, held.fence, session,
  NULL::double precision, NULL::integer, since
FROM held LEFT JOIN first ON first.pool = held.pool
WHERE first.fence IS NULL OR held.fence < first.fence
ORDER BY held.pool COLLATE "C", held.fence;

-- The oldest rows come first in the index, so this looks at no more than it deletes, and one. Up to
-- an entry, not by a list of them: for each row of a long ledger the whole list would be read.
-- name: trim_ledger
WITH oldest AS MATERIALIZED (
  SELECT entry, max(at) OVER (ORDER BY entry) AS newest
  FROM (SELECT entry, at FROM lifeguard_ledger ORDER BY entry LIMIT $2::integer) AS o
), trimmed AS (
  DELETE FROM lifeguard_ledger
  WHERE entry <= (
    SELECT max(oldest.entry) FROM oldest WHERE oldest.newest < ({clock}) - $1::double precision)
  RETURNING 1
)
SELECT count(*) FROM trimmed;
