-- Version 4: a group's turn at a fair pool in place of the fence of its last grant, which depended
-- on who of those that went in together had looked first.

ALTER TABLE lifeguard_pools ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
DROP TABLE lifeguard_groups;
CREATE TABLE lifeguard_groups (
  pool TEXT NOT NULL,
  "group" TEXT NOT NULL,
  begins INTEGER NOT NULL,
  PRIMARY KEY (pool, "group")
) WITHOUT ROWID
