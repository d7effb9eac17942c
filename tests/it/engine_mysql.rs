//! The MySQL engine against a real server, with the server itself as the oracle.

use crate::support::permit::{exchange, permitted};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::batches::scan_in_batches;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection as _, Decode, MySql, Row as _};
use trueup::engine::mysql::MySqlEngine;
use trueup::engine::{Engine, EngineError, ErrorKind, keyed_rows};
use trueup::model::canonical::{decode_key, decode_row};
use trueup::model::{
    CanonicalRow, Change, ChangeOutcome, ColumnType, Filled, Key, KeyedRow, Plan, RejectionKind, Role,
    TableAccess, TableName, TableSchema, Value, Wishes,
};

mod keys;
mod names;
mod sets;
mod silence;

/// A database of the test's own.
struct Db {
    admin: url::Url,
    name: String,
    engine: MySqlEngine,
}

impl Db {
    async fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let admin = std::env::var("TRUEUP_TEST_MYSQL_URL").expect("TRUEUP_TEST_MYSQL_URL: run scripts/test");
        let admin: url::Url = admin.parse().unwrap();
        let name = format!("trueup_m_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut connection = MySqlConnection::connect(admin.as_str()).await.unwrap();
        run(&mut connection, &format!("DROP DATABASE IF EXISTS {name}")).await;
        run(&mut connection, &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await;
        let mut url = admin.clone();
        url.set_path(&name);
        let engine = MySqlEngine::connect(url.as_str()).await.unwrap();
        Self { admin, name, engine }
    }

    fn url(&self) -> url::Url {
        let mut url = self.admin.clone();
        url.set_path(&self.name);
        url
    }

    async fn connection(&self) -> MySqlConnection {
        let mut connection = MySqlConnection::connect(self.url().as_str()).await.unwrap();
        run(
            &mut connection,
            "SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'",
        )
        .await;
        connection
    }

    async fn execute(&self, sql: &str) {
        run(&mut self.connection().await, sql).await;
    }

    /// Every value as the server writes it.
    async fn query(&self, sql: &str) -> Vec<Vec<Option<Vec<u8>>>> {
        let mut connection = self.connection().await;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        let value = |row: &MySqlRow, at| {
            <&[u8] as Decode<MySql>>::decode(row.try_get_raw(at).unwrap()).ok().map(<[u8]>::to_vec)
        };
        rows.iter().map(|row| (0..row.len()).map(|at| value(row, at)).collect()).collect()
    }

    async fn scalar(&self, sql: &str) -> String {
        let rows = self.query(sql).await;
        rows[0][0].clone().map_or_else(|| "NULL".into(), |bytes| String::from_utf8(bytes).unwrap())
    }

    async fn schema(&self, table: &str) -> TableSchema {
        self.engine.describe(&TableName::new(None, table)).await.unwrap()
    }

    async fn access(&self, table: &str) -> Arc<TableAccess> {
        self.access_as(table, &Wishes::default()).await
    }

    async fn access_as(&self, table: &str, wishes: &Wishes) -> Arc<TableAccess> {
        let (schema, server) = (self.schema(table).await, self.engine.server().await.unwrap());
        let plan = Plan::agree((&schema, &server), (&schema, &server), wishes).unwrap();
        Arc::new(plan.access(Role::Target))
    }

    async fn drop_all(self) {
        let mut connection = MySqlConnection::connect(self.admin.as_str()).await.unwrap();
        run(&mut connection, &format!("DROP DATABASE {}", self.name)).await;
    }
}

async fn run(connection: &mut MySqlConnection, sql: &str) {
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await {
        panic!("{error}: {sql}");
    }
}

async fn scan_with(
    engine: &MySqlEngine,
    access: &Arc<TableAccess>,
    readers: usize,
) -> Result<Vec<KeyedRow>, EngineError> {
    let snapshot = engine.snapshot(Arc::clone(access), readers).await?;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    let reader = tokio::spawn(scan_in_batches(snapshot, sender));
    let mut rows = Vec::new();
    while let Some(batch) = receiver.recv().await {
        rows.extend(keyed_rows(batch.as_ref()).map_err(|error| EngineError::row("scan", &error))?);
    }
    reader.await.unwrap()?;
    Ok(rows)
}

async fn scan(engine: &MySqlEngine, access: &Arc<TableAccess>) -> Vec<KeyedRow> {
    scan_with(engine, access, 1).await.unwrap()
}

fn values(access: &TableAccess, row: &KeyedRow) -> Vec<Value> {
    let mut values = decode_key(&access.key_types(), row.key.as_bytes()).unwrap();
    values.extend(decode_row(&access.row_types(), row.row.as_bytes()).unwrap());
    values
}

fn inserts(rows: &[KeyedRow]) -> Vec<Change> {
    rows.iter()
        .map(|row| Change { key: row.key.clone(), before: None, after: Some(row.row.clone()) })
        .collect()
}

fn index(rows: &[KeyedRow]) -> BTreeMap<Vec<u8>, CanonicalRow> {
    rows.iter().map(|row| (row.key.as_bytes().to_vec(), row.row.clone())).collect()
}

/// The key and row that a SELECT of literals has under this access: written as SQL, read by the server.
async fn rows_of(db: &Db, access: &Arc<TableAccess>, table: &str, insert: &str) -> Vec<KeyedRow> {
    db.execute(&format!(
        "DROP TABLE IF EXISTS draft; CREATE TABLE draft LIKE {table}; INSERT INTO draft {insert}"
    ))
    .await;
    let mut draft = (**access).clone();
    draft.table = TableName::new(Some(&db.name), "draft");
    let rows = scan(&db.engine, &Arc::new(draft)).await;
    db.execute("DROP TABLE draft").await;
    rows
}

fn key_of(access: &TableAccess, rows: &[KeyedRow], text: &str) -> KeyedRow {
    rows.iter().find(|row| values(access, row)[0].to_text().as_deref() == Some(text)).unwrap().clone()
}

fn change(before: Option<&KeyedRow>, after: Option<&KeyedRow>) -> Change {
    let key = before.or(after).unwrap().key.clone();
    Change { key, before: before.map(|row| row.row.clone()), after: after.map(|row| row.row.clone()) }
}

const ALL_TYPES: &str = "
    id BIGINT NOT NULL PRIMARY KEY,
    b1 TINYINT(1), i8 TINYINT, u8 TINYINT UNSIGNED, ub TINYINT(1) UNSIGNED, i16 SMALLINT, u16 SMALLINT UNSIGNED,
    i24 MEDIUMINT, u24 MEDIUMINT UNSIGNED, i32 INT, u32 INT UNSIGNED ZEROFILL, i64 BIGINT, u64 BIGINT UNSIGNED,
    d0 DECIMAL(10,0), d2 DECIMAL(12,2), dmax DECIMAL(65,30), du DECIMAL(5,4) UNSIGNED,
    f32 FLOAT, f64 DOUBLE, bit1 BIT, bit12 BIT(12), bit64 BIT(64),
    c CHAR(10), v VARCHAR(100), vbin VARCHAR(20) COLLATE utf8mb4_bin, l1 VARCHAR(20) CHARACTER SET latin1,
    u3 VARCHAR(20) CHARACTER SET utf8mb3, ucs VARCHAR(20) CHARACTER SET utf16,
    tt TINYTEXT, t TEXT, mt MEDIUMTEXT, lt LONGTEXT,
    bin BINARY(4), vb VARBINARY(50), tb TINYBLOB, bl BLOB, mb MEDIUMBLOB, lb LONGBLOB,
    da DATE, dt0 DATETIME, dt3 DATETIME(3), dt6 DATETIME(6),
    ts0 TIMESTAMP NULL, ts6 TIMESTAMP(6) NULL, t0 TIME, t6 TIME(6), y YEAR,
    e ENUM('a','it''s','x,y',''), s SET('one','two','three'), j JSON";

const ALL_VALUES: [&str; 8] = [
    // nothing, and zeros
    "(1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,b'0',b'0',b'0','','','','','','','','','','','','','','','','',\
     '0000-00-00','0000-00-00','0000-00-00','0000-00-00','0000-00-00','0000-00-00','00:00:00','00:00:00',0,'','','{}')",
    // the lowest
    "(-9223372036854775808,-128,-128,0,0,-32768,0,-8388608,0,-2147483648,0,-9223372036854775808,0,\
     -9999999999,-9999999999.99,-99999999999999999999999999999999999.999999999999999999999999999999,0,\
     -3.4028234e38,-1.7976931348623157e308,b'0',b'000000000001',b'1','a','a','a','a','a','a','a','a','a','a',\
     X'00000000',X'00','a','a','a','a','0001-01-01','0001-01-01','1000-01-01 00:00:00.001','0001-01-01 00:00:00.000001',\
     '1970-01-01 00:00:01','1970-01-01 00:00:01.000001','-838:59:59','-838:59:58.999999',1901,'a','one','null')",
    // the highest
    "(9223372036854775807,127,127,255,255,32767,65535,8388607,16777215,2147483647,4294967295,9223372036854775807,\
     18446744073709551615,9999999999,9999999999.99,99999999999999999999999999999999999.999999999999999999999999999999,\
     9.9999,3.4028234e38,1.7976931348623157e308,b'1',b'111111111111',18446744073709551615,\
     'zzzzzzzzzz','🎉ü日','🎉','é€','日本','𝄞x','t','t','m','l',X'ffffffff',X'0001ff',X'00ff',X'ff',X'00',X'5c27',\
     '9999-12-31','9999-12-31 23:59:59','9999-12-31 23:59:59.999','9999-12-31 23:59:59.999999',\
     '2038-01-19 03:14:07','2038-01-19 03:14:07.999999','838:59:59','838:59:58.999999',2155,'it''s','one,two,three',\
     '{\"b\": [1, 2.50, \"ü\"], \"a\": null}')",
    // small steps
    "(2,1,-1,1,1,-1,1,-1,1,-1,1,-1,1,-1,-0.01,0.000000000000000000000000000001,0.0001,1.17549435e-38,5e-324,b'1',\
     b'100000000000',b'1000000000000000000000000000000000000000000000000000000000000000','a b ',' a ','A ','ÿ','x','y',\
     'tab\\there','line\\nbreak','quote\\'s','back\\\\slash',X'01020304',X'',X'20',X'2020',X'0a',X'00000000',\
     '2024-02-29','2024-02-29 12:34:56','2024-02-29 12:34:56.789','2024-02-29 12:34:56.789012',\
     '2024-02-29 12:34:56','2024-02-29 12:34:56.789012','00:00:01','-00:00:00.000001',2024,'x,y','two','[1,\"two\",3.0]')",
    // what no calendar has
    "(3,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,12345.60,1.10,NULL,0.1,0.1,NULL,NULL,NULL,\
     NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,\
     '2024-00-15','2024-02-31 01:02:03','2024-00-00','2023-02-29 00:00:00.5',NULL,NULL,'24:00:00','99:59:59.1',NULL,NULL,'three',\
     '\"text\"')",
    "(4,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,\
     NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,\
     NULL,NULL,NULL,NULL,NULL,NULL)",
    "(5,1,1,1,1,1,1,1,1,1,1,1,1,1000000,10000.00,10000.0001,1,-0.0,-0.0,b'1',b'1',b'1','1','1','1','1','1','1','1',\
     REPEAT('x',300),REPEAT('y',70000),REPEAT('ü',100000),X'31000000','1','1',REPEAT('z',300),REPEAT('b',70000),REPEAT('c',300000),\
     '1969-12-31','1969-12-31 23:59:59','1969-12-31 23:59:59.999','1969-12-31 23:59:59.999999',\
     '2001-09-09 01:46:40','2001-09-09 01:46:40.5','12:00:00','12:00:00.5',1970,'a','','1e2')",
    "(6,2,1,1,2,1,1,1,1,1,1,1,1,1,1,1,1,16777217,1e22,b'1',b'1',b'1','1','1','1','1','1','1','1','1','1','1',\
     '1','1','1','1','1','1','2000-01-01','2000-01-01','2000-01-01','2000-01-01','2000-01-01','2000-01-01','1','1',\
     2000,'','three,one','true')",
];

/// The values of a row as the server renders them and as this engine reads them.
#[tokio::test]
async fn every_type_is_read_as_the_server_reads_it_and_written_back() {
    let db = Db::create().await;
    db.execute(&format!("CREATE TABLE a ({ALL_TYPES}) CHARACTER SET utf8mb4; CREATE TABLE b LIKE a")).await;
    for row in ALL_VALUES {
        db.execute(&format!("INSERT INTO a VALUES {row}")).await;
    }
    let schema = db.schema("a").await;
    assert!(schema.columns.iter().all(|column| !matches!(column.ty, ColumnType::Unsupported(_))));
    let access = db.access("a").await;
    let rows = scan(&db.engine, &access).await;
    assert_eq!(rows.len(), ALL_VALUES.len());
    // Scans are a lane's, and rows by key the driver's: both hold every column to be what the other does.
    let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
    assert!(index(&db.engine.fetch(&access, &keys).await.unwrap()) == index(&rows));

    let rendered = access.columns.iter().map(|column| {
        let name = &column.name;
        match (&column.ty, column.declared.as_str()) {
            (ColumnType::Bytes, _) => format!("CONCAT('\\\\x', LOWER(HEX({name})))"),
            (ColumnType::Bits, declared) => {
                let width: String = declared.chars().filter(char::is_ascii_digit).collect();
                format!("LPAD(BIN({name} + 0), {width}, '0')")
            }
            (ColumnType::Text { padded: true }, _) => format!("TRIM(TRAILING ' ' FROM {name})"),
            _ => name.clone(),
        }
    });
    let sql = format!("SELECT {} FROM a", rendered.collect::<Vec<_>>().join(", "));
    let oracle = db.query(&sql).await;
    for (row, expected) in rows.iter().zip(&oracle) {
        for ((column, value), expected) in access.columns.iter().zip(values(&access, row)).zip(expected) {
            let expected = expected.as_ref().map(|bytes| String::from_utf8(bytes.clone()).unwrap());
            let got = value.to_text();
            let at = format!("column {} of row {:?}", column.name, expected);
            match (&column.ty, got, expected) {
                (_, None, None) => {}
                (ColumnType::Float { bits: 64 }, Some(got), Some(expected)) => {
                    assert_eq!(got.parse::<f64>(), expected.parse::<f64>(), "{at}");
                }
                // The server's text of a FLOAT has six digits.
                (ColumnType::Float { .. }, Some(got), Some(expected)) => {
                    let (got, expected): (f64, f64) = (got.parse().unwrap(), expected.parse().unwrap());
                    assert!((got - expected).abs() <= expected.abs() * 1e-5, "{at}");
                }
                (ColumnType::Decimal { .. }, Some(got), Some(expected)) => {
                    assert_eq!(
                        got,
                        trueup::model::decimal::Decimal::parse(&expected).unwrap().to_string(),
                        "{at}"
                    );
                }
                (ColumnType::Int { .. }, Some(got), Some(expected)) => {
                    assert_eq!(got.parse::<i128>(), expected.parse::<i128>(), "{at}");
                }
                (ColumnType::Json, Some(got), Some(expected)) => {
                    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
                    let close =
                        |value: serde_json::Value| value.to_string().replace(".50", ".5").replace("3.0", "3");
                    let same = close(parse(&got)) == close(parse(&expected)) || parse(&got) == 100;
                    assert!(same, "{at}");
                }
                (
                    ColumnType::Time { .. } | ColumnType::Timestamp { .. } | ColumnType::TimestampTz { .. },
                    got,
                    expected,
                ) => {
                    let plain = |text: String| {
                        let text = text.trim_end_matches("+00").to_owned();
                        if text.contains('.') {
                            text.trim_end_matches('0').trim_end_matches('.').to_owned()
                        } else {
                            text
                        }
                    };
                    assert_eq!(got.map(plain), expected.map(plain), "{at}");
                }
                (_, got, expected) => assert_eq!(got, expected, "{at}"),
            }
        }
    }

    // The same rows by key.
    let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
    let fetched = db.engine.fetch(&access, &keys).await.unwrap();
    assert_eq!(index(&fetched), index(&rows));

    // Written into an empty twin, the server's own checksum of both is one.
    let twin = db.access("b").await;
    let outcomes = db.engine.apply(&twin, &permitted(&inserts(&rows))).await.unwrap();
    assert_eq!(outcomes, vec![ChangeOutcome::Written; rows.len()]);
    assert_eq!(index(&scan(&db.engine, &twin).await), index(&rows));
    let sums = db.query("CHECKSUM TABLE a, b").await;
    let json = "UPDATE a SET j = NULL; UPDATE b SET j = NULL";
    if sums[0][1] != sums[1][1] {
        // JSON is written in canonical form; everything else must be byte for byte.
        db.execute(json).await;
        let sums = db.query("CHECKSUM TABLE a, b").await;
        assert_eq!(sums[0][1], sums[1][1]);
    }
    db.drop_all().await;
}

#[tokio::test]
async fn values_of_every_type_are_updated_exactly() {
    let db = Db::create().await;
    db.execute(&format!("CREATE TABLE a ({ALL_TYPES}) CHARACTER SET utf8mb4; CREATE TABLE b LIKE a")).await;
    for row in ALL_VALUES {
        db.execute(&format!("INSERT INTO a VALUES {row}")).await;
    }
    db.execute("UPDATE a SET j = NULL; INSERT INTO b (id) SELECT id FROM a").await;
    let (source, target) = (db.access("a").await, db.access("b").await);
    let (rows, old) = (scan(&db.engine, &source).await, index(&scan(&db.engine, &target).await));
    let changes: Vec<Change> = rows
        .iter()
        .map(|row| Change {
            key: row.key.clone(),
            before: old.get(row.key.as_bytes()).cloned(),
            after: Some(row.row.clone()),
        })
        .collect();
    let outcomes = db.engine.apply(&target, &permitted(&changes)).await.unwrap();
    for (change, outcome) in changes.iter().zip(outcomes) {
        let differs = change.before != change.after;
        assert_eq!(outcome, if differs { ChangeOutcome::Written } else { ChangeOutcome::Already });
    }
    let sums = db.query("CHECKSUM TABLE a, b").await;
    assert_eq!(sums[0][1], sums[1][1]);
    // Statements for a person do the same.
    db.execute("DELETE FROM b").await;
    let mut script = String::new();
    for change in inserts(&rows) {
        script.push_str(&db.engine.statement(&target, &change).await.unwrap());
    }
    db.execute(&script).await;
    let sums = db.query("CHECKSUM TABLE a, b").await;
    assert_eq!(sums[0][1], sums[1][1]);
    db.drop_all().await;
}

#[tokio::test]
async fn columns_compared_as_text_come_back() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, i INT, d DECIMAL(10,3), f FLOAT, x DOUBLE, b BIT(5), v VARBINARY(9), \
         t DATETIME(3), ts TIMESTAMP(6) NULL, g GEOMETRY, e ENUM('p','q')); CREATE TABLE b LIKE a; \
         INSERT INTO a VALUES (1, -5, 1.50, 3.1415927, 0.1, b'101', X'00ff27', '2024-02-31 01:02:03.4', \
         '2024-02-29 01:02:03.000004', ST_GeomFromText('POINT(1 2)'), 'q'), \
         (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    .await;
    let as_text = ["i", "d", "f", "x", "b", "v", "t", "ts", "g", "e"].map(str::to_owned).to_vec();
    let wishes = Wishes { as_text, ..Wishes::default() };
    let (source, target) = (db.access_as("a", &wishes).await, db.access_as("b", &wishes).await);
    let rows = scan(&db.engine, &source).await;
    let first: Vec<Option<String>> = values(&source, &rows[0]).iter().map(Value::to_text).collect();
    assert_eq!(first[5].as_deref(), Some("00101"));
    assert_eq!(first[6].as_deref(), Some("\\x00ff27"));
    assert_eq!(first[9].as_deref(), Some("POINT(1 2)"));
    let outcomes = db.engine.apply(&target, &permitted(&inserts(&rows))).await.unwrap();
    assert_eq!(outcomes, vec![ChangeOutcome::Written; 2]);
    let sums = db.query("CHECKSUM TABLE a, b").await;
    assert_eq!(sums[0][1], sums[1][1]);
    db.drop_all().await;
}

