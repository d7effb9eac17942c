//! Steps at the borders where clocks change, and laws that every grid keeps.

use proptest::prelude::*;

use super::*;

fn ruler(zone: &str) -> Ruler {
    Ruler { axis: Axis::Micros, instants: true, zone: TimeZone::get(zone).unwrap() }
}

fn labels(ruler: &Ruler, step: Step, from: &str, to: &str) -> Vec<String> {
    let grid = ruler.grid(step, ruler.point(from).unwrap(), ruler.point(to).unwrap()).unwrap();
    grid.borders.iter().map(|border| ruler.label(*border)).collect()
}

fn hours(ruler: &Ruler, from: &str, to: &str) -> Vec<i128> {
    let grid = ruler.grid(Step::Day, ruler.point(from).unwrap(), ruler.point(to).unwrap()).unwrap();
    grid.borders.windows(2).map(|pair| (pair[1] - pair[0]) / HOUR).collect()
}

#[test]
fn days_are_as_long_as_the_clock_makes_them() {
    let berlin = ruler("Europe/Berlin");
    assert_eq!(hours(&berlin, "2024-03-30", "2024-04-02"), [24, 23, 24]);
    assert_eq!(hours(&berlin, "2024-10-26", "2024-10-29"), [24, 25, 24]);
    assert_eq!(hours(&ruler("UTC"), "2024-03-30", "2024-04-02"), [24, 24, 24]);
    // Midnight itself was skipped, and a whole day.
    assert_eq!(hours(&ruler("America/Sao_Paulo"), "2018-11-03", "2018-11-05"), [24, 23]);
    assert_eq!(hours(&ruler("Pacific/Apia"), "2011-12-29", "2012-01-01"), [24, 24]);
    assert_eq!(hours(&ruler("Asia/Kolkata"), "2024-03-30", "2024-04-01"), [24, 24]);
}

#[test]
fn hours_are_hours_also_where_the_clock_repeats_one() {
    let berlin = ruler("Europe/Berlin");
    assert_eq!(
        labels(&berlin, Step::Hour, "2024-10-27 01:30", "2024-10-27 04:00"),
        [
            "2024-10-27 01:30+02",
            "2024-10-27 02:00+02",
            "2024-10-27 02:00+01",
            "2024-10-27 03:00+01",
            "2024-10-27 04:00+01"
        ]
    );
    assert_eq!(
        labels(&berlin, Step::Hour, "2024-03-31 01:00", "2024-03-31 04:00"),
        ["2024-03-31 01:00+01", "2024-03-31 03:00+02", "2024-03-31 04:00+02"]
    );
}

#[test]
fn months_and_partial_steps() {
    let utc = ruler("UTC");
    assert_eq!(
        labels(&utc, Step::Month, "2023-12-15 12:00", "2024-03-01"),
        ["2023-12-15 12:00", "2024-01-01", "2024-02-01", "2024-03-01"]
    );
    let days = Ruler { axis: Axis::Days, instants: false, zone: TimeZone::UTC };
    assert_eq!(
        labels(&days, Step::Month, "2023-11-30", "2024-02-02"),
        ["2023-11-30", "2023-12-01", "2024-01-01", "2024-02-01", "2024-02-02"]
    );
    let integers = Ruler { axis: Axis::Integer, instants: false, zone: TimeZone::UTC };
    assert_eq!(labels(&integers, Step::Units(10), "-5", "21"), ["-5", "5", "15", "21"]);
    assert_eq!(integers.floor(Step::Units(10), -5), Ok(-10));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let utc = ruler("UTC");
    let point = |text: &str| utc.point(text);
    assert!(point("2024-13-01").is_err() && point("now").is_err() && point("2024-01-01 00:00:00.5").is_err());
    assert_eq!(point("2024-01-01 02:00+02:00"), point("2024-01-01"));
    let zoneless = Ruler { instants: false, ..utc.clone() };
    assert!(zoneless.point("2024-01-01 02:00+02:00").is_err());
    let grid = |step, from: &str, to: &str| utc.grid(step, point(from).unwrap(), point(to).unwrap());
    assert!(grid(Step::Day, "2024-01-02", "2024-01-02").unwrap_err().contains("is empty"));
    assert!(grid(Step::Hour, "1900-01-01", "2024-01-01").unwrap_err().contains("more than"));
    assert!(grid(Step::Units(5), "2024-01-01", "2024-01-02").unwrap_err().contains("hour, day or month"));
    let days = Ruler { axis: Axis::Days, instants: false, zone: TimeZone::UTC };
    assert!(days.grid(Step::Hour, 0, 5).is_err());
}

