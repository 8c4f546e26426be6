-- $1 name, $2 where generations begin, $3 channel, $4 what is said on it.
WITH locked AS MATERIALIZED (
    SELECT awaited,
        CASE WHEN ends_at <= now() THEN 0 ELSE generation END AS generation,
        CASE WHEN (ends_at <= now()) IS NOT TRUE THEN document END AS document
    FROM tower_refresh_records
    WHERE name = $1
    FOR UPDATE
),
updated AS (
    UPDATE tower_refresh_records AS r SET
        generation = CASE WHEN locked.generation = 0 THEN $2 ELSE locked.generation + 1 END,
        document = NULL,
        ends_at = NULL,
        written_at = now(),
        redeem = NULL,
        redeem_state = NULL,
        awaited = false
    FROM locked
    WHERE r.name = $1
    RETURNING r.generation
),
inserted AS (
    INSERT INTO tower_refresh_records (name, generation)
    SELECT $1, $2
    WHERE NOT EXISTS (SELECT FROM tower_refresh_records WHERE name = $1)
    ON CONFLICT (name) DO NOTHING
    RETURNING generation
)
-- No row: another one has inserted or deleted it at this moment, and nothing was done.
SELECT updated.generation, locked.document,
    CASE WHEN awaited THEN pg_notify($3, $4)::text END
FROM updated, locked
UNION ALL
SELECT generation, NULL, NULL FROM inserted