#[tokio::test]
async fn a_table_is_described() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE parent (id INT AUTO_INCREMENT PRIMARY KEY);
         CREATE TABLE `or``der` (
            `Id` INT NOT NULL, `select` VARCHAR(20) COLLATE utf8mb4_bin NOT NULL, tag CHAR(3) COLLATE utf8mb4_bin,
            n INT NOT NULL DEFAULT 5, g INT AS (n + 1) STORED, p INT, ts TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
            j JSON, text TEXT,
            PRIMARY KEY (`select`, `Id`), UNIQUE KEY un (n), UNIQUE KEY pre (text(5)), UNIQUE KEY maybe (p),
            CONSTRAINT to_parent FOREIGN KEY (p) REFERENCES parent (id) ON DELETE SET NULL);
         CREATE TRIGGER tr BEFORE INSERT ON `or``der` FOR EACH ROW SET NEW.n = NEW.n;
         CREATE VIEW seen AS SELECT * FROM `or``der`;
         CREATE TABLE heap (id INT PRIMARY KEY) ENGINE=MyISAM",
    )
    .await;
    let schema = db.schema("or`der").await;
    let column = |name: &str| schema.column(name).unwrap();
    assert_eq!(schema.table, TableName::new(Some(&db.name), "or`der"));
    assert_eq!(schema.primary_key().map(|key| key.columns.clone()), Some(vec!["select".into(), "Id".into()]));
    let identifying: Vec<&str> =
        schema.keys.iter().filter(|key| key.identifies).map(|key| key.name.as_str()).collect();
    assert_eq!(identifying, ["PRIMARY", "un"]);
    assert_eq!(column("g").filled, Filled::Generated);
    assert_eq!(column("ts").filled, Filled::ByWriter);
    assert_eq!(column("j").ty, ColumnType::Json);
    assert!(
        column("select").collation_folds && !column("tag").collation_folds && column("text").collation_folds
    );
    assert!(column("n").has_default && !column("Id").has_default && column("p").nullable);
    assert_eq!(schema.references, [TableName::new(Some(&db.name), "parent")]);
    assert_eq!(schema.triggers, ["tr"]);
    let parent = db.schema("parent").await;
    assert!(parent.referrers[0].delete_spreads && parent.referrers[0].table.name == "or`der");
    assert!(parent.column("id").unwrap().has_default);
    assert!(db.schema("seen").await.is_view);
    assert!(db.schema("heap").await.notes[0].contains("MyISAM"));
    let missing = db.engine.describe(&TableName::new(None, "parents")).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NoSuchTable);
    assert!(missing.hint.unwrap().contains("parent"));
    let tables: Vec<String> =
        db.engine.tables(None).await.unwrap().into_iter().map(|table| table.name).collect();
    assert_eq!(tables, ["heap", "or`der", "parent"]);

    // Odd names work all the way; what the server fills is left to it.
    db.execute("INSERT INTO parent VALUES (1)").await;
    let access = db.access("or`der").await;
    let rows =
        rows_of(&db, &access, "`or``der`", "(`Id`,`select`,n,p) VALUES (1,'a',1,1),(2,'a ',2,NULL)").await;
    assert_eq!(rows.len(), 2);
    db.engine.check_writable(&access, trueup::model::Allow::ALL).await.unwrap();
    let outcomes = db.engine.apply(&access, &permitted(&inserts(&rows))).await.unwrap();
    assert_eq!(outcomes, [ChangeOutcome::Written, ChangeOutcome::Written]);
    assert_eq!(index(&scan(&db.engine, &access).await), index(&rows));
    let heap = db.access("heap").await;
    assert!(
        db.engine
            .check_writable(&heap, trueup::model::Allow::ALL)
            .await
            .is_err_and(|error| error.what.contains("MyISAM"))
    );
    db.drop_all().await;
}

