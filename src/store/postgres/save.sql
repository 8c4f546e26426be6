-- $1 name, $2 fence (NULL: a sign-in), $3 generation expected, $4 generation,
-- $5 document (NULL: signed out), $6 channel, $7 what is said on it.
WITH locked AS MATERIALIZED (
    SELECT fence, awaited, document, (ends_at <= now()) IS TRUE AS ended,
        CASE WHEN ends_at <= now() THEN 0 ELSE generation END AS generation
    FROM tower_refresh_records
    WHERE name = $1
    FOR UPDATE
),
updated AS (
    UPDATE tower_refresh_records AS r SET
        generation = $4,
        document = $5,
        -- A holder's save keeps the record's own end, a sign-in begins without.
        ends_at = CASE WHEN $2 IS NULL OR $5 IS NULL OR ended THEN NULL ELSE r.ends_at END,
        written_at = now(),
        redeem = NULL,
        redeem_state = NULL,
        awaited = false,
        -- A holder's save ends the lease: its holder may exit without another word. The new
        -- fence keeps a renewal that is still on its way from taking it back.
        fence = CASE WHEN $2 IS NULL THEN r.fence ELSE r.fence + 1 END,
        owner = CASE WHEN $2 IS NULL THEN r.owner END,
        lease_until = CASE WHEN $2 IS NULL THEN r.lease_until END
    FROM locked
    WHERE r.name = $1 AND locked.generation = $3 AND ($2 IS NULL OR locked.fence = $2)
    RETURNING r.name
),
inserted AS (
    INSERT INTO tower_refresh_records (name, generation, document)
    SELECT $1, $4, $5
    WHERE $2 IS NULL AND $3 = 0
        AND NOT EXISTS (SELECT FROM tower_refresh_records WHERE name = $1)
    ON CONFLICT (name) DO NOTHING
    RETURNING name
),
done AS (
    SELECT EXISTS (SELECT FROM updated) OR EXISTS (SELECT FROM inserted) AS saved
)
SELECT
    CASE
        WHEN saved THEN 'saved'
        WHEN $2 IS NOT NULL AND (locked.fence = $2) IS NOT TRUE THEN 'lost'
        -- Another one has inserted or deleted the row at this moment.
        WHEN $2 IS NULL AND $3 = 0 AND locked.fence IS NULL THEN 'again'
        ELSE 'conflict'
    END AS outcome,
    locked.generation,
    CASE WHEN NOT saved THEN locked.document END,
    CASE WHEN saved AND awaited THEN pg_notify($6, $7)::text END
FROM done LEFT JOIN locked ON true
