//! Records: versions, compare-and-swap, sign-out, names.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use tokio::task::JoinSet;

use super::{Subject, conflicts, done, holds, record, signed_in, skipped, soon, tokens};
use crate::{
    store::{KeptUntil, Record, SaveError, TokenStore},
    tokens::{Generation, Tokens},
};

/// What was never written is [`Record::default`].
pub async fn a_store_begins_empty<S: Subject>(subject: &S) {
    let store = subject.open("empty").await;
    let found = done("load", store.load()).await;
    assert_eq!(found, Record::default(), "what was never written is not empty");
}

/// All fields come back, through another handle, whatever text they are.
pub async fn what_is_saved_is_loaded<S: Subject>(subject: &S) {
    let store = subject.open("saved").await;
    let life = Duration::from_secs(3600);
    let odd = "\"\\\n\t\u{1f511} {}%'";
    let all = [
        Tokens::new("only an access token"),
        tokens("plain").with_expires_at(SystemTime::now() + life),
        Tokens::new(odd).with_refresh_token(odd).with_extra(odd, odd).with_extra("scope", "a b"),
        tokens("past").with_expires_at(SystemTime::UNIX_EPOCH + life),
        Tokens::new("x".repeat(16 * 1024)).with_refresh_token(""),
    ];
    for (tokens, generation) in all.into_iter().zip(1..) {
        let record = Record::new(Generation::new(generation), tokens);
        done("save", store.save(Generation::new(generation - 1), record.clone())).await;
        let loaded = done("load", subject.open("saved").await.load()).await;
        assert!(loaded.is_same(&record), "{loaded:?} is not {record:?}");
        let (Some(loaded), Some(saved)) = (loaded.tokens, record.tokens) else {
            panic!("the tokens are gone");
        };
        assert!(loaded.extras().eq(saved.extras()), "other fields are not what they were");
        let told = (loaded.expires_at().is_some(), saved.expires_at().is_some());
        assert_eq!(told.0, told.1, "an expiry was lost or made up");
        if let (Some(loaded), Some(saved)) = (loaded.expires_at(), saved.expires_at()) {
            let apart = loaded.duration_since(saved).unwrap_or_else(|earlier| earlier.duration());
            assert!(apart <= Duration::from_secs(1), "the expiry is {apart:?} off");
        }
    }
}

/// A look tells nothing while the record is the known one, and otherwise the record: a later one, a
/// sign-out, and that there is none.
pub async fn a_look_tells_what_has_changed<S: Subject>(subject: &S) {
    let store = subject.open("looked").await;
    let [none, first, second] = [0, 1, 2].map(Generation::new);
    let look = async |known| done("changed", store.changed(known)).await;
    assert_eq!(look(none).await, None, "there was nothing, and is nothing");
    assert_eq!(look(second).await, Some(Record::default()), "what was known is gone");
    assert_eq!(done("load", store.load()).await, Record::default(), "a look has created it");
    signed_in(&store).await;
    assert_eq!(look(first).await, None, "it is the known record");
    for known in [none, second] {
        let found = look(known).await;
        assert!(found.is_some_and(|found| found.is_same(&record(1, "1"))), "it is another one");
    }
    let deleted = done("delete", store.delete()).await;
    let found = look(first).await;
    assert_eq!(found, Some(Record::new(deleted.generation, None)), "it was signed out");
    assert_eq!(look(deleted.generation).await, None);
}

