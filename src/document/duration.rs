//! Durations as policies and configuration write them: `15m`, `1h30m`, `30d`, `0s`.

use std::time::Duration;

/// Longest duration accepted: a hundred years, so that adding one to a time of this age cannot overflow.
const SECONDS_MAX: u64 = 100 * 366 * 86_400;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a duration: write numbers with units `d`, `h`, `m`, `s` or `ms`, as in `15m`, `1h30m` or `30d`")]
pub struct DurationError(String);

/// Parses a duration: numbers with the units `w`, `d`, `h`, `m`, `s` and `ms`, the larger unit first and none
/// twice. A number without a unit is refused, `0` included.
pub fn duration(text: &str) -> Result<Duration, DurationError> {
    parse(text).ok_or_else(|| DurationError(super::quoted(text)))
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut last_rank = 0;
    while !rest.is_empty() || last_rank == 0 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let (rank, millis) = match &rest[..letters] {
            "w" => (1, 7 * 86_400_000),
            "d" => (2, 86_400_000),
            "h" => (3, 3_600_000),
            "m" => (4, 60_000),
            "s" => (5, 1000),
            "ms" => (6, 1),
            _ => return None,
        };
        if rank <= last_rank {
            return None;
        }
        last_rank = rank;
        rest = &rest[letters..];
        total = total.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
    }
    (total.as_secs() <= SECONDS_MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_that_people_write() {
        for (text, seconds) in
            [("15m", 900), ("1h30m", 5400), ("30d", 2_592_000), ("0s", 0), ("1w2d", 777_600), ("1500ms", 1)]
        {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for wrong in ["", "15", "0", "m", "1m1m", "30m1h", "1.5h", "-1s", "1 h", "99999999999999999999s", "9999999w"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
