//! Dates and times as integers: days and microseconds from 1970-01-01, their text forms, and rounding as engines round.

use super::schema::Rounding;

/// PostgreSQL's infinities, in days and in microseconds. They sort before and after every date.
pub const DATE_NEG_INFINITY: i32 = i32::MIN;
pub const DATE_INFINITY: i32 = i32::MAX;
pub const TIMESTAMP_NEG_INFINITY: i64 = i64::MIN;
pub const TIMESTAMP_INFINITY: i64 = i64::MAX;

pub const MICROS_PER_SECOND: i64 = 1_000_000;
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Days from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
pub const POSTGRES_EPOCH_DAYS: i32 = 10_957;
pub const POSTGRES_EPOCH_MICROS: i64 = POSTGRES_EPOCH_DAYS as i64 * MICROS_PER_DAY;

/// MySQL's dates that no calendar has (0000-00-00, 2024-00-15): kept apart from real ones, below all of them.
const ODD_DATES_FROM: i32 = i32::MIN + 1;
const ODD_DATES_END: i32 = ODD_DATES_FROM + 10_000 * 13 * 32;
const ODD_TIMES_FROM: i64 = i64::MIN + 1;
const ODD_TIMES_END: i64 = ODD_TIMES_FROM + 10_000 * 13 * 32 * MICROS_PER_DAY;

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar (year 0 is 1 BC).
pub fn days_from_civil(year: i32, month: u32, day: u32) -> Option<i32> {
    if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let (y, m, d) = (i64::from(year) - i64::from(month <= 2), i64::from(month), i64::from(day));
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    i32::try_from(era * 146_097 + doe - 719_468).ok()
}

/// The inverse of [`days_from_civil`].
pub fn civil_from_days(days: i32) -> (i32, u32, u32) {
    let z = i64::from(days) + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let small = |n: i64| u32::try_from(n).unwrap_or(0);
    (i32::try_from(year).unwrap_or(i32::MAX), small(month), small(day))
}

fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days for any year, month, day that MySQL stores, real or not.
#[inline]
pub fn mysql_date(year: u16, month: u8, day: u8) -> Option<i32> {
    // Every month has these days, and the year begins in March.
    if let (1.., 1..=12, 1..=28) = (year, month, day) {
        let (year, month) = (i32::from(year) - i32::from(month <= 2), i32::from(month) + 9);
        let month = if month < 12 { month } else { month - 12 };
        let before = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
        return Some(before + i32::from(day) - 1 - 719_468);
    }
    mysql_end_of_month(year, month, day)
}

fn mysql_end_of_month(year: u16, month: u8, day: u8) -> Option<i32> {
    if let Some(days) = days_from_civil(i32::from(year), u32::from(month), u32::from(day)) {
        return Some(days);
    }
    (year < 10_000 && month < 13 && day < 32)
        .then(|| ODD_DATES_FROM + (i32::from(year) * 13 + i32::from(month)) * 32 + i32::from(day))
}

/// Microseconds for any date that MySQL stores, with the time of day.
#[inline]
pub fn mysql_datetime(year: u16, month: u8, day: u8, micros: i64) -> Option<i64> {
    let days = mysql_date(year, month, day)?;
    Some(if (ODD_DATES_FROM..ODD_DATES_END).contains(&days) {
        ODD_TIMES_FROM + i64::from(days - ODD_DATES_FROM) * MICROS_PER_DAY + micros
    } else {
        i64::from(days) * MICROS_PER_DAY + micros
    })
}

/// A finite timestamp that a calendar has.
pub fn is_ordinary(micros: i64) -> bool {
    micros >= ODD_TIMES_END && micros != TIMESTAMP_INFINITY
}

