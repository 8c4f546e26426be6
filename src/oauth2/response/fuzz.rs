use super::*;

/// Whatever a token endpoint answers.
pub(crate) fn token_answer(body: &[u8]) {
    for status in [200, 400] {
        for is_cut in [false, true] {
            let reading = reading(body, status, is_cut, "");
            grants_what_it_says(&reading);
            says_nothing_of_its_own(&reading, body);
            says_the_same_again(&reading);
        }
    }
    reading(body, 200, false, "deflate");
    agrees_with_a_strict_parser(body);
    gives_no_part_of_a_token(body);
}

const MAX: usize = 1 << 16;

fn reading(body: &[u8], status: u16, is_cut: bool, coding: &'static str) -> Reading {
    let head = Response::builder().status(status).header("content-encoding", coding).body(());
    let (head, ()) = head.expect("a head").into_parts();
    let reading = read(&head, Bytes::copy_from_slice(body), is_cut, MAX);
    assert!(reading.refused.body.len() <= MAX.max(body.len()));
    reading
}

fn fields(reading: &Reading) -> BTreeMap<String, Value> {
    serde_json::from_slice(reading.response.body()).expect("an object")
}

fn granted(reading: &Reading) -> Option<Tokens> {
    let is_good = reading.is_usable && reading.response.status() == StatusCode::OK;
    let response = serde_json::from_slice(reading.response.body()).ok().filter(|_| is_good)?;
    Some(tokens(&response, None))
}

/// The oauth2 crate takes whatever has an access token: one that it refused would be lost.
fn grants_what_it_says(reading: &Reading) {
    if reading.response.status() == StatusCode::OK {
        let has_token = fields(reading).contains_key("access_token");
        assert_eq!(granted(reading).is_some(), has_token && reading.is_usable);
    }
}

/// Each token stands in the body as it is, where nothing in it is written in another way.
fn says_nothing_of_its_own(reading: &Reading, body: &[u8]) {
    let Some(tokens) = granted(reading) else { return };
    let text = String::from_utf8_lossy(body);
    if reading.oddities.contains(&COMPRESSED) || text.contains(['\\', '%', '+']) {
        return;
    }
    assert!(text.contains(tokens.access_token()));
    assert!(text.contains(tokens.refresh_token().unwrap_or_default()));
}

/// What was read, written down, is read the same.
fn says_the_same_again(reading: &Reading) {
    if !reading.is_usable {
        return;
    }
    let (status, body) = (reading.response.status().as_u16(), reading.response.body());
    let again = self::reading(body, status, false, "");
    assert!(again.is_usable);
    assert_eq!(again.response.status(), reading.response.status());
    assert_eq!(fields(&again), fields(reading));
}

/// Both tokens of an answer that is good by the letter of RFC 6749, section 5.1.
fn by_the_letter(body: &[u8]) -> Option<(String, String)> {
    let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let token = |name: &str| {
        // `Tokens` take white space off at its ends.
        let token = fields.get(name)?.as_str()?.trim();
        (!token.is_empty()).then(|| token.to_owned())
    };
    Some((token("access_token")?, token("refresh_token")?))
}

fn pair(tokens: &Tokens) -> (String, String) {
    let refresh_token = tokens.refresh_token().unwrap_or_default();
    (tokens.access_token().to_owned(), refresh_token.to_owned())
}

fn agrees_with_a_strict_parser(body: &[u8]) {
    if let Some(meant) = by_the_letter(body) {
        assert_eq!(granted(&reading(body, 200, false, "")).as_ref().map(pair), Some(meant));
    }
}

/// However much is missing of a good answer, both of its tokens are read as they are, or none is.
fn gives_no_part_of_a_token(body: &[u8]) {
    let Some(meant) = by_the_letter(body) else { return };
    let count = |name: &[u8]| body.windows(name.len()).filter(|at| *at == name).count();
    // One name for two fields, and a brace in a text: what is meant is a guess.
    if count(b"access_token") > 1 || count(b"refresh_token") > 1 || count(b"{") > 1 {
        return;
    }
    let sum = body.iter().map(|byte| usize::from(*byte)).sum::<usize>();
    let granted = granted(&reading(&body[..sum % body.len()], 200, true, ""));
    assert!(granted.is_none_or(|granted| pair(&granted) == meant));
}
