-- $1 name, $2 fence, $3 owner, $4 milliseconds.
UPDATE tower_refresh_records SET
    -- Never shorten it: an intent may have made it longer since this was sent.
    lease_until = greatest(lease_until, now() + $4 * interval '1 millisecond'),
    -- A waiter had given up on the intent. It holds again.
    redeem_state = CASE WHEN owner IS NULL AND redeem_state = 'open silent' THEN 'open'
        ELSE redeem_state END,
    owner = $3
-- If it has run out, no other holder has had it since: the fence would be another.
WHERE name = $1 AND fence = $2 AND (owner = $3 OR owner IS NULL)
RETURNING fence
