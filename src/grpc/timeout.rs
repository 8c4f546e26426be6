//! `grpc-timeout`: how long the caller of an RPC waits for its response (gRPC over HTTP/2,
//! "Requests"). One to eight digits and a unit.
//!
//! An attempt that is sent later, after a refresh, carries what is left of the time: of five
//! seconds not five, if two were spent on the refresh.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

pub(crate) const NAME: &str = "grpc-timeout";

pub(crate) static TIMEOUT: HeaderName = HeaderName::from_static(NAME);

/// What eight digits can say.
const MAX_NUMBER: u128 = 99_999_999;

/// The units and how many nanoseconds they have, the finest first.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3600 * 1_000_000_000),
];

/// Until when a request that begins now has time. `None` without a `grpc-timeout`, or if it is
/// malformed.
pub(crate) fn deadline(headers: &HeaderMap) -> Option<Instant> {
    Instant::now().checked_add(parse(headers.get(&TIMEOUT)?.as_bytes())?)
}

/// The timeout that is left until then, rounded down, and never zero: with the smallest one
/// the client below says in its own words that the time is up.
pub(crate) fn until(deadline: Instant) -> HeaderValue {
    let text = format(deadline.saturating_duration_since(Instant::now()));
    // Cannot fail: the text is digits and a letter.
    HeaderValue::from_str(&text).expect("digits and a letter can stand in a header")
}

fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let (_, unit) = UNITS.iter().find(|(letter, _)| letter == unit)?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |sum, digit| sum * 10 + u128::from(digit - b'0'));
    let nanos = number * unit;
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// The time in the finest unit whose number fits.
fn format(left: Duration) -> String {
    let nanos = left.as_nanos();
    let fits = UNITS.iter().find(|(_, unit)| nanos / unit <= MAX_NUMBER);
    let (letter, unit) = fits.unwrap_or(&UNITS[UNITS.len() - 1]);
    let number = (nanos / unit).clamp(1, MAX_NUMBER);
    format!("{number}{}", char::from(*letter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_is_known() {
        for (text, expected) in [
            ("1n", Duration::from_nanos(1)),
            ("20u", Duration::from_micros(20)),
            ("300m", Duration::from_millis(300)),
            ("4000S", Duration::from_secs(4000)),
            ("00000005M", Duration::from_secs(5 * 60)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        for text in [
            "",
            "S",
            "5",
            "5s",
            "5h",
            "123456789n",
            "1.5S",
            "-1S",
            "+1S",
            " 1S",
            "1 S",
            "1S ",
            "١S",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_finest_unit_that_fits_is_taken() {
        for (left, expected) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_millis(99_999), "99999000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(99_999_999), "99999999S"),
            (Duration::from_secs(100_000_019), "1666666M"),
            (Duration::from_secs(6_000_000_000), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format(left), expected, "{left:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Never more than there is, and within a hundredth of a percent of it.
        #[test]
        fn what_is_left_is_said_to_four_digits_at_least(
            (digits, rest) in (0..27_u32).prop_flat_map(|size| (Just(size), 0..10_u128.pow(size))),
        ) {
            let nanos = (10_u128.pow(digits) + rest).min(MAX_NUMBER * 3600 * 1_000_000_000);
            let left = Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32);
            let said = format(left);
            let said = parse(said.as_bytes()).expect(&said);
            prop_assert!(said <= left);
            prop_assert!(left - said <= left / 10_000, "{:?} of {:?}", said, left);
        }

        #[test]
        fn what_comes_back_is_no_longer(text in "[0-9]{0,9}[numSMHx+ ]?") {
            if let Some(said) = parse(text.as_bytes()) {
                prop_assert!(format(said).len() <= 9);
            }
        }
    }
}