#[tokio::test]
async fn rows_are_fetched_by_the_bytes_of_their_keys() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE a (k VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL, d DECIMAL(30,10) NOT NULL, t DATETIME(6) NOT NULL, \
         u BIGINT UNSIGNED NOT NULL, b BINARY(4) NOT NULL, x DOUBLE NOT NULL, v INT, PRIMARY KEY (k, d, t, u, b, x));
         INSERT INTO a VALUES ('Ab', 12345678901234567890.0123456789, '2024-02-29 01:02:03.000001', 18446744073709551615, X'00010203', 0.1, 1), \
         ('x', 12345678901234567890.0123456788, '0000-00-00', 0, X'20202020', -1e300, 2), ('ü🎉', 0, '2024-02-31', 1, X'', 5e-324, 3)",
    )
    .await;
    let access = db.access("a").await;
    let rows = scan(&db.engine, &access).await;
    let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
    assert_eq!(index(&db.engine.fetch(&access, &keys).await.unwrap()), index(&rows));
    // 'AB' finds the row of 'Ab' in the database, and is not it.
    let other = rows_of(&db, &access, "a", "SELECT 'AB', d, t, u, b, x, v FROM a WHERE k = 'Ab'").await;
    let keys: Vec<Key> = other.iter().map(|row| row.key.clone()).collect();
    assert_eq!(db.engine.fetch(&access, &keys).await.unwrap(), []);
    // Nor can it be inserted beside it: that is told, not done.
    let outcomes = db.engine.apply(&access, &permitted(&inserts(&other))).await.unwrap();
    assert!(
        matches!(&outcomes[0], ChangeOutcome::Failed(found) if found.kind == RejectionKind::Unique && found.reason.contains("collation"))
    );
    db.drop_all().await;
}

