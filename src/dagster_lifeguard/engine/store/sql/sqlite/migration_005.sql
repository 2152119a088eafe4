-- Version 5: which owner of a holding is the process that executes the step, and that it died while
-- another owner lives.

ALTER TABLE lifeguard_owners ADD COLUMN executes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lifeguard_holdings ADD COLUMN lost TEXT;
CREATE INDEX lifeguard_holdings_lost ON lifeguard_holdings (run_id, step_key)
  WHERE lost IS NOT NULL
