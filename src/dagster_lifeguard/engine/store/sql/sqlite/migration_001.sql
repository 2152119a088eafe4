-- Version 1: the first tables.

-- One row: the version of these tables.
CREATE TABLE lifeguard_schema (version INTEGER NOT NULL);

-- One row for each pool ever claimed. The largest fence given, and the limit last seen.
CREATE TABLE lifeguard_pools (
  pool TEXT NOT NULL PRIMARY KEY,
  fence INTEGER NOT NULL DEFAULT 0,
  limit_known INTEGER
) WITHOUT ROWID;

-- One row for each live process.
CREATE TABLE lifeguard_sessions (
  session TEXT NOT NULL PRIMARY KEY,
  label TEXT NOT NULL,
  started_at REAL NOT NULL,
  lease_until REAL NOT NULL
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

-- One row for each pool that a waiting ticket asks for; queued where it stands in line.
CREATE TABLE lifeguard_queue (
  pool TEXT NOT NULL,
  number INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  slots INTEGER NOT NULL,
  queued INTEGER NOT NULL,
  PRIMARY KEY (pool, number)
) WITHOUT ROWID;
CREATE INDEX lifeguard_queue_by_number ON lifeguard_queue (number);
CREATE INDEX lifeguard_queue_by_rank
  ON lifeguard_queue (pool, priority DESC, number) WHERE queued = 1;

-- One row for each slot that is held. Two winners of one slot are an integrity error.
CREATE TABLE lifeguard_holdings (
  pool TEXT NOT NULL,
  slot_no INTEGER NOT NULL CHECK (slot_no >= 1),
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  fence INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  since REAL NOT NULL,
  PRIMARY KEY (pool, slot_no)
) WITHOUT ROWID;
CREATE INDEX lifeguard_holdings_by_ticket ON lifeguard_holdings (run_id, step_key);

-- One row for each session that owns a holding.
CREATE TABLE lifeguard_owners (
  run_id TEXT NOT NULL,
  step_key TEXT NOT NULL,
  session TEXT NOT NULL,
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
  "limit" INTEGER
);
CREATE INDEX lifeguard_ledger_by_pool ON lifeguard_ledger (pool, entry);
-- Whose step must not begin: asked for every step that begins without slots.
CREATE INDEX lifeguard_ledger_of_expired ON lifeguard_ledger (run_id, step_key)
  WHERE kind = 'expired'
