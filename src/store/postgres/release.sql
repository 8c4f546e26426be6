-- $1 name, $2 fence, $3 open redeem (NULL: none), $4 what is known of it, $5 channel, $6 what is
-- said on it.
WITH locked AS MATERIALIZED (
    -- Of a name that was never written, or whose end has come, nothing is left.
    SELECT awaited, (ends_at <= now()) IS TRUE OR (generation = 0 AND $3 IS NULL) AS empty
    FROM tower_refresh_records
    WHERE name = $1 AND fence = $2
    FOR UPDATE
),
removed AS (
    DELETE FROM tower_refresh_records AS r USING locked WHERE r.name = $1 AND empty
),
updated AS (
    UPDATE tower_refresh_records AS r SET
        -- A new fence, so that a renewal still on its way does not take the lease back.
        fence = r.fence + 1,
        owner = NULL,
        lease_until = NULL,
        redeem = $3,
        redeem_state = $4,
        awaited = false
    FROM locked
    WHERE r.name = $1 AND NOT empty
)
SELECT CASE WHEN awaited THEN pg_notify($5, $6)::text END FROM locked
