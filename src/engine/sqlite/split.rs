//! Rowids that cut a table into parts of about as many rows, however unevenly its rowids lie: one row far out would give a reader
//! that takes half of the numbers none of the rows.

use rusqlite::{Connection, OptionalExtension};

use super::params::quote;

/// Below this many rowids one reader is as quick.
const ROWIDS_TO_SPLIT: u64 = 100_000;
/// Stretches with rows that are told apart before the table is cut.
const STRETCHES: u64 = 64;
/// Times that stretches are looked into, each a look for every part of one.
const LOOKS: usize = 16;

#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// Rowids from the first that is there to the last that is, or may be.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    first: i64,
    last: i64,
}

impl Stretch {
    fn width(&self) -> u64 {
        self.first.abs_diff(self.last).saturating_add(1)
    }
}

/// The rowids with which parts begin, but for the first part. None where the table has few. `rowid` is what reads one, and
/// no column of the user's.
pub(super) fn borders(
    connection: &Connection,
    table: &str,
    rowid: &str,
    parts: u64,
) -> rusqlite::Result<Vec<i64>> {
    let table = quote(table);
    let rowid = format!("{table}.{rowid}");
    let bounds = connection.query_row(
        &format!("SELECT (SELECT min({rowid}) FROM {table}), (SELECT max({rowid}) FROM {table})"),
        [],
        |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)),
    )?;
    let (Some(first), Some(last)) = bounds else { return Ok(Vec::new()) };
    let nearest = |order| {
        format!(
            "SELECT {rowid} FROM {table} WHERE {rowid} BETWEEN ?1 AND ?2 ORDER BY {rowid} {order} LIMIT 1"
        )
    };
    let (mut up, mut down) = (connection.prepare(&nearest("ASC"))?, connection.prepare(&nearest("DESC"))?);
    let stretches = stretches(Stretch { first, last }, |end, from, to| {
        let statement = match end {
            End::First => &mut up,
            End::Last => &mut down,
        };
        statement.query_row([from, to], |row| row.get(0)).optional()
    })?;
    Ok(cuts(&stretches, parts))
}

/// Looks closer and closer until enough stretches with rows are known. `find` gives the first or the last rowid
/// between two.
fn stretches<E>(
    whole: Stretch,
    mut find: impl FnMut(End, i64, i64) -> Result<Option<i64>, E>,
) -> Result<Vec<Stretch>, E> {
    let mut known = vec![whole];
    for _ in 0..LOOKS {
        let count = known.len() as u64;
        if count >= STRETCHES / 2 {
            break;
        }
        let mut closer = Vec::new();
        for stretch in known {
            let step = stretch.width().div_ceil(STRETCHES / count);
            let mut from = stretch.first;
            while let Some(first) = find(End::First, from, stretch.last)? {
                // Steps are counted from the stretch's begin, so that a full one is cut evenly.
                let steps = first.abs_diff(stretch.first) / step + 1;
                let end = steps.checked_mul(step).map(|end| stretch.first.saturating_add_unsigned(end - 1));
                let last = end.map_or(stretch.last, |end| end.min(stretch.last));
                closer.push(Stretch { first, last });
                match last.checked_add(1).filter(|from| *from <= stretch.last) {
                    Some(begin) => from = begin,
                    None => break,
                }
            }
        }
        known = closer;
    }
    for stretch in &mut known {
        stretch.last = find(End::Last, stretch.first, stretch.last)?.unwrap_or(stretch.first);
    }
    Ok(known)
}

/// Rows are taken to lie evenly within each stretch.
fn cuts(stretches: &[Stretch], parts: u64) -> Vec<i64> {
    let total: u128 = stretches.iter().map(|stretch| u128::from(stretch.width())).sum();
    if total <= u128::from(ROWIDS_TO_SPLIT) {
        return Vec::new();
    }
    let mut cuts = Vec::new();
    let (mut stretches, mut before) = (stretches.iter().peekable(), 0);
    for part in 1..parts {
        let wanted = total * u128::from(part) / u128::from(parts);
        while let Some(stretch) = stretches.peek() {
            let width = u128::from(stretch.width());
            if before + width > wanted {
                let within = u64::try_from(wanted.saturating_sub(before)).unwrap_or(u64::MAX);
                cuts.push(stretch.first.saturating_add_unsigned(within));
                break;
            }
            before += width;
            stretches.next();
        }
    }
    cuts.dedup();
    cuts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn cut(rowids: &BTreeSet<i64>, parts: u64) -> Vec<i64> {
        let (Some(first), Some(last)) = (rowids.first(), rowids.last()) else { return Vec::new() };
        let find = |end, from, to| {
            let mut between = rowids.range(from..=to).copied();
            Ok::<_, Infallible>(match end {
                End::First => between.next(),
                End::Last => between.next_back(),
            })
        };
        let Ok(stretches) = stretches(Stretch { first: *first, last: *last }, find);
        cuts(&stretches, parts)
    }

    fn counts(rowids: &BTreeSet<i64>, cuts: &[i64]) -> Vec<usize> {
        let mut counts = vec![0; cuts.len() + 1];
        rowids.iter().for_each(|rowid| counts[cuts.partition_point(|cut| cut <= rowid)] += 1);
        counts
    }

    #[test]
    fn parts_are_alike_though_some_rowids_lie_far_out() {
        let dense: BTreeSet<i64> = (1..=200_000).collect();
        for outliers in [
            vec![],
            vec![2_000_000_000, 2_000_000_050],
            vec![i64::MIN, i64::MAX],
            vec![-1, 5_000_000, i64::MAX - 1],
        ] {
            let rowids: BTreeSet<i64> = dense.iter().copied().chain(outliers).collect();
            for parts in [2, 3, 7] {
                let counts = counts(&rowids, &cut(&rowids, parts));
                assert_eq!(counts.len() as u64, parts);
                let even = rowids.len() / counts.len();
                assert!(counts.iter().all(|count| count.abs_diff(even) * 20 <= even), "{counts:?}");
            }
        }
    }

    #[test]
    fn few_rowids_are_not_cut() {
        assert!(cut(&(1..=1_000).chain([i64::MAX]).collect(), 4).is_empty());
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE \"em\"\"pty\" (a)").unwrap();
        assert!(borders(&connection, "em\"pty", "rowid", 4).unwrap().is_empty());
        connection
            .execute_batch("CREATE TABLE t (a); INSERT INTO t (rowid) VALUES (1), (1000000), (2000000)")
            .unwrap();
        assert!(borders(&connection, "t", "oid", 4).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn cuts_rise_and_leave_rows_on_both_sides(
            rowids in prop::collection::btree_set(any::<i64>(), 2..300), parts in 2..9u64,
        ) {
            let cuts = cut(&rowids, parts);
            prop_assert!((cuts.len() as u64) < parts);
            prop_assert!(cuts.is_sorted_by(|a, b| a < b));
            prop_assert!(cuts.iter().all(|cut| rowids.first().unwrap() < cut && cut <= rowids.last().unwrap()));
        }
    }
}
