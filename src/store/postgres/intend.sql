-- $1 name, $2 fence, $3 owner, $4 generation, $5 milliseconds of an intent.
UPDATE tower_refresh_records SET
    redeem = $4,
    redeem_state = 'open',
    lease_until = greatest(lease_until, now() + $5 * interval '1 millisecond')
WHERE name = $1 AND fence = $2 AND owner = $3 AND lease_until > now()
    AND (ends_at <= now()) IS NOT TRUE
RETURNING fence
