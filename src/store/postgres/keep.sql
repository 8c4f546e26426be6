-- $1 name, $2 the end.
WITH seen AS (
    SELECT FROM tower_refresh_records
    WHERE name = $1 AND document IS NOT NULL AND (ends_at <= now()) IS NOT TRUE
),
updated AS (
    UPDATE tower_refresh_records SET ends_at = $2
    WHERE name = $1 AND document IS NOT NULL AND (ends_at <= now()) IS NOT TRUE
        AND (ends_at < $2) IS NOT FALSE
)
SELECT EXISTS (SELECT FROM seen)