#[tokio::test]
async fn keys_beyond_a_columns_character_set_are_no_error() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE a (k VARCHAR(20) CHARACTER SET latin1 NOT NULL PRIMARY KEY, v INT); \
         CREATE TABLE w (k VARCHAR(20) CHARACTER SET utf8mb4 NOT NULL PRIMARY KEY, v INT); \
         INSERT INTO a VALUES ('é', 1), ('plain', 2); INSERT INTO w VALUES ('é', 1), ('日本', 2), ('🎉', 3)",
    )
    .await;
    let (narrow, wide) = (db.access("a").await, db.access("w").await);
    let rows = scan(&db.engine, &wide).await;
    let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
    let found = db.engine.fetch(&narrow, &keys).await.unwrap();
    assert_eq!(found.len(), 1);
    let outcomes = db.engine.apply(&narrow, &permitted(&inserts(&rows))).await.unwrap();
    let kinds: Vec<Option<RejectionKind>> = outcomes
        .iter()
        .map(|outcome| match outcome {
            ChangeOutcome::Failed(rejection) => Some(rejection.kind),
            _ => None,
        })
        .collect();
    assert_eq!(kinds.iter().flatten().count(), 2, "{outcomes:?}");
    assert!(kinds.iter().flatten().all(|kind| *kind == RejectionKind::Value), "{outcomes:?}");
    assert_eq!(db.scalar("SELECT COUNT(*) FROM a").await, "2");
    db.drop_all().await;
}

