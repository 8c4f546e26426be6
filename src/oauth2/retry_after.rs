//! `Retry-After` (RFC 9110, section 10.2.3), and what servers make of it: a fraction, more
//! digits than fit, a list.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap,
    header::{DATE, RETRY_AFTER},
};

/// The first wait in it that can be read. A date is measured from the response's own `Date`
/// where there is one, because the server's clock may be off.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let sent = headers.get(DATE).and_then(|value| value.to_str().ok()).map(str::trim);
    let now = sent.and_then(date).unwrap_or(now);
    let wait = |text: &str| {
        let text = text.trim();
        let until = || Some(date(text)?.duration_since(now).unwrap_or_default());
        seconds(text).or_else(until)
    };
    let lines = headers.get_all(RETRY_AFTER).iter().filter_map(|line| line.to_str().ok());
    lines.into_iter().find_map(|line| {
        let parts: Vec<&str> = line.split(',').collect();
        // A date has a comma of its own.
        let pairs = parts.windows(2).map(|pair| pair.join(","));
        let pairs = pairs.map(Some).chain([None]);
        parts
            .iter()
            .zip(pairs)
            .find_map(|(part, pair)| wait(part).or_else(|| pair.as_deref().and_then(wait)))
    })
}

/// Digits, perhaps with a fraction. More than fit are for ever.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let whole = Duration::from_secs(whole.parse().unwrap_or(u64::MAX));
    let fraction = format!("0.{fraction}").parse().ok().map(Duration::from_secs_f64);
    Some(whole.saturating_add(fraction.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(lines: &[&str]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
        for line in lines {
            headers.append(RETRY_AFTER, line.parse().unwrap());
        }
        retry_after(&headers, SystemTime::UNIX_EPOCH)
    }

    const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

    #[test]
    fn the_first_wait_that_can_be_read_counts() {
        for lines in [
            &["60"][..],
            &[" 60 "],
            &["60.0"],
            &["60."],
            &["00060"],
            &["60, 120"],
            &["60,"],
            &["soon, 60"],
            &["60", "120"],
            &["soon", "60"],
            &["Wed, 21 Oct 2015 07:29:00 GMT"],
            &["Wed, 21 Oct 2015 07:29:00 GMT, 120"],
            &["60, Wed, 21 Oct 2015 07:28:00 GMT"],
            &["soon, Wed, 21 Oct 2015 07:29:00 GMT"],
            &["Wednesday, 21-Oct-15 07:29:00 GMT"],
        ] {
            assert_eq!(wait(lines), MINUTE, "{lines:?}");
        }
        assert_eq!(wait(&["1.5"]), Some(Duration::from_millis(1500)));
        assert_eq!(wait(&["Wed, 21 Oct 2015 07:27:00 GMT"]), Some(Duration::ZERO));
    }

    #[test]
    fn more_digits_than_fit_are_for_ever() {
        for digits in ["99999999999999999999", "99999999999999999999.9", "18446744073709551615.9"] {
            assert_eq!(wait(&[digits]).unwrap().as_secs(), u64::MAX, "{digits}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_none() {
        for lines in
            [&[][..], &[""], &["soon"], &["-1"], &["1e3"], &["0x10"], &[".5"], &["1.5s"], &["NaN"]]
        {
            assert_eq!(wait(lines), None, "{lines:?}");
        }
    }
}