#[test]
fn integers_are_cut_into_round_steps() {
    let integers = Ruler { axis: Axis::Integer, instants: false, zone: TimeZone::UTC };
    assert_eq!(integers.default_step(0, 10), Step::Units(1));
    assert_eq!(integers.default_step(0, 1_000_000), Step::Units(50_000));
    assert_eq!(
        integers.default_step(i128::from(i64::MIN), i128::from(i64::MAX)),
        Step::Units(500_000_000_000_000_000)
    );
}

#[test]
fn a_year_of_days_needs_few_units() {
    for (zone, seconds) in
        [("UTC", 86_400), ("Asia/Kolkata", 86_400), ("Europe/Berlin", 3_600), ("Australia/Lord_Howe", 1_800)]
    {
        let ruler = ruler(zone);
        // An odd beginning does not make the units small.
        let grid = ruler
            .grid(
                Step::Day,
                ruler.point("2024-01-01 10:17:23").unwrap(),
                ruler.point("2025-01-01 01:02:03").unwrap(),
            )
            .unwrap();
        assert_eq!((grid.unit, grid.steps()), (seconds, 367), "{zone}");
    }
}

const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"];

proptest! {
    /// Counting by units and folding them gives each row to the step whose borders hold it.
    #[test]
    fn rows_are_counted_in_their_step(
        zone in prop::sample::select(&ZONES[..]),
        step in prop::sample::select(&[Step::Hour, Step::Day, Step::Month][..]),
        from in 1_200_000_000i64..1_700_000_000,
        length in 1i64..20_000_000,
        rows in prop::collection::vec(0.0f64..1.0, 0..50),
    ) {
        let ruler = ruler(zone);
        let second = i128::from(MICROS_PER_SECOND);
        let (from, to) = (i128::from(from) * second, i128::from(from + length) * second);
        let grid = ruler.grid(step, from, to).unwrap();
        prop_assert_eq!((grid.borders[0], *grid.borders.last().unwrap()), (from, to));
        prop_assert!(grid.borders.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(grid.origin <= from);
        let mut expected = vec![0; grid.steps()];
        let mut units = Vec::new();
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any place will do")]
        for row in rows {
            let at = from + (row * (to - from) as f64) as i128;
            expected[grid.borders.iter().rposition(|border| *border <= at).unwrap()] += 1;
            // As the databases do it.
            units.push((u64::try_from((at - grid.origin) / second).unwrap() / grid.unit, 1));
        }
        prop_assert_eq!(grid.fold(units.into_iter()), expected);
    }

    #[test]
    fn integers_are_counted_in_their_step(
        from in -1000i128..1000, length in 1i128..1000, step in 1u64..300, row in 0.0f64..1.0,
    ) {
        let ruler = Ruler { axis: Axis::Integer, instants: false, zone: TimeZone::UTC };
        let grid = ruler.grid(Step::Units(step), from, from + length).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any place will do")]
        let at = from + (row * length as f64) as i128;
        let unit = u64::try_from(at - grid.origin).unwrap() / grid.unit;
        let counted = grid.fold(std::iter::once((unit, 1)));
        prop_assert_eq!(counted.iter().position(|rows| *rows == 1), grid.borders.iter().rposition(|b| *b <= at));
    }

    /// The beginning of a step is in it, and so is everything before the next.
    #[test]
    fn steps_join(zone in prop::sample::select(&ZONES[..]), at in 1_200_000_000i64..1_700_000_000, monthly: bool) {
        let ruler = ruler(zone);
        let step = if monthly { Step::Month } else { Step::Day };
        let at = i128::from(at) * i128::from(MICROS_PER_SECOND);
        let (floor, next) = (ruler.floor(step, at).unwrap(), ruler.next(step, at).unwrap());
        prop_assert!(floor <= at && at < next);
        prop_assert_eq!(ruler.floor(step, next).unwrap(), next);
        prop_assert_eq!(ruler.next(step, next - 1_000_000).unwrap(), next);
        prop_assert_eq!(ruler.point(&ruler.label(floor)).unwrap(), floor);
    }
}
