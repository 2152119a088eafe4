-- Times are seconds since the epoch. Limits stay in Dagster's own table, concurrency_limits.

-- One row: the version of these tables, and the oldest version that a package must know to use them.
CREATE TABLE lifeguard_schema (version INTEGER NOT NULL, usable_from INTEGER NOT NULL);

-- One row for each pool ever claimed. The largest fence given, and the limit last seen. Its rate,
-- if it has one, and what that counts with. The tag by which it is fair, if it is,
-- and its turn. A temporary limit and its end, which counts while the clock is before that end.
CREATE TABLE lifeguard_pools (
  pool TEXT NOT NULL PRIMARY KEY,
  fence BIGINT NOT NULL DEFAULT 0,
  limit_known INTEGER,
  rate_starts INTEGER,
  rate_seconds INTEGER,
  rate_burst INTEGER,
  due_ns BIGINT NOT NULL DEFAULT 0,
  fair_by TEXT,
  temporary_limit INTEGER,
  temporary_until DOUBLE PRECISION,
  turn BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX lifeguard_pools_set ON lifeguard_pools (pool)
  WHERE rate_starts IS NOT NULL OR fair_by IS NOT NULL OR temporary_until IS NOT NULL;

-- One row for each live process: the version of its package, and of the tables that it knows.
CREATE TABLE lifeguard_sessions (
  session TEXT NOT NULL PRIMARY KEY,
  label TEXT NOT NULL,
  started_at DOUBLE PRECISION NOT NULL,
  lease_until DOUBLE PRECISION NOT NULL,
  package TEXT NOT NULL,
  tables INTEGER NOT NULL
);
CREATE INDEX lifeguard_sessions_by_lease ON lifeguard_sessions (lease_until);

-- One row for each waiting ticket. A sequence, because a number is never given twice.
CREATE TABLE lifeguard_tickets (
  number BIGSERIAL PRIMARY KEY,
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  priority INTEGER NOT NULL,
  demand TEXT NOT NULL,
  session TEXT NOT NULL,
  since DOUBLE PRECISION NOT NULL,
  wakes INTEGER NOT NULL DEFAULT 0,
  UNIQUE (run_id, step_key)
);
CREATE INDEX lifeguard_tickets_by_session ON lifeguard_tickets (session, number);

-- One row for each pool that a waiting ticket asks for; queued where it stands in line. A group where
-- the pool is fair, and none where it is not: so each is read along an index of its own.
CREATE TABLE lifeguard_queue (
  pool TEXT NOT NULL,
  number BIGINT NOT NULL,
  priority INTEGER NOT NULL,
  slots INTEGER NOT NULL,
  queued BOOLEAN NOT NULL,
  "group" TEXT,
  PRIMARY KEY (pool, number)
);
CREATE INDEX lifeguard_queue_by_number ON lifeguard_queue (number);
CREATE INDEX lifeguard_queue_by_rank
  ON lifeguard_queue (pool, slots, priority DESC, number) WHERE queued AND "group" IS NULL;
CREATE INDEX lifeguard_queue_by_group
  ON lifeguard_queue (pool, "group", slots, priority DESC, number)
  WHERE queued AND "group" IS NOT NULL;

-- One row for each slot that is held. Two winners of one slot are an integrity error. Lost is the
-- process that executed the step on it, if that died while another owner lives.
CREATE TABLE lifeguard_holdings (
  pool TEXT NOT NULL,
  slot_no INTEGER NOT NULL CHECK (slot_no >= 1),
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  fence BIGINT NOT NULL,
  priority INTEGER NOT NULL,
  since DOUBLE PRECISION NOT NULL,
  "group" TEXT,
  lost TEXT,
  PRIMARY KEY (pool, slot_no)
);
CREATE INDEX lifeguard_holdings_by_ticket ON lifeguard_holdings (run_id, step_key);
CREATE INDEX lifeguard_holdings_lost ON lifeguard_holdings (run_id, step_key)
  WHERE lost IS NOT NULL;

-- One row for each group that stands in line at a fair pool, or whose next turn there begins after
-- the pool's own.
CREATE TABLE lifeguard_groups (
  pool TEXT NOT NULL,
  "group" TEXT NOT NULL,
  begins BIGINT NOT NULL,
  in_line BOOLEAN NOT NULL DEFAULT FALSE,
  PRIMARY KEY (pool, "group")
);
CREATE INDEX lifeguard_groups_gone ON lifeguard_groups (pool, begins) WHERE NOT in_line;

-- One row for each size of each group that stands in line at a fair pool: the first of these tickets,
-- and by what the group is ranked. The triggers below see to it.
CREATE TABLE lifeguard_lines (
  pool TEXT NOT NULL,
  "group" TEXT NOT NULL,
  slots INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  number BIGINT NOT NULL,
  held INTEGER NOT NULL,
  begins BIGINT,
  PRIMARY KEY (pool, "group", slots)
);
CREATE INDEX lifeguard_lines_by_rank
  ON lifeguard_lines (pool, slots, priority DESC, held, begins NULLS FIRST, number);

-- Makes one line anew. Whoever buries the dead does so without the pool's lock, so two may at once.
CREATE FUNCTION lifeguard_change_line(of_pool TEXT, of_group TEXT, of_slots INTEGER)
  RETURNS void LANGUAGE plpgsql AS $do$
  BEGIN
    DELETE FROM lifeguard_lines i
    WHERE i.pool = of_pool AND i."group" = of_group AND i.slots = of_slots;
    INSERT INTO lifeguard_lines (pool, "group", slots, priority, number, held, begins)
    SELECT q.pool, q."group", q.slots, q.priority, q.number,
      (SELECT count(*) FROM lifeguard_holdings h WHERE h.pool = q.pool AND h."group" = q."group"),
      (SELECT g.begins FROM lifeguard_groups g WHERE g.pool = q.pool AND g."group" = q."group")
    FROM lifeguard_queue q
    WHERE q.pool = of_pool AND q."group" = of_group AND q.slots = of_slots AND q.queued
    ORDER BY q.priority DESC, q.number LIMIT 1
    ON CONFLICT (pool, "group", slots) DO UPDATE
    SET priority = excluded.priority, number = excluded.number, held = excluded.held,
      begins = excluded.begins;
    UPDATE lifeguard_groups g SET in_line = EXISTS (
      SELECT 1 FROM lifeguard_lines i WHERE i.pool = of_pool AND i."group" = of_group)
    WHERE g.pool = of_pool AND g."group" = of_group;
  END $do$;
-- Once for each line, however many rows of it a statement changes.
CREATE FUNCTION lifeguard_queue_changed() RETURNS trigger LANGUAGE plpgsql AS $do$
  BEGIN
    IF TG_OP <> 'INSERT' THEN
      PERFORM lifeguard_change_line(changed.pool, changed."group", changed.slots) FROM (
        SELECT DISTINCT pool, "group", slots FROM gone WHERE "group" IS NOT NULL) AS changed;
    END IF;
    IF TG_OP <> 'DELETE' THEN
      PERFORM lifeguard_change_line(changed.pool, changed."group", changed.slots) FROM (
        SELECT DISTINCT pool, "group", slots FROM come WHERE "group" IS NOT NULL) AS changed;
    END IF;
    RETURN NULL;
  END $do$;
CREATE FUNCTION lifeguard_share_changed() RETURNS trigger LANGUAGE plpgsql AS $do$
  BEGIN
    UPDATE lifeguard_lines i SET held = (
      SELECT count(*) FROM lifeguard_holdings h
      WHERE h.pool = i.pool AND h."group" = i."group")
    WHERE i.pool = OLD.pool AND i."group" = ANY(
      CASE WHEN TG_OP = 'DELETE' THEN ARRAY[OLD."group"] ELSE ARRAY[OLD."group", NEW."group"] END);
    RETURN NULL;
  END $do$;
CREATE FUNCTION lifeguard_turn_changed() RETURNS trigger LANGUAGE plpgsql AS $do$
  BEGIN
    UPDATE lifeguard_lines i SET begins = NEW.begins
    WHERE i.pool = NEW.pool AND i."group" = NEW."group";
    IF TG_OP = 'INSERT' THEN
      UPDATE lifeguard_groups g SET in_line = EXISTS (
        SELECT 1 FROM lifeguard_lines i WHERE i.pool = NEW.pool AND i."group" = NEW."group")
      WHERE g.pool = NEW.pool AND g."group" = NEW."group";
    END IF;
    RETURN NULL;
  END $do$;
CREATE TRIGGER lifeguard_queue_inserted AFTER INSERT ON lifeguard_queue
  REFERENCING NEW TABLE AS come EXECUTE PROCEDURE lifeguard_queue_changed();
CREATE TRIGGER lifeguard_queue_deleted AFTER DELETE ON lifeguard_queue
  REFERENCING OLD TABLE AS gone EXECUTE PROCEDURE lifeguard_queue_changed();
CREATE TRIGGER lifeguard_queue_updated AFTER UPDATE ON lifeguard_queue
  REFERENCING OLD TABLE AS gone NEW TABLE AS come EXECUTE PROCEDURE lifeguard_queue_changed();
CREATE TRIGGER lifeguard_share_grown AFTER UPDATE OF "group" ON lifeguard_holdings
  FOR EACH ROW WHEN (NEW."group" IS NOT NULL) EXECUTE PROCEDURE lifeguard_share_changed();
CREATE TRIGGER lifeguard_share_shrunk AFTER DELETE ON lifeguard_holdings
  FOR EACH ROW WHEN (OLD."group" IS NOT NULL) EXECUTE PROCEDURE lifeguard_share_changed();
CREATE TRIGGER lifeguard_turn_changed AFTER INSERT OR UPDATE OF begins ON lifeguard_groups
  FOR EACH ROW EXECUTE PROCEDURE lifeguard_turn_changed();

-- One row for each session that owns a holding, and whether its process executes the step.
CREATE TABLE lifeguard_owners (
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  session TEXT NOT NULL,
  executes BOOLEAN NOT NULL DEFAULT FALSE,
  PRIMARY KEY (run_id, step_key, session)
);
CREATE INDEX lifeguard_owners_by_session ON lifeguard_owners (session);

-- What happened, oldest first.
CREATE TABLE lifeguard_ledger (
  entry BIGSERIAL PRIMARY KEY,
  at DOUBLE PRECISION NOT NULL,
  kind TEXT NOT NULL,
  pool TEXT NOT NULL,
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  slots INTEGER NOT NULL,
  fence BIGINT NOT NULL,
  session TEXT NOT NULL,
  seconds DOUBLE PRECISION,
  "limit" INTEGER,
  detail TEXT
);
CREATE INDEX lifeguard_ledger_by_pool ON lifeguard_ledger (pool, entry);
-- Whose step must not begin: asked for every step that begins without slots.
CREATE INDEX lifeguard_ledger_of_expired ON lifeguard_ledger (run_id, step_key)
  WHERE kind = 'expired'
