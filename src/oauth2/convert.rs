//! The `oauth2` crate's token response as [`Tokens`]: for the sign-in, which is the program's own.

use ::oauth2::{ExtraTokenFields, StandardTokenResponse, TokenResponse as _, TokenType};
use serde_json::Value;

use crate::tokens::Tokens;

/// What a sign-in with the `oauth2` crate brings (RFC 6749, section 5.1), ready for
/// [`RefreshState::set`](crate::RefreshState::set): the access token, the refresh token, the life,
/// which counts from now, the scope, the kind of token and all other fields.
///
/// ```
/// use oauth2::basic::BasicTokenResponse;
/// use tower_refresh::Tokens;
///
/// let response: BasicTokenResponse = serde_json::from_str(
///     r#"{"access_token": "a", "token_type": "bearer", "refresh_token": "r", "expires_in": 60}"#,
/// )?;
/// let tokens = Tokens::from(&response);
/// assert_eq!((tokens.access_token(), tokens.refresh_token()), ("a", Some("r")));
/// # Ok::<_, serde_json::Error>(())
/// ```
impl<EF: ExtraTokenFields, TT: TokenType> From<&StandardTokenResponse<EF, TT>> for Tokens {
    fn from(response: &StandardTokenResponse<EF, TT>) -> Self {
        let mut tokens = Self::new(response.access_token().secret());
        if let Some(refresh_token) = response.refresh_token() {
            tokens = tokens.with_refresh_token(refresh_token.secret());
        }
        if let Some(life) = response.expires_in() {
            tokens = tokens.with_expires_in(life);
        }
        if let Some(scopes) = response.scopes() {
            let scope = scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ");
            tokens = tokens.with_extra("scope", scope);
        }
        // Both are data, and data can be written.
        let kind = serde_json::to_value(response.token_type());
        if let Ok(Value::String(kind)) = kind {
            tokens = tokens.with_extra("token_type", kind);
        }
        if let Ok(Value::Object(fields)) = serde_json::to_value(response.extra_fields()) {
            for (name, value) in fields {
                tokens = match value {
                    Value::Null => tokens,
                    Value::String(text) => tokens.with_extra(name, text),
                    value => tokens.with_extra(name, value.to_string()),
                };
            }
        }
        tokens
    }
}

/// The same of a response that is not needed any more.
impl<EF: ExtraTokenFields, TT: TokenType> From<StandardTokenResponse<EF, TT>> for Tokens {
    fn from(response: StandardTokenResponse<EF, TT>) -> Self {
        Self::from(&response)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ::oauth2::{StandardTokenResponse, basic::BasicTokenType};
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, Deserialize, Serialize)]
    struct Extra(BTreeMap<String, Value>);

    impl ExtraTokenFields for Extra {}

    #[test]
    fn all_that_a_response_says_is_kept() {
        let response: StandardTokenResponse<Extra, BasicTokenType> = serde_json::from_str(
            r#"{"access_token": "a", "token_type": "bearer", "refresh_token": "r",
                "expires_in": 60, "scope": "one two", "id_token": "i", "uid": 7, "none": null}"#,
        )
        .unwrap();
        let tokens = Tokens::from(response);
        assert_eq!((tokens.access_token(), tokens.refresh_token()), ("a", Some("r")));
        let extras: Vec<_> = tokens.extras().collect();
        let expected =
            [("id_token", "i"), ("scope", "one two"), ("token_type", "bearer"), ("uid", "7")];
        assert_eq!(extras, expected);
        assert!(tokens.expires_at().is_some());
    }
}
