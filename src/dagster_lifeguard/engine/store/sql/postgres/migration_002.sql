-- Version 2: rates. Starts for each so many seconds, and what a rate counts with; see rate.py.

ALTER TABLE lifeguard_pools
  ADD COLUMN rate_starts INTEGER,
  ADD COLUMN rate_seconds INTEGER,
  ADD COLUMN rate_burst INTEGER,
  ADD COLUMN due_ns BIGINT NOT NULL DEFAULT 0;
ALTER TABLE lifeguard_ledger ADD COLUMN detail TEXT;
CREATE INDEX lifeguard_pools_with_rate ON lifeguard_pools (pool) WHERE rate_starts IS NOT NULL
