-- $1 name, $2 generation known (0: none), whose document is not sent.
SELECT generation, CASE WHEN generation <> $2 THEN document END
FROM tower_refresh_records
WHERE name = $1 AND generation > 0 AND (ends_at <= now()) IS NOT TRUE