/// Rounds microseconds to `digits` of a second, as the engine that stores that many would.
pub fn round_micros(micros: i64, digits: u8, rounding: Rounding) -> i64 {
    if digits >= 6 || !is_ordinary(micros) {
        return micros;
    }
    let step = 10i64.pow(u32::from(6 - digits));
    match rounding {
        Rounding::Truncate => micros.div_euclid(step) * step,
        Rounding::HalfUp => (micros + step / 2).div_euclid(step) * step,
        Rounding::HalfAwayFromZero => {
            let from_epoch = micros - POSTGRES_EPOCH_MICROS;
            let away = (from_epoch.abs() + step / 2) / step * step;
            POSTGRES_EPOCH_MICROS + if from_epoch < 0 { -away } else { away }
        }
    }
}

/// Rounds a time of day or a signed duration.
pub fn round_time(micros: i64, digits: u8, rounding: Rounding) -> i64 {
    if digits >= 6 {
        return micros;
    }
    let step = 10i64.pow(u32::from(6 - digits));
    let magnitude = match rounding {
        Rounding::Truncate => micros.abs() / step * step,
        Rounding::HalfUp | Rounding::HalfAwayFromZero => (micros.abs() + step / 2) / step * step,
    };
    if micros < 0 { -magnitude } else { magnitude }
}

/// `2024-02-29`, `0044-03-15 BC`, `infinity`, `2024-00-15`.
pub fn date_text(days: i32) -> String {
    match days {
        DATE_INFINITY => "infinity".to_owned(),
        DATE_NEG_INFINITY => "-infinity".to_owned(),
        ODD_DATES_FROM..ODD_DATES_END => {
            let odd = days - ODD_DATES_FROM;
            format!("{:04}-{:02}-{:02}", odd / 416, odd / 32 % 13, odd % 32)
        }
        _ => {
            let (year, month, day) = civil_from_days(days);
            if year <= 0 {
                format!("{:04}-{month:02}-{day:02} BC", 1 - i64::from(year))
            } else {
                format!("{year:04}-{month:02}-{day:02}")
            }
        }
    }
}

/// `2024-02-29 12:00:00.5`, with ` BC` behind where the date has it.
pub fn timestamp_text(micros: i64) -> String {
    match micros {
        TIMESTAMP_INFINITY => "infinity".to_owned(),
        TIMESTAMP_NEG_INFINITY => "-infinity".to_owned(),
        ODD_TIMES_FROM..ODD_TIMES_END => {
            let odd = micros - ODD_TIMES_FROM;
            let days = ODD_DATES_FROM + i32::try_from(odd.div_euclid(MICROS_PER_DAY)).unwrap_or(0);
            format!("{} {}", date_text(days), time_text(odd.rem_euclid(MICROS_PER_DAY)))
        }
        _ => {
            let days = i32::try_from(micros.div_euclid(MICROS_PER_DAY)).unwrap_or(i32::MAX - 1);
            let date = date_text(days);
            let time = time_text(micros.rem_euclid(MICROS_PER_DAY));
            match date.strip_suffix(" BC") {
                Some(date) => format!("{date} {time} BC"),
                None => format!("{date} {time}"),
            }
        }
    }
}

/// `12:00:00.25`; hours may pass 24 and a sign may stand before (MySQL).
pub fn time_text(micros: i64) -> String {
    let total = micros.unsigned_abs();
    let (seconds, fraction) = (total / 1_000_000, total % 1_000_000);
    let sign = if micros < 0 { "-" } else { "" };
    let mut text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        text.push('.');
        text.push_str(format!("{fraction:06}").trim_end_matches('0'));
    }
    text
}

/// Reads `YYYY-MM-DD`, strictly.
pub fn parse_date(text: &str) -> Option<i32> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    days_from_civil(i32::try_from(number(year)?).ok()?, number(month)?, number(day)?)
}

/// Reads the years that `parse_date` does not: `0044-03-15 BC`, `10000-01-01`.
pub fn parse_far_date(text: &str) -> Option<i32> {
    let (date, is_bc) = text.strip_suffix(" BC").map_or((text, false), |date| (date, true));
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if !(4..=7).contains(&year.len()) || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let year = i32::try_from(number(year)?).ok()?;
    days_from_civil(if is_bc { 1 - year } else { year }, number(month)?, number(day)?)
}

