//! Pages: how to begin, where tokens live, how to run it, and what is held by which test.
//!
//! | page | |
//! |---|---|
//! | [`stacks`], [`ecosystem`], [`oauth2`], [`refreshers`] | how to begin |
//! | [`stores`], [`many`], [`sessions`] | where tokens live |
//! | [`knobs`], [`operating`], [`questions`], [`glossary`] | how to run it |
//! | [`guarantees`], [`torture`], [`limits`], [`performance`] | what is held |
//!
//! There is nothing in these modules but their documentation.

// The examples on these pages need more than this crate: `testing/clients` compiles them.

/// Makes a module of each page. A name in brackets on a page leads to the source on a code host, by
/// the definition at the page's end, and to the item here: of two definitions the first counts. An
/// item whose feature is off leads to the table of features.
macro_rules! pages {
    ($links:tt $($page:ident $file:literal)+) => {
        $(page! { $page $file $links })+
    };
}

macro_rules! page {
    ($page:ident $file:literal {
        { $($name:literal $item:literal)+ }
        $($feature:literal { $($its_name:literal $its_item:literal)+ })+
    }) => {
        $(#[doc = concat!("[`", $name, "`]: ", $item)])+
        $($(
            #[cfg_attr(feature = $feature, doc = concat!("[`", $its_name, "`]: ", $its_item))]
            #[cfg_attr(not(feature = $feature), doc = concat!("[`", $its_name, "`]: crate#features"))]
        )+)+
        #[doc = ""]
        #[cfg_attr(not(doctest), doc = include_str!($file))]
        #[cfg_attr(doctest, doc = "A page.")]
        pub mod $page {}
    };
}

pages! {
    {
        {
            "Attempt" "crate::layer::Attempt"
            "AttemptError" "crate::state::AttemptError"
            "BodyError" "crate::body::BodyError"
            "Budget" "crate::body::Budget"
            "ConfigError" "crate::ConfigError"
            "Drained" "crate::state::Drained"
            "ErrorOnRefusalLayer" "crate::layer::ErrorOnRefusalLayer"
            "FailureKind" "crate::FailureKind"
            "FailureKind::Doubted" "crate::FailureKind::Doubted"
            "FromExtensions" "crate::FromExtensions"
            "GrpcStatusLayer" "crate::grpc::GrpcStatusLayer"
            "Health" "crate::state::Health"
            "MemoryStore" "crate::store::MemoryStore"
            "MemoryStores" "crate::store::MemoryStores"
            "NotReplayable" "crate::body::NotReplayable"
            "RefreshError" "crate::RefreshError"
            "RefreshFailure" "crate::RefreshFailure"
            "RefreshLayer" "crate::RefreshLayer"
            "RefreshState" "crate::RefreshState"
            "RefreshState::builder" "crate::RefreshState::builder"
            "RefreshState::set" "crate::RefreshState::set"
            "Refresher" "crate::Refresher"
            "Refusals" "crate::layer::Refusals"
            "Refused" "crate::layer::Refused"
            "Renewal" "crate::Renewal"
            "Renewal::builder" "crate::Renewal::builder"
            "ReplayBody" "crate::body::ReplayBody"
            "SaveError" "crate::store::SaveError"
            "SignedOut" "crate::state::SignedOut"
            "SignedOut::lives_on" "crate::state::SignedOut::lives_on"
            "Status" "crate::state::Status"
            "StoreError" "crate::store::StoreError"
            "Stores" "crate::store::Stores"
            "TokenStore" "crate::store::TokenStore"
            "TokenStore::keep_until" "crate::store::TokenStore::keep_until"
            "Tokens" "crate::Tokens"
            "Verdict" "crate::layer::Verdict"
            "accepted" "crate::RefreshState::accepted"
            "allow_origin" "crate::RefreshLayer::allow_origin"
            "allow_origin(origin)?" "crate::RefreshLayer::allow_origin"
            "allow_relative" "crate::RefreshLayer::allow_relative"
            "allow_relative()" "crate::RefreshLayer::allow_relative"
            "attach_header(name)" "crate::RefreshLayer::attach_header"
            "attach_with(closure)" "crate::RefreshLayer::attach_with"
            "attempt" "crate::RefreshState::attempt"
            "background_refreshes(most)" "crate::state::RenewalBuilder::background_refreshes"
            "brake(refreshes, window, pause)" "crate::state::RenewalBuilder::brake"
            "challenged" "crate::RefreshState::challenged"
            "classify(classifier)" "crate::RefreshLayer::classify"
            "clear" "crate::RefreshState::clear"
            "client_cool_down(pause)" "crate::state::RenewalBuilder::client_cool_down"
            "clone_bodies()" "crate::RefreshLayer::clone_bodies"
            "cool_down(first, most)" "crate::state::RenewalBuilder::cool_down"
            "deadline(wait)" "crate::state::RenewalBuilder::deadline"
            "drain" "crate::RefreshState::drain"
            "early_fraction(divisor)" "crate::state::RenewalBuilder::early_fraction"
            "early_refresh(window)" "crate::state::RenewalBuilder::early_refresh"
            "early_spread(percent)" "crate::state::RenewalBuilder::early_spread"
            "empty_store_ends(bool)" "crate::state::RenewalBuilder::empty_store_ends"
            "ecosystem" "crate::guide::ecosystem"
            "keep_fresh" "crate::RefreshState::keep_fresh"
            "knobs" "crate::guide::knobs"
            "layer" "crate::layer"
            "look" "crate::RefreshState::look"
            "map_body" "crate::RefreshLayer::map_body"
            "map_body(function)" "crate::RefreshLayer::map_body"
            "mark_attempts(bool)" "crate::RefreshLayer::mark_attempts"
            "name(name)" "crate::state::RenewalBuilder::name"
            "on_discard(hook)" "crate::state::RenewalBuilder::on_discard"
            "on_failure(hook)" "crate::state::RenewalBuilder::on_failure"
            "on_sign_out(hook)" "crate::state::RenewalBuilder::on_sign_out"
            "open_redeem" "crate::RefreshFailure::open_redeem"
            "questions" "crate::guide::questions"
            "refresh" "crate::RefreshState::refresh"
            "refresh_if(predicate)" "crate::RefreshLayer::refresh_if"
            "refresher_fn" "crate::refresher_fn()"
            "replay_budget(bytes)" "crate::RefreshLayer::replay_budget"
            "replay_cap(bytes)" "crate::RefreshLayer::replay_cap"
            "replay_if(predicate)" "crate::RefreshLayer::replay_if"
            "sessions" "crate::guide::sessions"
            "set" "crate::RefreshState::set"
            "state" "crate::state"
            "state.named(name)" "crate::RefreshState::named"
            "status" "crate::RefreshState::status"
            "store(store)" "crate::state::RenewalBuilder::store"
            "subscribe" "crate::RefreshState::subscribe"
            "subscribe_health" "crate::RefreshState::subscribe_health"
            "token" "crate::RefreshState::token"
            "tokens(tokens)" "crate::state::RenewalBuilder::tokens"
            "try_clone_bodies(closure)" "crate::RefreshLayer::try_clone_bodies"
            "while_unsaved(choice)" "crate::state::RenewalBuilder::while_unsaved"
        }
        "axum" {
            "NoSession" "crate::session::NoSession"
        }
        "file" {
            "FileStore" "crate::store::FileStore"
            "FileStore::open_for_group" "crate::store::FileStore::open_for_group"
            "FileStores" "crate::store::FileStores"
        }
        "in-body" {
            "Connect::new()" "crate::in_body::Connect"
            "GraphQl::new()" "crate::in_body::GraphQl"
            "GrpcWeb::new()" "crate::in_body::GrpcWeb"
            "InBodyLayer" "crate::in_body::InBodyLayer"
            "Trpc::new()" "crate::in_body::Trpc"
        }
        "metrics" {
            "metrics" "crate::metrics"
        }
        "oauth2" {
            "ClientBuilder" "crate::oauth2::ClientBuilder"
            "Revoker" "crate::oauth2::Revoker"
            "also_rejected" "crate::oauth2::ClientBuilder::also_rejected"
            "builder_allowing_http" "crate::oauth2::Client::builder_allowing_http"
            "classify_refusal" "crate::oauth2::ClientBuilder::classify_refusal"
            "client.client_credentials_grant()" "crate::oauth2::Client::client_credentials_grant"
            "client.refresh_token_grant()" "crate::oauth2::Client::refresh_token_grant"
            "client.revoker(endpoint)" "crate::oauth2::Client::revoker"
            "oauth2" "crate::oauth2"
            "oauth2::Error" "crate::oauth2::Error"
            "over" "crate::oauth2::ClientBuilder::over"
        }
        "oauth2-client" {
            "root_certificates" "crate::oauth2::ClientBuilder::root_certificates"
        }
        "postgres" {
            "PostgresStores" "crate::store::PostgresStores"
            "PostgresStores::MIGRATION" "crate::store::PostgresStores::MIGRATION"
            "sweep" "crate::store::PostgresStores::sweep"
        }
        "redis" {
            "RedisStores" "crate::store::RedisStores"
            "RedisStoresBuilder" "crate::store::RedisStoresBuilder"
        }
        "reqwest" {
            "ReqwestLayer" "crate::ReqwestLayer"
        }
        "reqwest-middleware" {
            "RefreshMiddleware" "crate::RefreshMiddleware"
        }
        "seal" {
            "Keyring" "crate::seal::Keyring"
            "SealError" "crate::seal::SealError"
        }
        "session" {
            "BackChannelLogout" "crate::session::BackChannelLogout"
            "LogoutError" "crate::session::LogoutError"
            "NoSessionId" "crate::session::NoSessionId"
            "Session::sign_out" "crate::session::Session::sign_out"
            "SessionCookie::insecure_for_development" "crate::session::SessionCookie::insecure_for_development"
            "SessionId" "crate::session::SessionId"
            "SessionLayer" "crate::session::SessionLayer"
            "SessionSlot" "crate::session::SessionSlot"
            "SessionSlot::sign_in" "crate::session::SessionSlot::sign_in"
            "Sessions::status" "crate::session::Sessions::status"
            "SignInError" "crate::session::SignInError"
            "remember" "crate::session::SealedBuilder::remember"
            "session" "crate::session"
            "trusted_origin" "crate::session::SessionsBuilder::trusted_origin"
        }
        "session-proxy" {
            "ProxyLayer" "crate::session::ProxyLayer"
        }
        "tonic" {
            "tonic_channel" "crate::tonic_channel"
        }
    }
    ecosystem "ecosystem.md"
    glossary "glossary.md"
    guarantees "guarantees.md"
    knobs "knobs.md"
    limits "limits.md"
    many "many.md"
    oauth2 "oauth2.md"
    operating "operating.md"
    performance "performance.md"
    questions "questions.md"
    refreshers "refreshers.md"
    sessions "sessions.md"
    stacks "stacks.md"
    stores "stores.md"
    torture "torture.md"
}
