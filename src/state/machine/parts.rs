//! What the machine knows of the credential and its flight: plain data of its own, which the shell
//! never sees.

use super::messages::Landing;
use crate::{
    credential::Credential,
    refresher::Trigger,
    state::failure::RefreshFailure,
    store::{OpenRedeem, Record},
    time::Time,
    tokens::{Generation, RESERVED_ORIGIN, Tokens},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The store was not read yet.
    Unread,
    /// There is a token.
    SignedIn,
    /// There is none until a sign-in.
    SignedOut,
}

/// Where the current token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Minting {
    /// From the store, or from a sign-in.
    Elsewhere,
    /// From a flight of this machine, and it was refused since.
    Here,
    /// From a flight of this machine.
    BrandNew,
}

/// One run of lease, load, redeem, save and publish.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) trigger: Trigger,
    /// No request waits for it at first: it is early, or [`upkeep`](super::Machine::upkeep) has started it.
    pub(super) in_background: bool,
    /// The generation that this flight is to replace.
    pub(super) base: Generation,
    pub(super) wanted: Wanted,
    /// It was superseded, and is followed by one that refreshes what came between.
    pub(super) relaunch: Option<Wanted>,
    /// It reads the store for the first time, and a caller wants what is found to be refreshed.
    pub(super) then_refresh: bool,
    /// What it has found at first has run out: what is newer was written since.
    pub(super) found_run_out: bool,
    /// What it redeems was written since this machine last looked, or by this flight.
    pub(super) record_is_new: bool,
    /// What the server has rejected is redeemed a second time.
    pub(super) tries_again: bool,
    /// It may adopt what is newer in the store, and redeems nothing.
    pub(super) adopt_only: bool,
    /// It has the lease.
    pub(super) leased: bool,
    /// The redeem that an earlier holder of the lease left open.
    pub(super) found: Option<OpenRedeem>,
    /// What the next holder of the lease is to find if this flight lands now.
    pub(super) open_redeem: Option<OpenRedeem>,
    /// What it has done so far.
    pub(super) landing: Landing,
    /// The shell drives it.
    pub(super) begun: bool,
    pub(super) stage: Stage,
}

/// What a flight is wanted for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// Requests are held until it has landed: the token that they have does not work. Not so
    /// while it does, or while that is in doubt.
    pub(super) closes_gate: bool,
    /// A server has refused the token, and not only in doubt.
    pub(super) refused: bool,
    /// A doubt has started it.
    pub(super) doubted: bool,
}

impl Wanted {
    /// By requests that are held meanwhile.
    pub(super) fn held(refused: bool) -> Self {
        Self { closes_gate: true, refused, doubted: false }
    }

    /// By such requests, too.
    pub(super) fn by_held(&mut self, refused: bool) {
        self.closes_gate = true;
        self.refused |= refused;
    }
}

/// What a flight waits for.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Leasing,
    Loading,
    /// The intent to spend what stood in the store as `from`.
    Intending {
        from: Generation,
        tokens: Tokens,
    },
    Redeeming(Redeem),
    /// The server rejected what stood in the store as `from`: read it once more.
    Rechecking {
        from: Generation,
        failure: RefreshFailure,
    },
    /// It was rejected, and is tried once more after a while.
    Yielding {
        from: Generation,
    },
    Saving(Minted),
    /// The save met a conflict: read what is there.
    Verifying(Minted),
    Discarding,
}

/// A call of the refresher.
#[derive(Clone, Debug)]
pub(super) struct Redeem {
    /// The generation that the tokens stood in the store as.
    pub(super) from: Generation,
    pub(super) tokens: Option<Tokens>,
    pub(super) begun: Time,
}

impl Redeem {
    pub(super) fn refresh_token(&self) -> Option<&str> {
        self.tokens.as_ref().and_then(Tokens::refresh_token)
    }
}