/// As [`parse_far_date`], with a time of day and an offset as `parse_timestamp` reads them.
pub fn parse_far_timestamp(text: &str) -> Option<i64> {
    let (moment, era) = text.strip_suffix(" BC").map_or((text, ""), |moment| (moment, " BC"));
    let (date, clock) = moment.split_once(' ').unwrap_or((moment, "00:00"));
    let days = parse_far_date(&format!("{date}{era}"))?;
    let (of_day, _) = parse_timestamp(&format!("1970-01-01 {clock}"))?;
    i64::from(days).checked_mul(MICROS_PER_DAY)?.checked_add(of_day)
}

/// Reads `HH:MM[:SS[.ffffff]]`, strictly, with at most six digits that are not zero.
pub fn parse_time(text: &str) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let parts: Vec<&str> = clock.split(':').collect();
    let (hours, minutes, seconds) = match parts.as_slice() {
        [h, m] if fraction.is_empty() => (number(h)?, number(m)?, 0),
        [h, m, s] if s.len() == 2 => (number(h)?, number(m)?, number(s)?),
        _ => return None,
    };
    if parts[1].len() != 2 || parts[0].len() < 2 || minutes > 59 || seconds > 59 || hours > 838 {
        return None;
    }
    if text.contains('.') && fraction.is_empty() {
        return None;
    }
    let mut micros = 0i64;
    for (at, digit) in fraction.bytes().enumerate() {
        let digit = i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        match at {
            0..6 => micros = micros * 10 + digit,
            _ if digit == 0 => {}
            _ => return None,
        }
    }
    for _ in fraction.len()..6 {
        micros *= 10;
    }
    let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
    Some(sign * (seconds * MICROS_PER_SECOND + micros))
}

/// Reads `YYYY-MM-DD[ |T]HH:MM[:SS[.ffffff]][Z|+HH:MM]`; the offset, where there is one, in seconds east.
pub fn parse_timestamp(text: &str) -> Option<(i64, Option<i32>)> {
    let date = parse_date(text.get(..10)?)?;
    let midnight = i64::from(date) * MICROS_PER_DAY;
    let Some(rest) = text.get(10..).filter(|rest| !rest.is_empty()) else { return Some((midnight, None)) };
    let rest = rest.strip_prefix([' ', 'T'])?;
    let (clock, offset) = if let Some(clock) = rest.strip_suffix(['Z', 'z']) {
        (clock, Some(0))
    } else if let Some(at) = rest.rfind(['+', '-']) {
        (&rest[..at], Some(parse_offset(&rest[at..])?))
    } else {
        (rest, None)
    };
    let time = parse_time(clock).filter(|micros| (0..MICROS_PER_DAY).contains(micros))?;
    let zone = i64::from(offset.unwrap_or(0)) * MICROS_PER_SECOND;
    Some((midnight + time - zone, offset))
}

