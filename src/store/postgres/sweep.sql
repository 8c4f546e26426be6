-- $1 milliseconds that a sign-out is remembered, $2 how many rows at most.
WITH over AS MATERIALIZED (
    SELECT name FROM tower_refresh_records
    WHERE (lease_until > now()) IS NOT TRUE
        AND (
            ends_at <= now()
            OR (document IS NULL
                AND greatest(written_at, lease_until) <= now() - $1 * interval '1 millisecond')
        )
    LIMIT $2
    FOR UPDATE SKIP LOCKED
),
removed AS (
    DELETE FROM tower_refresh_records AS r USING over WHERE r.name = over.name RETURNING r.name
)
SELECT count(*) FROM removed