/// A record with an end of its own is there until then, and after that as if it had never been
/// written. The end moves on only, is kept by a holder's save, and is given to nothing but tokens.
pub async fn a_record_ends_when_it_is_told_to<S: Subject>(subject: &S) {
    let store = subject.open("ends").await;
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let keep = async |end| done("keep_until", store.keep_until(end)).await;
    let nothing = keep(now + hour).await;
    if nothing == KeptUntil::Unsupported {
        return skipped::<S>("a_record_ends_when_it_is_told_to", "it keeps no ends");
    }
    assert_eq!(nothing, KeptUntil::NoTokens, "there is nothing to be kept");
    assert_eq!(done("load", store.load()).await, Record::default(), "an end was created alone");

    signed_in(&store).await;
    assert_eq!(keep(now + hour).await, KeptUntil::Kept);
    assert_eq!(keep(now - hour).await, KeptUntil::Kept);
    holds(&store, &record(1, "1"), "an end went back").await;
    let mut lease = super::lease(&store).await;
    done("save", lease.save(Generation::new(1), record(2, "2"))).await;
    soon("release", lease.release(None)).await;
    keep(now - hour).await;
    holds(&store, &record(2, "2"), "a holder's save forgot the end").await;

    done("save", store.save(Generation::new(2), record(3, "3"))).await;
    assert_eq!(keep(now - hour).await, KeptUntil::Kept, "a sign-in begins without an end");
    let store = subject.open("ends").await;
    assert_eq!(done("load", store.load()).await, Record::default(), "its end has come");
    let found = done("changed", store.changed(Generation::new(3))).await;
    assert_eq!(found, Some(Record::default()), "a look does not see that its end has come");
    let outcome = soon("save", store.save(Generation::new(3), record(4, "4"))).await;
    assert!(matches!(outcome, Err(SaveError::Conflict)), "it was brought back: {outcome:?}");
    let end = soon("keep_until", store.keep_until(now + hour)).await;
    assert!(matches!(end, Ok(KeptUntil::NoTokens)), "it was brought back: {end:?}");
    let mut lease = super::lease(&store).await;
    done("save", lease.save(Generation::ZERO, record(1, "holder"))).await;
    soon("release", lease.release(None)).await;
    holds(&store, &record(1, "holder"), "what a holder saves over it has its end").await;
    keep(now - hour).await;
    done("save", store.save(Generation::ZERO, record(1, "anew"))).await;
    holds(&store, &record(1, "anew"), "it cannot be signed in to again").await;

    let deleted = done("delete", store.delete()).await;
    assert_eq!(done("keep_until", store.keep_until(now - hour)).await, KeptUntil::NoTokens);
    let signed_out = Record::new(deleted.generation, None);
    holds(&store, &signed_out, "the mark of a sign-out was given an end").await;
}

/// Any other generation is a conflict, and nothing is written. The next generation may be any
/// later one.
pub async fn a_save_takes_the_expected_generation_only<S: Subject>(subject: &S) {
    let store = subject.open("versions").await;
    signed_in(&store).await;
    for wrong in [0, 2, 17] {
        let outcome = soon("save", store.save(Generation::new(wrong), record(18, "wrong"))).await;
        assert!(
            matches!(outcome, Err(SaveError::Conflict)),
            "a save over generation {wrong} of a store at 1 is no conflict: {outcome:?}"
        );
    }
    let mut lease = super::lease(&store).await;
    for wrong in [0, 2, 17] {
        let outcome = soon("save", lease.save(Generation::new(wrong), record(18, "wrong"))).await;
        assert!(
            matches!(outcome, Err(SaveError::Conflict)),
            "a holder's save over generation {wrong} of a store at 1 is no conflict: {outcome:?}"
        );
    }
    // Another process's, of the same number and with the same tokens.
    let other = Record::new(Generation::new(1), tokens("1").with_extra("other", "field"));
    conflicts("a save of other fields", soon("save", store.save(Generation::ZERO, other)).await);
    holds(&store, &record(1, "1"), "a save that met a conflict was written").await;
    done("save", lease.save(Generation::new(1), record(17, "17"))).await;
    soon("release", lease.release(None)).await;
    done("save", store.save(Generation::new(17), record(18, "18"))).await;
    holds(&store, &record(18, "18"), "what was saved last is not there").await;
}

/// What a record says may change while its number stays, as where a browser's session gives up tokens that
/// the browser has. For a holder's save it makes no difference.
pub async fn a_save_may_keep_its_number<S: Subject>(subject: &S) {
    let store = subject.open("same").await;
    signed_in(&store).await;
    let mut lease = super::lease(&store).await;
    let other = Record::new(Generation::new(1), Tokens::new("").with_extra("a", "note"));
    done("save of the same number", store.save(Generation::new(1), other.clone())).await;
    holds(&store, &other, "a save of the same number is not there").await;
    done("save", lease.save(Generation::new(1), record(2, "2"))).await;
    soon("release", lease.release(None)).await;
    holds(&store, &record(2, "2"), "a holder's save after it is not there").await;
    let late = soon("a late save", store.save(Generation::new(1), other)).await;
    conflicts("a save of a number that is over", late);
}