#[tokio::test]
async fn filters_hold_in_scan_and_fetch_and_not_in_apply() {
    let db = Db::create().await;
    db.execute("CREATE TABLE a (id INT PRIMARY KEY, v INT); INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)")
        .await;
    let mut access = (*db.access("a").await).clone();
    let all = scan(&db.engine, &Arc::new(access.clone())).await;
    access.filter = Some("v > 1 OR v IS NULL -- but one".into());
    let access = Arc::new(access);
    let rows = scan(&db.engine, &access).await;
    assert_eq!(rows.len(), 2);
    let keys: Vec<Key> = all.iter().map(|row| row.key.clone()).collect();
    assert_eq!(db.engine.fetch(&access, &keys).await.unwrap().len(), 2);
    let beyond = rows_of(&db, &db.access("a").await, "a", "VALUES (1, 7)").await;
    assert_eq!(
        db.engine.apply(&access, &permitted(&inserts(&beyond))).await.unwrap(),
        [ChangeOutcome::Stale]
    );
    for wrong in
        ["nonsense", "v >", "v = ?", "nofunc(v)", "v IN (SELECT x FROM nowhere)", "1); DROP TABLE a; -- "]
    {
        let mut access = (*access).clone();
        access.filter = Some(wrong.into());
        let access = Arc::new(access);
        let scanned = scan_with(&db.engine, &access, 1).await.unwrap_err();
        assert_eq!(scanned.kind, ErrorKind::Filter, "{wrong}: {scanned}");
        let fetched = db.engine.fetch(&access, &keys).await.unwrap_err();
        assert_eq!(fetched.kind, ErrorKind::Filter, "{wrong}: {fetched}");
    }
    assert_eq!(db.scalar("SELECT COUNT(*) FROM a").await, "3");
    db.drop_all().await;
}

#[tokio::test]
async fn changes_are_conditional() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, v INT, extra INT DEFAULT 9, at TIMESTAMP NOT NULL DEFAULT '2020-01-01' ON UPDATE CURRENT_TIMESTAMP); \
         INSERT INTO a (id, v, extra) VALUES (1, 1, 5), (2, 2, 5), (3, 3, 5), (4, 4, 5), (5, 5, 5)",
    )
    .await;
    let access =
        db.access_as("a", &Wishes { exclude: vec!["extra".into(), "at".into()], ..Wishes::default() }).await;
    let old = scan(&db.engine, &access).await;
    let new = rows_of(&db, &access, "a", "(id, v) SELECT seq, seq * 10 FROM seq_1_to_9").await;
    let (o, n) = (|id: &str| key_of(&access, &old, id), |id: &str| key_of(&access, &new, id));
    db.execute("UPDATE a SET v = 33 WHERE id = 3; UPDATE a SET v = 40 WHERE id = 4").await;
    let changes = [
        change(Some(&o("1")), Some(&n("1"))), // written
        change(Some(&o("2")), None),          // deleted
        change(Some(&o("3")), Some(&n("3"))), // changed meanwhile
        change(Some(&o("4")), Some(&n("4"))), // holds it already
        change(None, Some(&n("5"))),          // is there
        change(None, Some(&n("6"))),          // inserted
        change(Some(&n("7")), None),          // gone already
        change(Some(&n("8")), Some(&n("9"))), // not there
    ];
    use ChangeOutcome::{Already, Stale, Written};
    let outcomes = db.engine.apply(&access, &permitted(&changes)).await.unwrap();
    assert_eq!(outcomes, [Written, Written, Stale, Already, Stale, Written, Already, Stale]);
    let held = db.scalar("SELECT GROUP_CONCAT(CONCAT(id, ':', v, ':', extra) ORDER BY id) FROM a").await;
    assert_eq!(held, "1:10:5,3:33:5,4:40:5,5:5:5,6:60:9");
    // The excluded column that the server sets by itself stayed.
    assert_eq!(db.scalar("SELECT at = '2020-01-01' FROM a WHERE id = 1").await, "1");
    // Again: what is done stays done.
    let again = db.engine.apply(&access, &permitted(&changes)).await.unwrap();
    assert_eq!(again, [Already, Already, Stale, Already, Stale, Already, Already, Stale]);
    db.drop_all().await;
}

