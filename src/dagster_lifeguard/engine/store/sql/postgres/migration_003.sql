-- Version 3: fair order. The tag by which a pool is fair, and the groups of who waits and holds
-- there and was let in last.

ALTER TABLE lifeguard_pools ADD COLUMN fair_by TEXT;
ALTER TABLE lifeguard_queue ADD COLUMN "group" TEXT;
ALTER TABLE lifeguard_holdings ADD COLUMN "group" TEXT;
CREATE INDEX lifeguard_pools_fair ON lifeguard_pools (pool) WHERE fair_by IS NOT NULL;
CREATE INDEX lifeguard_queue_by_group
  ON lifeguard_queue (pool, "group", priority DESC, number) WHERE queued AND "group" IS NOT NULL;
CREATE TABLE lifeguard_groups (
  pool TEXT NOT NULL,
  "group" TEXT NOT NULL,
  fence BIGINT NOT NULL,
  PRIMARY KEY (pool, "group")
)