/// Tokens on their way into the store.
#[derive(Clone, Debug)]
pub(super) struct Minted {
    pub(super) expected: Generation,
    pub(super) record: Record,
    pub(super) credential: Credential,
    pub(super) origin: Origin,
    /// What was redeemed for them.
    pub(super) redeemed: Option<Tokens>,
    pub(super) failed_saves: u32,
    /// Requests use it already ([`WhileUnsaved::Serve`](super::WhileUnsaved::Serve)).
    pub(super) served: bool,
    /// The flight that minted it is gone, and another one saves it.
    pub(super) inherited: bool,
    /// The lease was lost before the save, and was taken once more without a pause.
    pub(super) lease_retaken: bool,
    /// A save has failed that may have worked: another process may have redeemed these since.
    pub(super) maybe_saved: bool,
}

/// Where tokens that are to be saved come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// They were in use, and the store has lost them.
    Offer,
    /// The user gave them to begin with.
    Seed,
    /// A refresh. Without rotation the refresh token is the one that was redeemed.
    Refresh { rotated: bool },
}

impl Origin {
    fn word(self) -> Option<&'static str> {
        match self {
            Self::Offer => Some("offer"),
            Self::Seed => Some("seed"),
            Self::Refresh { .. } => None,
        }
    }

    /// The tokens, with a word of where they are from, if that has to be known.
    pub(super) fn mark(self, tokens: Tokens) -> Tokens {
        match self.word() {
            Some(word) => tokens.with_extra(RESERVED_ORIGIN, word),
            None => tokens.without_extra(RESERVED_ORIGIN),
        }
    }

    pub(super) fn has_marked(self, record: &Record) -> bool {
        marked(record).is_some_and(|word| Some(word) == self.word())
    }

    /// Whether a record of a store that was empty gives way to tokens of this origin. An
    /// access token without a refresh token does to all others; tokens to begin with, which
    /// may have been redeemed long ago, do to a server's last answer.
    pub(super) fn outranks(self, stored: &Record) -> bool {
        match self {
            Self::Offer => false,
            Self::Seed => Self::Offer.has_marked(stored),
            Self::Refresh { .. } => marked(stored).is_some(),
        }
    }
}

/// The word of where the tokens of this record are from.
fn marked(record: &Record) -> Option<&str> {
    record.tokens.as_ref()?.extra(RESERVED_ORIGIN)
}

impl Flight {
    pub(super) fn new(
        trigger: Trigger,
        wanted: Wanted,
        base: Generation,
        adopt_only: bool,
    ) -> Self {
        Self {
            trigger,
            in_background: trigger == Trigger::Early,
            base,
            wanted,
            relaunch: None,
            then_refresh: false,
            found_run_out: false,
            record_is_new: false,
            tries_again: false,
            adopt_only,
            leased: false,
            found: None,
            open_redeem: None,
            landing: Landing::Nothing,
            begun: false,
            stage: Stage::Leasing,
        }
    }

    /// The lease is held, and its earlier holder left this open.
    pub(super) fn took_lease(&mut self, found: Option<OpenRedeem>) {
        self.leased = true;
        self.found = found;
        self.open_redeem = found;
    }

    /// It is held no longer: another process may have it, or a save has given it back.
    pub(super) fn lost_lease(&mut self) {
        self.leased = false;
        self.found = None;
        self.open_redeem = None;
    }

    pub(super) fn is_before_redeem(&self) -> bool {
        matches!(self.stage, Stage::Leasing | Stage::Loading | Stage::Intending { .. })
    }

    /// Its save keeps failing: requests do not wait for that.
    pub(super) fn is_stuck(&self) -> bool {
        self.minted().is_some_and(|minted| minted.failed_saves > 0)
    }

    pub(super) fn minted(&self) -> Option<&Minted> {
        match &self.stage {
            Stage::Saving(minted) | Stage::Verifying(minted) => Some(minted),
            _ => None,
        }
    }
}