#[tokio::test]
async fn refused_rows_are_set_aside_and_the_rest_is_written() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE p (id INT PRIMARY KEY); INSERT INTO p VALUES (1); \
         CREATE TABLE loose (id INT PRIMARY KEY, u INT, n INT, c INT, p INT, s VARCHAR(50), up INT); \
         CREATE TABLE a (id INT PRIMARY KEY, u INT UNIQUE, n INT NOT NULL, c TINYINT CHECK (c < 100), p INT, s VARCHAR(5), up INT, \
           CONSTRAINT to_p FOREIGN KEY (p) REFERENCES p (id), CONSTRAINT to_self FOREIGN KEY (up) REFERENCES a (id)); \
         CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW BEGIN IF NEW.s = 'no' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'secret'; END IF; END;
         INSERT INTO a VALUES (1000, 1000, 1, 1, 1, 'x', NULL)",
    )
    .await;
    let (loose, access) = (db.access("loose").await, db.access("a").await);
    db.execute(
        "INSERT INTO loose SELECT seq, seq, 1, 1, 1, 'ok', seq + 1 FROM seq_1_to_299; INSERT INTO loose VALUES (300, 300, 1, 1, 1, 'ok', NULL); \
         UPDATE loose SET u = 1000, up = NULL WHERE id = 7; UPDATE loose SET n = NULL WHERE id = 50; UPDATE loose SET c = 101 WHERE id = 90; \
         UPDATE loose SET c = 1000 WHERE id = 91; UPDATE loose SET p = 2 WHERE id = 120; UPDATE loose SET s = 'too long' WHERE id = 150; \
         UPDATE loose SET s = 'no' WHERE id = 200; UPDATE loose SET up = NULL WHERE id IN (6, 49, 89, 90, 119, 149, 199)",
    )
    .await;
    let rows = scan(&db.engine, &loose).await;
    // Parents come after their children here, and are found all the same.
    let outcomes = db.engine.apply(&access, &permitted(&inserts(&rows))).await.unwrap();
    let mut failed = BTreeMap::new();
    for (row, outcome) in rows.iter().zip(&outcomes) {
        let id = values(&loose, row)[0].to_text().unwrap();
        match outcome {
            ChangeOutcome::Written => {}
            ChangeOutcome::Failed(rejection) => {
                failed.insert(id.parse::<u32>().unwrap(), rejection.clone());
            }
            ChangeOutcome::Stale | ChangeOutcome::Already => panic!("row {id}: {outcome:?}"),
        }
    }
    let kinds: Vec<(u32, RejectionKind)> = failed.iter().map(|(id, found)| (*id, found.kind)).collect();
    use RejectionKind as K;
    assert_eq!(
        kinds,
        [
            (7, K::Unique),
            (50, K::NotNull),
            (90, K::Check),
            (91, K::Value),
            (120, K::ForeignKey),
            (150, K::Value),
            (200, K::Other)
        ]
    );
    assert!(failed[&7].reason.contains('u') && !failed[&7].reason.contains("1000"), "{}", failed[&7].reason);
    assert!(failed[&120].reason.contains("to_p"));
    assert!(!failed[&200].reason.contains("secret"));
    assert_eq!(db.scalar("SELECT COUNT(*) FROM a").await, "294");

    // Updates and deletes likewise.
    let now = index(&scan(&db.engine, &access).await);
    let changes: Vec<Change> = [1000, 2]
        .iter()
        .map(|id| {
            let row = key_of(&access, &scan_sync(&now), &id.to_string());
            change(Some(&row), None)
        })
        .collect();
    let outcomes = db.engine.apply(&access, &permitted(&changes)).await.unwrap();
    assert_eq!(outcomes[0], ChangeOutcome::Written);
    assert!(
        matches!(&outcomes[1], ChangeOutcome::Failed(found) if found.kind == K::ForeignKey),
        "{outcomes:?}"
    );
    db.drop_all().await;
}

fn scan_sync(rows: &BTreeMap<Vec<u8>, CanonicalRow>) -> Vec<KeyedRow> {
    rows.iter().map(|(key, row)| KeyedRow { key: Key::from(key.as_slice()), row: row.clone() }).collect()
}

#[tokio::test]
async fn values_of_a_unique_key_are_exchanged_by_replacing() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, u INT UNIQUE); INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)",
    )
    .await;
    let access = db.access("a").await;
    let old = scan(&db.engine, &access).await;
    let new = rows_of(&db, &access, "a", "VALUES (1, 2), (2, 1), (3, 9)").await;
    let changes: Vec<Change> = ["1", "2"]
        .map(|id| change(Some(&key_of(&access, &old, id)), Some(&key_of(&access, &new, id))))
        .to_vec();
    let refused = db.engine.apply(&access, &permitted(&changes)).await.unwrap();
    assert!(refused.iter().all(|outcome| matches!(outcome, ChangeOutcome::Failed(_))));
    assert_eq!(
        db.engine.replace(&access, &exchange(&changes)).await.unwrap(),
        [ChangeOutcome::Written, ChangeOutcome::Written]
    );
    assert_eq!(db.scalar("SELECT GROUP_CONCAT(u ORDER BY id) FROM a").await, "2,1,3");
    // One that no longer holds keeps all from being written.
    let stale: Vec<Change> = ["1", "3"]
        .map(|id| change(Some(&key_of(&access, &old, id)), Some(&key_of(&access, &new, "3"))))
        .to_vec();
    assert_eq!(
        db.engine.replace(&access, &exchange(&stale)).await.unwrap(),
        [ChangeOutcome::Stale, ChangeOutcome::Stale]
    );
    // Where a deletion would spread, or columns would be lost, nothing is replaced.
    db.execute(
        "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES a (id) ON DELETE CASCADE)",
    )
    .await;
    let back: Vec<Change> = changes
        .iter()
        .map(|one| Change { key: one.key.clone(), before: one.after.clone(), after: one.before.clone() })
        .collect();
    let outcomes = db.engine.replace(&access, &exchange(&back)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, ChangeOutcome::Failed(_))));
    db.execute("DROP TABLE child; ALTER TABLE a ADD extra INT").await;
    let outcomes = db.engine.replace(&access, &exchange(&back)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, ChangeOutcome::Failed(_))));
    assert_eq!(db.scalar("SELECT GROUP_CONCAT(u ORDER BY id) FROM a").await, "2,1,3");
    db.drop_all().await;
}