/// Of sixteen handles that write at once, again and again, one writes, and the others meet a
/// conflict.
pub async fn of_racing_saves_one_wins<S: Subject>(subject: &S) {
    for round in 0..8 {
        let mut racers = JoinSet::new();
        for racer in 0..16 {
            let store = subject.open("race").await;
            racers.spawn(async move {
                let name = format!("{round}-{racer}");
                let saved = store.save(Generation::new(round), record(round + 1, &name)).await;
                (name, saved)
            });
        }
        let mut winners = Vec::new();
        while let Some(racer) = soon("a racing save", racers.join_next()).await {
            match racer {
                Ok((name, Ok(()))) => winners.push(name),
                Ok((_, Err(SaveError::Conflict))) => {}
                other => panic!("a racing save came to {other:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "not one of the racing saves has won: {winners:?}");
        let store = subject.open("race").await;
        let won = record(round + 1, &winners[0]);
        holds(&store, &won, "what was reported as saved is not what is there").await;
    }
}

/// The tokens are gone and given back to be revoked; the generation moves on and stays, so
/// that a save that was under way meets a conflict.
pub async fn a_sign_out_leaves_its_generation<S: Subject>(subject: &S) {
    let store = subject.open("sign-out").await;
    signed_in(&store).await;
    let other = subject.open("sign-out").await;
    let mut lease = super::lease(&other).await;
    let deleted = done("delete", store.delete()).await;
    assert_eq!(deleted.generation, Generation::new(2), "a sign-out is not the next generation");
    assert_eq!(deleted.tokens, Some(tokens("1")), "the tokens to be revoked are not given back");
    let out = Record::new(Generation::new(2), None);
    holds(&other, &out, "a sign-out leaves not its generation, and nothing else").await;

    let late = soon("a late save", lease.save(Generation::new(1), record(2, "late"))).await;
    conflicts("a holder's save from before the sign-out", late);
    let late = soon("a late save", other.save(Generation::ZERO, record(1, "late"))).await;
    conflicts("a first save after the sign-out", late);
    soon("release", lease.release(None)).await;
    holds(&other, &out, "a late save has brought tokens back").await;

    let again = done("delete", store.delete()).await;
    let expected = (Generation::new(3), None);
    assert_eq!((again.generation, again.tokens), expected, "a second sign-out is none");
    done("sign-in", store.save(Generation::new(3), record(4, "4"))).await;
    holds(&store, &record(4, "4"), "a sign-in after a sign-out is not there").await;

    let never = done("delete", subject.open("never").await.delete()).await;
    assert!(never.generation > Generation::ZERO, "a sign-out of nothing leaves no trace");
    assert_eq!(never.tokens, None, "a sign-out of nothing gives tokens back");
}

/// However alike two names are, their records and their locks are two.
pub async fn names_are_apart<S: Subject>(subject: &S) {
    let names = ["a", "A", "b", "a b", "a%20b", "a/b", "a.b", "..", "ä", "{a}", "}a{", "a:lease"];
    let mut leases = Vec::new();
    for (name, number) in names.iter().zip(1..) {
        let store = subject.open(name).await;
        let wrong = format!("{name:?} has the record of another name");
        holds(&store, &Record::default(), &wrong).await;
        done("save", store.save(Generation::ZERO, record(number, name))).await;
        leases.push(super::lease(&store).await);
    }
    done("delete", subject.open("b").await.delete()).await;
    for (name, number) in names.iter().zip(1..) {
        let expected = match *name {
            "b" => Record::new(Generation::new(number + 1), None),
            name => record(number, name),
        };
        let wrong = format!("{name:?} has not its own record");
        holds(&subject.open(name).await, &expected, &wrong).await;
    }
    for lease in leases {
        soon("release", lease.release(None)).await;
    }
}

/// The store's own error is the source of ours.
pub async fn errors_keep_their_source<S: Subject>(subject: &S) {
    let store = match subject.broken() {
        Ok(store) => store,
        Err(reason) => return skipped::<S>("errors_keep_their_source", reason),
    };
    let told = |what: &str, error: &dyn Error| {
        assert!(error.source().is_some(), "the error of a {what} has no source: {error}");
    };
    match soon("load", store.load()).await {
        Err(error) => told("load", &error),
        Ok(record) => panic!("a broken store has loaded {record:?}"),
    }
    match soon("save", store.save(Generation::ZERO, record(1, "1"))).await {
        Err(error @ SaveError::Failed(_)) => told("save", &error),
        other => panic!("a save in a broken store came to {other:?}"),
    }
    match soon("delete", store.delete()).await {
        Err(error) => told("delete", &error),
        Ok(deleted) => panic!("a broken store has deleted {deleted:?}"),
    }
    match soon("lease", store.lease(Generation::ZERO)).await {
        Err(error) => told("lease", &error),
        Ok(leased) => panic!("a broken store has given {leased:?}"),
    }
}
