//! The dates of HTTP (`Sun, 06 Nov 1994 08:49:37 GMT`), for any clock.
//!
//! hyper writes the `Date` header with a crate of this name, and renders the date of now on every
//! connection of HTTP/1, even where the header is turned off. The published crate panics for times
//! before 1970, so that a machine that starts without a battery behind its clock, or with a wrong
//! one, could not answer a single request. This package stands in for it (`[patch.crates-io]` in
//! `Cargo.toml`): it has what our dependencies use of the other, and times that HTTP cannot write
//! become the nearest one that it can. Nobody in the workspace reads dates; a dependency that wants
//! to does not compile, and says so.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// 9999-12-31T23:59:59Z: the year of HTTP's dates has four digits.
const SECONDS_MAX: u64 = 253_402_300_799;

/// The days of the Gregorian calendar repeat after four hundred years.
const CYCLE_YEARS: u64 = 400;
const CYCLE_DAYS: u64 = 146_097;

/// 1970-01-01 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

const MONTHS: [(&str, u64); 12] = [
    ("Jan", 31),
    ("Feb", 28),
    ("Mar", 31),
    ("Apr", 30),
    ("May", 31),
    ("Jun", 30),
    ("Jul", 31),
    ("Aug", 31),
    ("Sep", 30),
    ("Oct", 31),
    ("Nov", 30),
    ("Dec", 31),
];

/// A time as HTTP writes it: to the second, from the beginning of 1970 to the end of 9999.
///
/// Its text is the `IMF-fixdate` of RFC 9110 §5.6.7, always 29 bytes of ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpDate {
    /// Since 1970, at most [`SECONDS_MAX`].
    seconds: u64,
}

impl From<SystemTime> for HttpDate {
    /// What comes before 1970 is its beginning, what comes after 9999 is its end.
    fn from(time: SystemTime) -> HttpDate {
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        HttpDate { seconds: since_1970.as_secs().min(SECONDS_MAX) }
    }
}

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.seconds / DAY_SECONDS;
        let second = self.seconds % DAY_SECONDS;
        let (year, month, day) = date(days);
        write!(
            f,
            "{}, {day:02} {month} {year:04} {:02}:{:02}:{:02} GMT",
            WEEKDAYS[(days % 7) as usize],
            second / 3_600,
            second / 60 % 60,
            second % 60
        )
    }
}

/// The time as HTTP writes it.
#[must_use]
pub fn fmt_http_date(time: SystemTime) -> String {
    HttpDate::from(time).to_string()
}

/// Year, month and day, so many days after 1970-01-01. Whoever asks does so once a second or once
/// a connection, and counting through the years of a life takes less than writing the text.
fn date(days: u64) -> (u64, &'static str, u64) {
    let mut year = 1970 + days / CYCLE_DAYS * CYCLE_YEARS;
    let mut left = days % CYCLE_DAYS;
    while left >= 365 + leap_days(year) {
        left -= 365 + leap_days(year);
        year += 1;
    }
    let mut month = 0;
    loop {
        let (name, usual_days) = MONTHS[month];
        let month_days = if name == "Feb" { usual_days + leap_days(year) } else { usual_days };
        if left < month_days {
            return (year, name, left + 1);
        }
        left -= month_days;
        month += 1;
    }
}

fn leap_days(year: u64) -> u64 {
    u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn text(seconds: i64) -> String {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance };
        fmt_http_date(time)
    }

    #[test]
    fn times_are_written_as_the_standard_does() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            // The example of RFC 9110.
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(text(seconds), expected);
        }
    }

    #[test]
    fn what_cannot_be_written_is_the_nearest_that_can() {
        for before in [-1, -86_400, -62_167_219_200, i64::from(i32::MIN)] {
            assert_eq!(text(before), "Thu, 01 Jan 1970 00:00:00 GMT");
        }
        for after in [253_402_300_800, 1_000_000_000_000] {
            assert_eq!(text(after), "Fri, 31 Dec 9999 23:59:59 GMT");
        }
        assert_eq!(HttpDate::from(UNIX_EPOCH + Duration::from_millis(1_999)).seconds, 1);
    }

    /// Days since 1970-01-01, by counting leap years instead of going through them.
    fn days_from(year: u64, month: &str, day: u64) -> u64 {
        let leaps_through = |year: u64| year / 4 - year / 100 + year / 400;
        let years = 365 * (year - 1970) + leaps_through(year - 1) - leaps_through(1969);
        let months = MONTHS.iter().take_while(|(name, _)| *name != month).map(|(_, days)| days);
        let is_late = !["Jan", "Feb"].contains(&month);
        let leap_day = leaps_through(year) - leaps_through(year - 1);
        years + months.sum::<u64>() + if is_late { leap_day } else { 0 } + day - 1
    }

    proptest! {
        #[test]
        fn any_time_is_read_again_from_its_text(seconds in 0..=SECONDS_MAX) {
            let text = text(seconds as i64);
            prop_assert_eq!(text.len(), 29);
            let [weekday, day, month, year, clock, zone] =
                text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
            let days = days_from(year.parse().unwrap(), month, day.parse().unwrap());
            prop_assert_eq!(weekday, format!("{},", WEEKDAYS[(days % 7) as usize]));
            let parts = clock.split(':').map(|part| part.parse::<u64>().unwrap());
            let second = parts.fold(0, |sum, part| sum * 60 + part);
            prop_assert_eq!(days * DAY_SECONDS + second, seconds);
            prop_assert_eq!(zone, "GMT");
        }
    }
}