#[tokio::test]
async fn a_scan_sees_one_moment() {
    let db = Db::create().await;
    db.execute("CREATE TABLE a (id INT PRIMARY KEY, v INT); INSERT INTO a SELECT seq, 1 FROM seq_1_to_300000; ANALYZE TABLE a").await;
    let access = db.access("a").await;
    for readers in [1, 4] {
        let snapshot = db.engine.snapshot(Arc::clone(&access), readers).await.unwrap();
        db.execute("UPDATE a SET v = v + 1; DELETE FROM a WHERE id % 7 = 0; INSERT INTO a SELECT seq, 1 FROM seq_400000_to_400100").await;
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        let reader = tokio::spawn(scan_in_batches(snapshot, sender));
        let mut rows = 0;
        let mut seen = std::collections::HashSet::new();
        let mut values_seen = std::collections::HashSet::new();
        while let Some(batch) = receiver.recv().await {
            batch
                .encode(&mut |key, row| {
                    rows += 1;
                    seen.insert(key.to_vec());
                    values_seen.insert(row.to_vec());
                })
                .unwrap();
        }
        reader.await.unwrap().unwrap();
        assert_eq!((rows, seen.len(), values_seen.len()), (300_000, 300_000, 1), "{readers} readers");
        db.execute("DELETE FROM a; INSERT INTO a SELECT seq, 1 FROM seq_1_to_300000; ANALYZE TABLE a").await;
    }
    // A scan that nobody listens to ends.
    let snapshot = db.engine.snapshot(access, 1).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let reader = tokio::spawn(scan_in_batches(snapshot, sender));
    receiver.recv().await.unwrap();
    drop(receiver);
    reader.await.unwrap().unwrap();
    db.drop_all().await;
}

/// The driver's batches have no more rows; a lane's piece has.
const DRIVERS_BATCH: usize = 2_000;

#[tokio::test]
async fn plain_scans_are_read_by_a_lane_and_every_row_as_the_driver_reads_it() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, d DECIMAL(20,6), e DECIMAL(40,20), t DATETIME(3), s TIMESTAMP NULL, \
         y TIME(6), v VARCHAR(400), b VARBINARY(70), f DOUBLE, n BIGINT UNSIGNED, c CHAR(8) CHARACTER SET latin1);
         INSERT INTO a SELECT seq, (CAST(seq AS SIGNED) - 2500) * 1.234567, IF(seq % 3, POW(-7, seq % 30) / 1000, NULL), \
         '1999-12-31' + INTERVAL seq * 977 MINUTE + INTERVAL seq % 1000 * 1000 MICROSECOND, \
         '2001-01-01' + INTERVAL seq DAY, SEC_TO_TIME((CAST(seq AS SIGNED) - 2500) * 7 / 8), REPEAT(CHAR(64 + seq % 60), seq % 100), \
         IF(seq % 5, UNHEX(MD5(seq)), NULL), seq / 7, seq * 18446744073709, IF(seq % 7, CHAR(233 USING latin1), '') FROM seq_1_to_5000",
    )
    .await;
    let access = db.access("a").await;
    let snapshot = db.engine.snapshot(Arc::clone(&access), 1).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    let reader = tokio::spawn(scan_in_batches(snapshot, sender));
    let mut rows = Vec::new();
    let mut longest = 0;
    while let Some(batch) = receiver.recv().await {
        longest = longest.max(batch.rows());
        rows.extend(keyed_rows(batch.as_ref()).unwrap());
    }
    reader.await.unwrap().unwrap();
    assert_eq!(rows.len(), 5000);
    assert!(longest > DRIVERS_BATCH, "no lane was taken");
    let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
    assert!(index(&db.engine.fetch(&access, &keys).await.unwrap()) == index(&rows));
    db.drop_all().await;
}

#[tokio::test]
async fn a_scan_that_waits_for_rows_ends_when_nobody_waits_for_it() {
    let db = Db::create().await;
    db.execute("CREATE TABLE a (id INT PRIMARY KEY, v INT); INSERT INTO a SELECT seq, 1 FROM seq_1_to_5")
        .await;
    let mut access = (*db.access("a").await).clone();
    access.filter = Some("SLEEP(1) = 0".into());
    let access = Arc::new(access);
    for aborted in [false, true] {
        let snapshot = db.engine.snapshot(Arc::clone(&access), 1).await.unwrap();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let scan = tokio::spawn(scan_in_batches(snapshot, sender));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let ended = async {
            if aborted {
                scan.abort();
                assert!(scan.await.is_err());
            } else {
                drop(receiver);
                scan.await.unwrap().unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(3), ended).await.unwrap();
    }
    db.drop_all().await;
}

#[tokio::test]
async fn errors_in_mid_scan_are_told_as_the_drivers_are() {
    let db = Db::create().await;
    db.execute("CREATE TABLE a (id INT PRIMARY KEY, v INT); INSERT INTO a SELECT seq, 1 FROM seq_1_to_50000")
        .await;
    let manners = trueup::engine::Manners {
        statement_timeout: Some(std::time::Duration::from_millis(300)),
        ..trueup::engine::Manners::default()
    };
    let hurried = MySqlEngine::connect_with(db.url().as_str(), &manners).await.unwrap();
    let mut access = (*db.access("a").await).clone();
    access.filter = Some("id < 49000 OR SLEEP(0.1) = 0".into());
    let late = scan_with(&hurried, &Arc::new(access.clone()), 1).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::Busy, "{late}");
    assert!(late.hint.is_some_and(|hint| hint.contains("--statement-timeout")));
    access.filter = Some("id < 49000 OR id = (SELECT id FROM a WHERE id > 1)".into());
    let wrong = scan_with(&db.engine, &Arc::new(access), 1).await.unwrap_err();
    assert_eq!(wrong.kind, ErrorKind::Filter, "{wrong}");
    // Killed while it is read.
    let access = db.access("a").await;
    db.execute("INSERT INTO a SELECT seq, 1 FROM seq_100000_to_1500000").await;
    let snapshot = db.engine.snapshot(Arc::clone(&access), 1).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let scan = tokio::spawn(scan_in_batches(snapshot, sender));
    receiver.recv().await.unwrap();
    let id = db
        .scalar(&format!(
            "SELECT MAX(id) FROM information_schema.processlist WHERE db = '{}' AND info LIKE 'SELECT `id`%'",
            db.name
        ))
        .await;
    db.execute(&format!("KILL CONNECTION {id}")).await;
    while receiver.recv().await.is_some() {}
    let lost = scan.await.unwrap().unwrap_err();
    assert_eq!(lost.kind, ErrorKind::Lost, "{lost}");
    db.drop_all().await;
}

