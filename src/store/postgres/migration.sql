-- The table of tower-refresh's `PostgresStores`. It may be run again.
CREATE TABLE IF NOT EXISTS tower_refresh_records (
    name text COLLATE "C" PRIMARY KEY,
    -- It grows with every write. 0: never written.
    generation bigint NOT NULL DEFAULT 0,
    -- The sealed record. NULL: signed out, or never signed in.
    document bytea,
    -- The record's own end, from which on it counts as never written.
    ends_at timestamptz,
    written_at timestamptz NOT NULL DEFAULT now(),
    -- The number of the last lease: no other has had it.
    fence bigint NOT NULL DEFAULT 0,
    -- The holder's own token. NULL: nobody's.
    owner text,
    lease_until timestamptz,
    -- Whose refresh token is being spent, and what is known of that.
    redeem bigint,
    redeem_state text,
    -- Whether somebody waits for the lease, and is to be told.
    awaited boolean NOT NULL DEFAULT false
) WITH (fillfactor = 80);
