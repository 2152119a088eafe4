-- Times are seconds since the epoch. Limits stay in Dagster's own table, concurrency_limits.

-- One row: the version of these tables, and the oldest version that a package must know to use them.
CREATE TABLE lifeguard_schema (version INTEGER NOT NULL, usable_from INTEGER NOT NULL);

-- One row for each pool ever claimed. The largest fence given, and the limit last seen. Its rate,
-- if it has one, and what that counts with. The tag by which it is fair, if it is,
-- and its turn. A temporary limit and its end, which counts while the clock is before that end.
CREATE TABLE lifeguard_pools (
  pool TEXT NOT NULL PRIMARY KEY,
  fence INTEGER NOT NULL DEFAULT 0,
  limit_known INTEGER,
  rate_starts INTEGER,
  rate_seconds INTEGER,
  rate_burst INTEGER,
  due_ns INTEGER NOT NULL DEFAULT 0,
  fair_by TEXT,
  temporary_limit INTEGER,
  temporary_until REAL,
  turn INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX lifeguard_pools_set ON lifeguard_pools (pool)
  WHERE rate_starts IS NOT NULL OR fair_by IS NOT NULL OR temporary_until IS NOT NULL;

-- One row for each live process: the version of its package, and of the tables that it knows.
CREATE TABLE lifeguard_sessions (
  session TEXT NOT NULL PRIMARY KEY,
  label TEXT NOT NULL,
  started_at REAL NOT NULL,
  lease_until REAL NOT NULL,
  package TEXT NOT NULL,
  tables INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX lifeguard_sessions_by_lease ON lifeguard_sessions (lease_until);

-- One row for each waiting ticket. AUTOINCREMENT, because a number is never given twice.
CREATE TABLE lifeguard_tickets (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  priority INTEGER NOT NULL,
  demand TEXT NOT NULL,
  session TEXT NOT NULL,
  since REAL NOT NULL,
  wakes INTEGER NOT NULL DEFAULT 0,
  UNIQUE (run_id, step_key)
);
CREATE INDEX lifeguard_tickets_by_session ON lifeguard_tickets (session);

-- One row for each pool that a waiting ticket asks for; queued where it stands in line. A group where
-- the pool is fair, and none where it is not: so each is read along an index of its own.
CREATE TABLE lifeguard_queue (
  pool TEXT NOT NULL,
  number INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  slots INTEGER NOT NULL,
  queued INTEGER NOT NULL,
  "group" TEXT,
  PRIMARY KEY (pool, number)
) WITHOUT ROWID;
CREATE INDEX lifeguard_queue_by_number ON lifeguard_queue (number);
CREATE INDEX lifeguard_queue_by_rank
  ON lifeguard_queue (pool, slots, priority DESC, number) WHERE queued = 1 AND "group" IS NULL;
CREATE INDEX lifeguard_queue_by_group
  ON lifeguard_queue (pool, "group", slots, priority DESC, number)
  WHERE queued = 1 AND "group" IS NOT NULL;

-- One row for each slot that is held. Two winners of one slot are an integrity error. Lost is the
-- process that executed the step on it, if that died while another owner lives.
CREATE TABLE lifeguard_holdings (
  pool TEXT NOT NULL,
  slot_no INTEGER NOT NULL CHECK (slot_no >= 1),
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  fence INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  since REAL NOT NULL,
  "group" TEXT,
  lost TEXT,
  PRIMARY KEY (pool, slot_no)
) WITHOUT ROWID;
CREATE INDEX lifeguard_holdings_by_ticket ON lifeguard_holdings (run_id, step_key);
CREATE INDEX lifeguard_holdings_lost ON lifeguard_holdings (run_id, step_key)
  WHERE lost IS NOT NULL;

-- One row for each group that stands in line at a fair pool, or whose next turn there begins after
-- the pool's own.
CREATE TABLE lifeguard_groups (
  pool TEXT NOT NULL,
  "group" TEXT NOT NULL,
  begins INTEGER NOT NULL,
  in_line INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (pool, "group")
) WITHOUT ROWID;
CREATE INDEX lifeguard_groups_gone ON lifeguard_groups (pool, begins) WHERE in_line = 0;

-- One row for each size of each group that stands in line at a fair pool: the first of these tickets,
-- and by what the group is ranked. The triggers below see to it.
CREATE TABLE lifeguard_lines (
  pool TEXT NOT NULL,
  "group" TEXT NOT NULL,
  slots INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  number INTEGER NOT NULL,
  held INTEGER NOT NULL,
  begins INTEGER,
  PRIMARY KEY (pool, "group", slots)
) WITHOUT ROWID;
CREATE INDEX lifeguard_lines_by_rank
  ON lifeguard_lines (pool, slots, priority DESC, held, begins, number);

-- What is inserted here makes one line anew.
CREATE VIEW lifeguard_changed_lines AS SELECT pool, "group", slots FROM lifeguard_lines;
CREATE TRIGGER lifeguard_change_line INSTEAD OF INSERT ON lifeguard_changed_lines BEGIN
  DELETE FROM lifeguard_lines
  WHERE pool = NEW.pool AND "group" = NEW."group" AND slots = NEW.slots;
  INSERT INTO lifeguard_lines (pool, "group", slots, priority, number, held, begins)
  SELECT q.pool, q."group", q.slots, q.priority, q.number,
    (SELECT count(*) FROM lifeguard_holdings h WHERE h.pool = q.pool AND h."group" = q."group"),
    (SELECT g.begins FROM lifeguard_groups g WHERE g.pool = q.pool AND g."group" = q."group")
  FROM lifeguard_queue q
  WHERE q.pool = NEW.pool AND q."group" = NEW."group" AND q.slots = NEW.slots AND q.queued = 1
  ORDER BY q.priority DESC, q.number LIMIT 1;
  UPDATE lifeguard_groups SET in_line = EXISTS (
    SELECT 1 FROM lifeguard_lines i WHERE i.pool = NEW.pool AND i."group" = NEW."group")
  WHERE pool = NEW.pool AND "group" = NEW."group";
  END;
CREATE TRIGGER lifeguard_queue_inserted AFTER INSERT ON lifeguard_queue
  WHEN NEW."group" IS NOT NULL BEGIN
  INSERT INTO lifeguard_changed_lines VALUES (NEW.pool, NEW."group", NEW.slots);
  END;
CREATE TRIGGER lifeguard_queue_deleted AFTER DELETE ON lifeguard_queue
  WHEN OLD."group" IS NOT NULL BEGIN
  INSERT INTO lifeguard_changed_lines VALUES (OLD.pool, OLD."group", OLD.slots);
  END;
CREATE TRIGGER lifeguard_queue_left AFTER UPDATE OF queued, "group" ON lifeguard_queue
  WHEN OLD."group" IS NOT NULL BEGIN
  INSERT INTO lifeguard_changed_lines VALUES (OLD.pool, OLD."group", OLD.slots);
  END;
CREATE TRIGGER lifeguard_queue_joined AFTER UPDATE OF queued, "group" ON lifeguard_queue
  WHEN NEW."group" IS NOT NULL AND NEW."group" IS NOT OLD."group" BEGIN
  INSERT INTO lifeguard_changed_lines VALUES (NEW.pool, NEW."group", NEW.slots);
  END;
CREATE TRIGGER lifeguard_share_grown AFTER UPDATE OF "group" ON lifeguard_holdings
  WHEN NEW."group" IS NOT NULL BEGIN
  UPDATE lifeguard_lines SET held = (
    SELECT count(*) FROM lifeguard_holdings h
    WHERE h.pool = NEW.pool AND h."group" = lifeguard_lines."group")
  WHERE pool = NEW.pool AND "group" IN (NEW."group", OLD."group");
  END;
CREATE TRIGGER lifeguard_share_shrunk AFTER DELETE ON lifeguard_holdings
  WHEN OLD."group" IS NOT NULL BEGIN
  UPDATE lifeguard_lines SET held = (
    SELECT count(*) FROM lifeguard_holdings h
    WHERE h.pool = OLD.pool AND h."group" = OLD."group")
  WHERE pool = OLD.pool AND "group" = OLD."group";
  END;
CREATE TRIGGER lifeguard_turn_begun AFTER INSERT ON lifeguard_groups BEGIN
  UPDATE lifeguard_lines SET begins = NEW.begins
  WHERE pool = NEW.pool AND "group" = NEW."group";
  UPDATE lifeguard_groups SET in_line = EXISTS (
    SELECT 1 FROM lifeguard_lines i WHERE i.pool = NEW.pool AND i."group" = NEW."group")
  WHERE pool = NEW.pool AND "group" = NEW."group";
  END;
CREATE TRIGGER lifeguard_turn_moved AFTER UPDATE OF begins ON lifeguard_groups BEGIN
  UPDATE lifeguard_lines SET begins = NEW.begins
  WHERE pool = NEW.pool AND "group" = NEW."group";
  END;

-- One row for each session that owns a holding, and whether its process executes the step.
CREATE TABLE lifeguard_owners (
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  session TEXT NOT NULL,
  executes INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (run_id, step_key, session)
) WITHOUT ROWID;
CREATE INDEX lifeguard_owners_by_session ON lifeguard_owners (session);

-- What happened, oldest first.
CREATE TABLE lifeguard_ledger (
  entry INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  kind TEXT NOT NULL,
  pool TEXT NOT NULL,
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  slots INTEGER NOT NULL,
  fence INTEGER NOT NULL,
  session TEXT NOT NULL,
  seconds REAL,
  "limit" INTEGER,
  detail TEXT
);
CREATE INDEX lifeguard_ledger_by_pool ON lifeguard_ledger (pool, entry);
-- Whose step must not begin: asked for every step that begins without slots.
CREATE INDEX lifeguard_ledger_of_expired ON lifeguard_ledger (run_id, step_key)
  WHERE kind = 'expired'
