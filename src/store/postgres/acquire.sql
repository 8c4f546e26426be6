-- $1 name, $2 generation known, $3 owner, $4 milliseconds of a lease.
WITH seen AS MATERIALIZED (
    SELECT CASE WHEN ends_at <= now() THEN 0 ELSE generation END AS generation,
        document, lease_until,
        awaited AND lease_until > now() AND owner IS DISTINCT FROM $3 AS awaits
    FROM tower_refresh_records
    WHERE name = $1
),
-- Who can only wait, and has said so already, locks nothing.
locked AS MATERIALIZED (
    SELECT (ends_at <= now()) IS TRUE AS ended,
        CASE
            -- The client sends this again when the answer was lost: it has the lease already.
            WHEN lease_until > now() AND owner = $3 THEN 'ours'
            WHEN lease_until > now() THEN 'theirs'
            -- The lease ran out while its holder was redeeming: the holder has stalled, or the
            -- server was away and could not be told. A lease that is nobody's keeps waiters
            -- waiting for one lease time, in which the holder may renew its own.
            WHEN redeem_state = 'open' AND (ends_at <= now()) IS NOT TRUE THEN 'silent'
            ELSE 'free'
        END AS step
    FROM tower_refresh_records
    WHERE name = $1
        AND CASE WHEN ends_at <= now() THEN 0 ELSE generation END <= $2
        AND ((lease_until > now()) IS NOT TRUE OR owner = $3 OR NOT awaited)
    FOR UPDATE
),
updated AS (
    UPDATE tower_refresh_records AS r SET
        awaited = r.awaited OR step IN ('theirs', 'silent'),
        -- Never below the clock, so that a name whose row was deleted gets no number twice.
        fence = CASE WHEN step = 'free'
            THEN greatest(r.fence + 1, (extract(epoch FROM now()) * 1000000)::bigint)
            ELSE r.fence END,
        owner = CASE step WHEN 'free' THEN $3 WHEN 'silent' THEN NULL ELSE r.owner END,
        lease_until = CASE WHEN step IN ('free', 'silent')
            THEN now() + $4 * interval '1 millisecond'
            ELSE r.lease_until END,
        -- Of a record whose end has come, nothing is left.
        generation = CASE WHEN ended AND step = 'free' THEN 0 ELSE r.generation END,
        document = CASE WHEN ended AND step = 'free' THEN NULL ELSE r.document END,
        ends_at = CASE WHEN ended AND step = 'free' THEN NULL ELSE r.ends_at END,
        redeem = CASE WHEN ended AND step = 'free' THEN NULL ELSE r.redeem END,
        redeem_state = CASE
            WHEN ended AND step = 'free' THEN NULL
            WHEN step = 'silent' THEN 'open silent'
            ELSE r.redeem_state END
    FROM locked
    WHERE r.name = $1
    RETURNING step, r.fence, r.lease_until, r.redeem, r.redeem_state
),
inserted AS (
    INSERT INTO tower_refresh_records (name, fence, owner, lease_until)
    SELECT $1, (extract(epoch FROM now()) * 1000000)::bigint, $3,
        now() + $4 * interval '1 millisecond'
    WHERE NOT EXISTS (SELECT FROM seen)
    ON CONFLICT (name) DO NOTHING
    RETURNING fence
)
SELECT CASE WHEN step IN ('free', 'ours') THEN 'held' ELSE 'wait' END AS outcome,
    fence, redeem, redeem_state,
    (extract(epoch FROM lease_until - now()) * 1000)::bigint AS left_millis,
    NULL::bigint AS generation, NULL::bytea AS document
FROM updated
UNION ALL
SELECT 'held', fence, NULL, NULL, NULL, NULL, NULL FROM inserted
UNION ALL
SELECT CASE WHEN generation > $2 THEN 'newer' ELSE 'wait' END,
    NULL, NULL, NULL,
    (extract(epoch FROM lease_until - now()) * 1000)::bigint,
    generation, CASE WHEN generation > $2 THEN document END
FROM seen WHERE NOT EXISTS (SELECT FROM updated)
    -- Else the row has changed while this waited for it, and says nothing of who waits: whoever
    -- changed it may have told nobody. No answer means to look again.
    AND (generation > $2 OR awaits)
