-- Version 6: queues by size, so that tickets that ask for more than the limit cost nothing; and the
-- lines of groups, so that a fair pool is read along an index however many groups there are.

DROP INDEX lifeguard_queue_by_rank;
CREATE INDEX lifeguard_queue_by_rank
  ON lifeguard_queue (pool, slots, priority DESC, number) WHERE queued = 1 AND "group" IS NULL;
DROP INDEX lifeguard_queue_by_group;
CREATE INDEX lifeguard_queue_by_group
  ON lifeguard_queue (pool, "group", slots, priority DESC, number)
  WHERE queued = 1 AND "group" IS NOT NULL;

ALTER TABLE lifeguard_groups ADD COLUMN in_line INTEGER NOT NULL DEFAULT 0;
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

UPDATE lifeguard_queue SET "group" = "group" WHERE "group" IS NOT NULL AND queued = 1
