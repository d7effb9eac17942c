//! The law of every lookup: a row that a scan sees is found or called unproven, whatever the column, the value and what it
//! is compared as. And of every write: such a row is written where it is, and its key stays as it was spelled.

use std::sync::Arc;

use trueup::model::{
    AccessColumn, ChangeOutcome, ColumnType, ComparisonType, Filled, Key, Rounding, TableAccess, TableName,
};

use super::setup::{File, cell_of, change, doubles};

/// As SQL.
const VALUES: &[&str] = &[
    "0",
    "1",
    "-7",
    "42",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "1700000000",
    "0.5",
    "-0.0",
    "5.0",
    "1e300",
    "9e999",
    "9223372036854775808.0",
    "1.8446744073709552e19",
    "1.005",
    "0.1",
    "''",
    "'a'",
    "'A'",
    "'a  '",
    "'a!'",
    "'42'",
    "' 42'",
    "'+42'",
    "'042'",
    "'42.0'",
    "'4.2e1'",
    "'0x2a'",
    "'1e5'",
    "'inf'",
    "'NaN'",
    "'true'",
    "'é'",
    "'nul' || char(0) || 'inside'",
    "char(65535)",
    "char(65279) || 'bom'",
    "CAST(x'e9' AS TEXT)",
    "CAST(x'61e962' AS TEXT)",
    "CAST(x'eda080' AS TEXT)",
    "x''",
    "x'61'",
    "x'e9'",
    "x'00112233445566778899aabbccddeeff'",
    "'00112233-4455-6677-8899-aabbccddeeff'",
    "'00112233-4455-6677-8899-AABBCCDDEE0f'",
    "'{00112233-4455-6677-8899-aabbccddee01}'",
    "'00112233445566778899aabbccddee02'",
    "'{00112233445566778899AABBccddee03}'",
    "'2024-02-29'",
    "'2024-02-30'",
    "'0000-00-00'",
    "'2024-00-15 10:00'",
    "'2024-03-01 10:00:00'",
    "'2024-03-02T10:00:00'",
    "'2024-03-03 10:00'",
    "'2024-03-04T10:00:00.500000'",
    "'2024-03-05 10:00:00.5'",
    "'2024-03-06 10:00:00.5000000'",
    "'2024-03-07 010:00'",
    "'2024-03-08 10:00:00Z'",
    "'2024-03-09T10:00:00+02:00'",
    "'2024-03-10 10:00:00.1234567'",
    "'2024-03-11 10:00:00-0330'",
    "'infinity'",
    "'294277-01-01'",
    "'10:00'",
    "'11:00:00'",
    "'12:00:00.25'",
    "'013:00'",
    "'-01:30:00'",
    "'{\"b\": 1, \"a\": [1.0, 2]}'",
    "'[1]'",
    "'[2.0]'",
    "'null'",
];

const DECLARED: &[(&str, ColumnType)] = &[
    ("INTEGER", ColumnType::Int { bits: 64, signed: true }),
    ("BOOLEAN", ColumnType::Bool),
    ("DECIMAL(20,4)", ColumnType::Decimal { precision: Some(20), scale: Some(4) }),
    ("REAL", ColumnType::Float { bits: 64 }),
    ("TEXT", ColumnType::Text { padded: false }),
    ("TEXT COLLATE NOCASE", ColumnType::Text { padded: false }),
    ("TEXT COLLATE RTRIM", ColumnType::Text { padded: false }),
    ("STRING", ColumnType::Text { padded: false }),
    ("BLOB", ColumnType::Bytes),
    ("UUID", ColumnType::Uuid),
    ("DATE", ColumnType::Date),
    ("DATETIME", ColumnType::Timestamp { digits: 6 }),
    ("JSON", ColumnType::Json),
    ("", ColumnType::Unsupported(String::new())),
];

fn comparisons() -> Vec<ComparisonType> {
    use ComparisonType as C;
    let rounding = Rounding::HalfAwayFromZero;
    vec![
        C::Dynamic,
        C::Integer,
        C::Decimal { scale: None },
        C::Decimal { scale: Some(2) },
        C::Float { bits: 64 },
        C::Float { bits: 32 },
        C::Text { trim: false },
        C::Text { trim: true },
        C::Bytes,
        C::Uuid,
        C::Date,
        C::Time { digits: 6, rounding },
        C::Timestamp { digits: 6, rounding },
        C::Timestamp { digits: 0, rounding },
        C::TimestampTz { digits: 6, rounding },
        C::Json,
    ]
}

fn access(declared: &str, ty: &ColumnType, comparison: ComparisonType, as_text: bool) -> Arc<TableAccess> {
    let bare = declared.split(" COLLATE").next().unwrap();
    let column = |name: &str, ty: ColumnType, declared: &str, comparison, as_text| AccessColumn {
        name: name.to_owned(),
        ty,
        declared: declared.to_owned(),
        comparison,
        as_text,
        filled: Filled::ByWriter,
    };
    let int = ColumnType::Int { bits: 64, signed: true };
    Arc::new(TableAccess {
        table: TableName::new(None, "t"),
        columns: vec![
            column("k", ty.clone(), bare, comparison, as_text),
            column("n", int, "INTEGER", ComparisonType::Integer, false),
        ],
        key_len: 1,
        filter: None,
    })
}

/// A file with each value once, as the column keeps it, so that no two rows have one key.
async fn file_of(declared: &str, pragma: &str, access: &Arc<TableAccess>) -> File {
    let file = File::with(&format!("{pragma}; CREATE TABLE t (k {declared}, n INTEGER)")).await;
    let values: Vec<String> = VALUES.iter().map(|value| format!("({value}, 1)")).collect();
    file.db.execute(&format!("INSERT INTO t VALUES {}", values.join(", ")));
    let doubles: Vec<String> = doubles(&file, access).await.iter().map(|at| (at + 1).to_string()).collect();
    file.db.execute(&format!("DELETE FROM t WHERE rowid IN ({})", doubles.join(", ")));
    file
}