fn parse_offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some((h, m)) => (h, m),
        None if rest.len() == 4 => rest.split_at(2),
        None => (rest, "00"),
    };
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (i32::try_from(number(hours)?).ok()?, i32::try_from(number(minutes)?).ok()?);
    (hours < 16 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.len() < 9 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(days_from_civil(1970, 1, 1), Some(0));
        assert_eq!(days_from_civil(2000, 1, 1), Some(POSTGRES_EPOCH_DAYS));
        assert_eq!(days_from_civil(2024, 2, 29), Some(19_782));
        assert_eq!(days_from_civil(2023, 2, 29), None);
        assert_eq!(date_text(days_from_civil(-43, 3, 15).unwrap()), "0044-03-15 BC");
        assert_eq!(date_text(DATE_INFINITY), "infinity");
    }

    #[test]
    fn dates_of_mysql_are_the_calendars() {
        for year in 0..=9999 {
            for (month, day) in (1..=12).flat_map(|month| [1, 2, 28].map(|day| (month, day))) {
                let days = days_from_civil(i32::from(year), u32::from(month), u32::from(day));
                assert_eq!(mysql_date(year, month, day), days, "{year}-{month}-{day}");
            }
        }
    }

    #[test]
    fn odd_dates_of_mysql_stay_themselves() {
        for (y, m, d, text) in
            [(0, 0, 0, "0000-00-00"), (2024, 0, 15, "2024-00-15"), (2024, 2, 31, "2024-02-31")]
        {
            let days = mysql_date(y, m, d).unwrap();
            assert_eq!(date_text(days), text);
            let micros = mysql_datetime(y, m, d, 3_600_000_000).unwrap();
            assert_eq!(timestamp_text(micros), format!("{text} 01:00:00"));
            assert_eq!(round_micros(micros + 1, 0, Rounding::HalfUp), micros + 1);
        }
    }

    #[test]
    fn rounding_as_each_engine_does() {
        let half = 500_000;
        assert_eq!(round_micros(half, 0, Rounding::Truncate), 0);
        assert_eq!(round_micros(half, 0, Rounding::HalfUp), 1_000_000);
        // Before 2000 PostgreSQL's halves go towards the past.
        assert_eq!(round_micros(half, 0, Rounding::HalfAwayFromZero), 0);
        let later = POSTGRES_EPOCH_MICROS + half;
        assert_eq!(round_micros(later, 0, Rounding::HalfAwayFromZero), later + half);
        assert_eq!(round_micros(1_234_567, 3, Rounding::HalfUp), 1_235_000);
        assert_eq!(round_time(-1_500_000, 0, Rounding::HalfUp), -2_000_000);
        assert_eq!(round_time(-1_500_000, 0, Rounding::Truncate), -1_000_000);
    }

    #[test]
    fn text_that_is_no_time_is_refused() {
        for bad in [
            "",
            "2024-1-01",
            "2024-13-01",
            "20240101",
            "2024-01-01x",
            "2024-01-01 25:00",
            "2024-01-01 10:00:00.1234567",
            "2024-01-01 10:00:00.",
            "2024-01-01 1:00",
            "é024-01-01",
            "2024-01-01 10:00+99:00",
        ] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
        assert_eq!(parse_timestamp("1970-01-01T00:00:01.5Z"), Some((1_500_000, Some(0))));
        assert_eq!(parse_timestamp("1970-01-01 02:00:00+02:00"), Some((0, Some(7200))));
        assert_eq!(parse_timestamp("1970-01-02"), Some((MICROS_PER_DAY, None)));
    }

    proptest! {
        #[test]
        fn days_round_trip(days in -2_500_000i32..110_000_000) {
            let (y, m, d) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(y, m, d), Some(days));
        }

        #[test]
        fn timestamps_round_trip(micros in -62_135_596_800_000_000i64..253_402_300_799_999_999) {
            prop_assert_eq!(parse_timestamp(&timestamp_text(micros)), Some((micros, None)));
        }

        #[test]
        fn far_texts_are_read(days in -2_500_000i32..106_000_000, of_day in 0..MICROS_PER_DAY) {
            prop_assert_eq!(parse_far_date(&date_text(days)), Some(days));
            let micros = i64::from(days) * MICROS_PER_DAY + of_day;
            prop_assert_eq!(parse_far_timestamp(&timestamp_text(micros)), Some(micros));
        }

        #[test]
        fn times_round_trip(micros in -3_020_399_000_000i64..3_020_399_000_000) {
            prop_assert_eq!(parse_time(&time_text(micros)), Some(micros));
        }

        #[test]
        fn parsers_never_panic(text in "\\PC{0,32}") {
            let _ = (parse_timestamp(&text), parse_time(&text), parse_date(&text));
            let _ = (parse_far_date(&text), parse_far_timestamp(&text));
        }
    }
}
