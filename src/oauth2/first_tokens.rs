//! The first tokens, which come from the oauth2 crate's flows with a user.

use ::oauth2::{ExtraTokenFields, StandardTokenResponse, TokenResponse, TokenType};
use serde::Serialize;
use serde_json::Value;

use crate::tokens::Tokens;

/// What a flow of the oauth2 crate 5 has ended with, for [`RefreshState::set`] or
/// [`RefreshStateBuilder::tokens`]. Its life counts from when it is given to them.
///
/// [`RefreshState::set`]: crate::RefreshState::set
/// [`RefreshStateBuilder::tokens`]: crate::state::RefreshStateBuilder::tokens
impl<EF: ExtraTokenFields, TT: TokenType> From<StandardTokenResponse<EF, TT>> for Tokens {
    fn from(response: StandardTokenResponse<EF, TT>) -> Self {
        let mut tokens = Self::new(response.access_token().secret());
        if let Some(refresh_token) = response.refresh_token() {
            tokens = tokens.with_refresh_token(refresh_token.secret());
        }
        if let Some(life) = response.expires_in() {
            tokens = tokens.with_expires_in(life);
        }
        if let Some(scopes) = response.scopes() {
            let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
            tokens = tokens.with_extra("scope", scopes.join(" "));
        }
        let kind = text(response.token_type()).map(|kind| ("token_type".to_owned(), kind));
        let extras = match serde_json::to_value(response.extra_fields()) {
            Ok(Value::Object(extras)) => extras,
            _ => serde_json::Map::new(),
        };
        let extras = extras.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?)));
        kind.into_iter()
            .chain(extras)
            .fold(tokens, |tokens, (name, value)| tokens.with_extra(name, value))
    }
}

/// A text as it is, anything else but null as JSON.
fn text(value: &impl Serialize) -> Option<String> {
    match serde_json::to_value(value).ok()? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use ::oauth2::basic::BasicTokenType;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, Serialize)]
    struct More {
        id_token: String,
        number: u64,
        missing: Option<String>,
    }

    impl ExtraTokenFields for More {}

    #[test]
    fn a_response_of_the_oauth2_crate_becomes_tokens() {
        let response: StandardTokenResponse<More, BasicTokenType> = serde_json::from_str(
            r#"{"access_token":"a","refresh_token":"r","token_type":"Bearer","expires_in":60,"scope":"x y","id_token":"i","number":7}"#,
        )
        .unwrap();
        let now = SystemTime::now();
        let tokens = Tokens::from(response);
        assert_eq!((tokens.access_token(), tokens.refresh_token()), ("a", Some("r")));
        assert!(tokens.expires_at().is_some_and(|end| end >= now + Duration::from_secs(60)));
        let extras: Vec<_> = tokens.extras().collect();
        let expected =
            [("id_token", "i"), ("number", "7"), ("scope", "x y"), ("token_type", "bearer")];
        assert_eq!(extras, expected);
    }
}
