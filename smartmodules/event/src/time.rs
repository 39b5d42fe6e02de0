//! RFC 3339 to milliseconds, by hand: a date crate would be the larger part of a module.

const DAY_MS: i64 = 86_400_000;

/// The time in ms since 1970, or none where `text` is not an RFC 3339 time or lies before 1970. Digits after the
/// millisecond are cut off. A leap second counts as the first second of the next minute.
pub fn rfc3339_ms(text: &str) -> Option<u64> {
    let mut cursor = Cursor { rest: text.as_bytes() };
    let year = cursor.number(4)?;
    let month = cursor.after(b"-", 2)?;
    let day = cursor.after(b"-", 2)?;
    let hour = cursor.after(b"Tt", 2)?;
    let minute = cursor.after(b":", 2)?;
    let second = cursor.after(b":", 2)?;
    if !(1..=12).contains(&month) || !(1..=month_days(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let millis = cursor.fraction_ms()?;
    let offset_minutes = cursor.offset_minutes()?;
    if !cursor.rest.is_empty() {
        return None;
    }
    let time_ms = ((hour * 60 + minute - offset_minutes) * 60 + second) * 1000 + millis;
    u64::try_from(days_since_1970(year, month, day) * DAY_MS + time_ms).ok()
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        wanted.contains(first).then(|| {
            self.rest = rest;
            *first
        })
    }

    /// Exactly `digits` decimal digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (head, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        head.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    }

    fn after(&mut self, separator: &[u8], digits: usize) -> Option<i64> {
        self.one_of(separator)?;
        self.number(digits)
    }

    fn fraction_ms(&mut self) -> Option<i64> {
        if self.one_of(b".").is_none() {
            return Some(0);
        }
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (head, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let ms = head.iter().chain(b"000").take(3).fold(0, |n, b| n * 10 + i64::from(b - b'0'));
        (digits > 0).then_some(ms)
    }

    fn offset_minutes(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let (hours, minutes) = (self.number(2)?, self.after(b":", 2)?);
        (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
    }
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days in the proleptic Gregorian calendar, counted in years that begin in March so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2015-02-16T23:36:00Z", 1_424_129_760_000),
            ("2016-09-04T21:15:00.5Z", 1_473_023_700_500),
            ("2016-09-04t21:15:00.123999z", 1_473_023_700_123),
            ("2000-02-29T12:00:00+02:30", 951_816_600_000),
            ("1969-12-31T23:30:00-01:00", 1_800_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(rfc3339_ms(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2015-02-16",
            "2015-02-16T23:36:00",
            "2015-02-16 23:36:00Z",
            "2015-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2015-13-01T00:00:00Z",
            "2015-00-01T00:00:00Z",
            "2015-01-00T00:00:00Z",
            "2015-01-01T24:00:00Z",
            "2015-01-01T00:60:00Z",
            "2015-01-01T00:00:61Z",
            "2015-01-01T00:00:00.Z",
            "2015-01-01T00:00:00+0100",
            "2015-01-01T00:00:00+24:00",
            "2015-01-01T00:00:00Zx",
            "+015-01-01T00:00:00Z",
            "２015-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339_ms(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_day_before() {
        let mut expected = 0;
        for year in 1970..2470 {
            for month in 1..=12 {
                for day in 1..=month_days(year, month) {
                    assert_eq!(days_since_1970(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }
}