#[tokio::test]
async fn rows_longer_than_a_packet_pass() {
    let db = Db::create().await;
    db.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, b LONGBLOB, c LONGTEXT);
         INSERT INTO a VALUES (1, 'x', 'y'), (2, REPEAT('x', 9000000), REPEAT('y', 9000001)), (3, NULL, 'z')",
    )
    .await;
    let access = db.access("a").await;
    let rows = scan(&db.engine, &access).await;
    let lengths: Vec<usize> = rows.iter().map(|row| row.row.as_bytes().len()).collect();
    assert_eq!(rows.len(), 3);
    assert!(lengths[1] > 18_000_001 && lengths[2] < 10, "{lengths:?}");
    let keys: Vec<Key> = rows.iter().map(|row| row.key.clone()).collect();
    assert!(index(&db.engine.fetch(&access, &keys).await.unwrap()) == index(&rows));
    db.drop_all().await;
}

#[tokio::test]
async fn errors_say_what_to_do_and_no_secret() {
    let db = Db::create().await;
    let connect = async |change: &dyn Fn(&mut url::Url)| {
        let mut url = db.url();
        change(&mut url);
        MySqlEngine::connect(url.as_str()).await.err().unwrap()
    };
    let wrong = connect(&|url| url.set_password(Some("wr0ng")).unwrap()).await;
    assert_eq!(wrong.kind, ErrorKind::Login);
    assert!(!format!("{wrong} {wrong:?}").contains("wr0ng") && wrong.hint.is_some());
    let wrong = connect(&|url| url.set_path("no_such_database")).await;
    assert_eq!(wrong.kind, ErrorKind::Login, "{wrong}");
    assert!(wrong.to_string().contains("no_such_database"));
    let wrong = connect(&|url| url.set_port(Some(1)).unwrap()).await;
    assert_eq!(wrong.kind, ErrorKind::Unreachable);
    let wrong = connect(&|url| url.set_host(Some("no-such-host.invalid")).unwrap()).await;
    assert_eq!(wrong.kind, ErrorKind::Unreachable);
    let wrong = connect(&|url| url.set_query(Some("colour=red"))).await;
    assert_eq!(wrong.kind, ErrorKind::Usage);

    // A login that may read only.
    let user = format!("u_{}", &db.name[db.name.len() - 10..]).replace('_', "");
    db.execute(&format!(
        "CREATE TABLE a (id INT PRIMARY KEY, v INT); INSERT INTO a VALUES (1, 1); CREATE USER {user} IDENTIFIED BY 'pw'; \
         GRANT SELECT ON {}.* TO {user}", db.name
    ))
    .await;
    let mut url = db.url();
    url.set_username(&user).unwrap();
    url.set_password(Some("pw")).unwrap();
    let reader = MySqlEngine::connect(url.as_str()).await.unwrap();
    let access = db.access("a").await;
    let rows = scan(&reader, &access).await;
    assert_eq!(rows.len(), 1);
    assert!(reader.describe(&TableName::new(None, "a")).await.is_ok());
    let refused = reader.check_writable(&access, trueup::model::Allow::ALL).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Permission);
    assert!(refused.hint.unwrap().contains("GRANT"));
    let refused = reader.apply(&access, &permitted(&[change(Some(&rows[0]), None)])).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Permission);
    db.engine.check_writable(&access, trueup::model::Allow::ALL).await.unwrap();

    // The table is no longer what it was planned as.
    db.execute("ALTER TABLE a MODIFY v VARCHAR(10)").await;
    assert_eq!(scan_with(&db.engine, &access, 1).await.unwrap_err().kind, ErrorKind::Changed);
    db.execute("ALTER TABLE a DROP v").await;
    assert_eq!(scan_with(&db.engine, &access, 1).await.unwrap_err().kind, ErrorKind::Changed);
    db.execute(&format!("DROP TABLE a; DROP USER {user}")).await;
    assert_eq!(scan_with(&db.engine, &access, 1).await.unwrap_err().kind, ErrorKind::NoSuchTable);
    db.drop_all().await;
}

#[tokio::test]
async fn locks_of_others_are_waited_for_and_reported_as_busy() {
    let db = Db::create().await;
    db.execute("CREATE TABLE a (id INT PRIMARY KEY, v INT); INSERT INTO a VALUES (1, 1), (2, 2)").await;
    let access = db.access("a").await;
    let old = scan(&db.engine, &access).await;
    let new = rows_of(&db, &access, "a", "VALUES (1, 10), (2, 20)").await;
    let mut other = db.connection().await;
    run(&mut other, "START TRANSACTION; UPDATE a SET v = 5 WHERE id = 1").await;
    let changes: Vec<Change> = ["1", "2"]
        .map(|id| change(Some(&key_of(&access, &old, id)), Some(&key_of(&access, &new, id))))
        .to_vec();
    let changes = permitted(&changes);
    let waiting = db.engine.apply(&access, &changes);
    let committing = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        run(&mut other, "COMMIT").await;
    };
    let (outcomes, ()) = tokio::join!(waiting, committing);
    assert_eq!(outcomes.unwrap(), [ChangeOutcome::Stale, ChangeOutcome::Written]);
    assert_eq!(db.scalar("SELECT GROUP_CONCAT(v ORDER BY id) FROM a").await, "5,20");
    db.drop_all().await;
}

#[tokio::test]
async fn rows_of_megabytes_pass() {
    let db = Db::create().await;
    db.execute("CREATE TABLE a (id INT PRIMARY KEY, b LONGBLOB); CREATE TABLE c LIKE a; INSERT INTO a SELECT seq, REPEAT(CHAR(seq), 3000000) FROM seq_1_to_12").await;
    let (from, to) = (db.access("a").await, db.access("c").await);
    let rows = scan(&db.engine, &from).await;
    let outcomes = db.engine.apply(&to, &permitted(&inserts(&rows))).await.unwrap();
    assert_eq!(outcomes, vec![ChangeOutcome::Written; 12]);
    let sums = db.query("CHECKSUM TABLE a, c").await;
    assert_eq!(sums[0][1], sums[1][1]);
    db.drop_all().await;
}