async fn law(
    declared: &str,
    ty: &ColumnType,
    pragma: &str,
    comparison: &ComparisonType,
    as_text: bool,
) -> [usize; 3] {
    let access = access(declared, ty, comparison.clone(), as_text);
    let file = file_of(declared, pragma, &access).await;
    let said = format!("{declared} as {comparison:?} {pragma} {as_text}");
    let rows = file.scan(&access, 1).await.unwrap();
    let keys: Vec<Key> = rows.keys().cloned().collect();
    let lookup = file.lookup(&access, &keys).await;
    for found in &lookup.rows {
        assert_eq!(rows[&found.key], found.row, "{said}");
    }
    let known: std::collections::BTreeSet<&Key> =
        lookup.rows.iter().map(|row| &row.key).chain(&lookup.unproven).collect();
    assert_eq!(known.len(), rows.len(), "{said}: a row that the scan saw is called absent");

    let spelled = |file: &File| {
        file.db.scalar("SELECT group_concat(typeof(k) || hex(k), ' ') FROM (SELECT k FROM t ORDER BY rowid)")
    };
    let before = spelled(&file);
    let (two, three) = (cell_of(2), cell_of(3));
    let changes: Vec<_> = rows.iter().map(|(key, row)| change(key, Some(row), Some(&two))).collect();
    let outcomes = file.apply(&access, &changes).await;
    assert_eq!(outcomes, vec![ChangeOutcome::Written; rows.len()], "{said}");
    assert_eq!(spelled(&file), before, "{said}");
    assert_eq!(
        file.db.scalar("SELECT count(*) FROM t WHERE n = 2").unwrap(),
        rows.len().to_string(),
        "{said}"
    );
    // Inserted a second time: it is there already, with the same or another row.
    let again: Vec<_> = rows.keys().map(|key| change(key, None, Some(&two))).collect();
    assert_eq!(file.apply(&access, &again).await, vec![ChangeOutcome::Already; rows.len()], "{said}");
    let other: Vec<_> = rows.keys().map(|key| change(key, None, Some(&three))).collect();
    assert_eq!(file.apply(&access, &other).await, vec![ChangeOutcome::Stale; rows.len()], "{said}");
    assert_eq!(spelled(&file), before, "{said}");

    // As SQL text.
    let (half, rest) = keys.split_at(keys.len() / 2);
    let mut statements = Vec::new();
    for key in half {
        let change = change(key, Some(&two), Some(&three));
        statements.push(file.engine.statement(&access, &change).await.unwrap());
    }
    file.db.execute(&format!("BEGIN; {} COMMIT", statements.join(" ")));
    assert_eq!(
        file.db.scalar("SELECT count(*) FROM t WHERE n = 3").unwrap(),
        half.len().to_string(),
        "{said}"
    );
    // Gone, where they are.
    let deletes: Vec<_> = rest.iter().map(|key| change(key, Some(&two), None)).collect();
    assert_eq!(file.apply(&access, &deletes).await, vec![ChangeOutcome::Written; rest.len()], "{said}");
    assert_eq!(file.db.scalar("SELECT count(*) FROM t WHERE n <> 3").as_deref(), Some("0"), "{said}");
    let lookup = file.lookup(&access, &keys).await;
    let proven = keys.len() - lookup.rows.len() - lookup.unproven.len();
    assert!(lookup.rows.iter().all(|row| row.row == three), "{said}");
    [rows.len(), lookup.unproven.len(), proven]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_that_a_scan_sees_is_called_absent_and_each_is_written_where_it_is() {
    let (mut tried, mut rows) = (0, 0);
    for (declared, ty) in DECLARED {
        for comparison in comparisons() {
            let [found, ..] = law(declared, ty, "", &comparison, false).await;
            (tried, rows) = (tried + 1, rows + found);
        }
        law(declared, ty, "", &ComparisonType::Text { trim: false }, true).await;
    }
    for encoding in ["PRAGMA encoding = 'UTF-16le'", "PRAGMA encoding = 'UTF-16be'"] {
        for (declared, ty) in [&DECLARED[4], &DECLARED[13]] {
            for comparison in [
                ComparisonType::Dynamic,
                ComparisonType::Text { trim: false },
                ComparisonType::Text { trim: true },
            ] {
                law(declared, ty, encoding, &comparison, false).await;
            }
        }
    }
    println!("{tried} pairs of declaration and comparison, {rows} rows");
}

/// What SQLite keeps for itself is told by an index alone, whatever its class.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn against_another_sqlite_file_absence_is_proven() {
    use ComparisonType as C;
    for (declared, comparison, unproven_max) in [
        ("", C::Dynamic, 0),
        ("BLOB", C::Dynamic, 0),
        ("TEXT", C::Dynamic, 0),
        ("INTEGER", C::Dynamic, 0),
        ("INTEGER", C::Integer, 2),
        ("TEXT", C::Text { trim: false }, 0),
        ("TEXT", C::Text { trim: true }, 0),
        ("REAL", C::Float { bits: 64 }, 4),
        ("DATE", C::Date, 4),
    ] {
        let ty = &DECLARED.iter().find(|(name, _)| *name == declared).unwrap().1;
        let [rows, unproven, proven] = law(declared, ty, "", &comparison, false).await;
        assert!(
            unproven <= unproven_max && proven > 0,
            "{declared} {comparison:?}: {rows} rows, {unproven} unproven"
        );
    }
}
