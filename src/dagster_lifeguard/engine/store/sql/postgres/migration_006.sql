-- Version 6: queues by size, so that tickets that ask for more than the limit cost nothing; and the
-- lines of groups, so that a fair pool is read along an index however many groups there are.

DROP INDEX lifeguard_queue_by_rank;
CREATE INDEX lifeguard_queue_by_rank
  ON lifeguard_queue (pool, slots, priority DESC, number) WHERE queued AND "group" IS NULL;
DROP INDEX lifeguard_queue_by_group;
CREATE INDEX lifeguard_queue_by_group
  ON lifeguard_queue (pool, "group", slots, priority DESC, number)
  WHERE queued AND "group" IS NOT NULL;

DROP INDEX lifeguard_tickets_by_session;
CREATE INDEX lifeguard_tickets_by_session ON lifeguard_tickets (session, number);

ALTER TABLE lifeguard_groups ADD COLUMN in_line BOOLEAN NOT NULL DEFAULT FALSE;
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

UPDATE lifeguard_queue SET "group" = "group" WHERE "group" IS NOT NULL AND queued
