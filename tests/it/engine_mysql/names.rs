//! Names that differ in case, accents or trailing blanks only, and what tells a table from another that took its place.

use sqlx::Connection as _;
use sqlx::mysql::MySqlConnection;
use trueup::engine::mysql::MySqlEngine;
use trueup::engine::{Engine, ErrorKind};
use trueup::model::TableName;

use super::{Db, run, scan};

/// Two databases whose names differ in case, dropped when the test is over.
struct Twins {
    lower: Db,
    upper: String,
}

impl Twins {
    async fn create() -> Option<Self> {
        let lower = Db::create().await;
        if lower.scalar("SELECT @@lower_case_table_names").await != "0" {
            lower.drop_all().await;
            return None;
        }
        let upper = lower.name.to_uppercase();
        lower.execute(&format!("CREATE DATABASE `{upper}` CHARACTER SET utf8mb4")).await;
        Some(Self { lower, upper })
    }

    async fn in_upper(&self, sql: &str) {
        let mut url = self.lower.url();
        url.set_path(&self.upper);
        run(&mut MySqlConnection::connect(url.as_str()).await.unwrap(), sql).await;
    }

    async fn drop_all(self) {
        self.lower.execute(&format!("DROP DATABASE `{}`", self.upper)).await;
        self.lower.drop_all().await;
    }
}

#[tokio::test]
async fn databases_and_tables_are_told_apart_by_every_byte_of_their_names() {
    let Some(twins) = Twins::create().await else { return };
    let db = &twins.lower;
    db.execute(
        "CREATE TABLE users (id INT PRIMARY KEY, low INT); CREATE TABLE Users (Id INT PRIMARY KEY, big INT, UNIQUE KEY big (big)); \
         CREATE TABLE `usérs` (id INT PRIMARY KEY, accent INT); \
         CREATE TABLE child (p INT PRIMARY KEY, CONSTRAINT one FOREIGN KEY (p) REFERENCES users (id) ON DELETE CASCADE); \
         CREATE TABLE Child (p INT PRIMARY KEY, CONSTRAINT two FOREIGN KEY (p) REFERENCES Users (Id) ON UPDATE CASCADE); \
         CREATE TRIGGER low BEFORE INSERT ON users FOR EACH ROW SET NEW.low = 1; \
         CREATE TRIGGER big BEFORE INSERT ON Users FOR EACH ROW SET NEW.big = 1; \
         INSERT INTO users VALUES (1, 0), (2, 0), (3, 0)",
    )
    .await;
    twins
        .in_upper("CREATE TABLE users (id INT PRIMARY KEY, other INT); INSERT INTO users VALUES (9, 9)")
        .await;
    let described = async |schema: &str, name: &str| {
        let schema = db.engine.describe(&TableName::new(Some(schema), name)).await.unwrap();
        let columns: Vec<String> = schema.columns.iter().map(|column| column.name.clone()).collect();
        (columns.join(","), schema)
    };
    let (columns, lower) = described(&db.name, "users").await;
    assert_eq!(columns, "id,low");
    assert_eq!(lower.keys.len(), 1);
    assert_eq!(lower.triggers, ["low"]);
    let referrers: Vec<(&str, bool, bool)> = lower
        .referrers
        .iter()
        .map(|found| (found.table.name.as_str(), found.delete_spreads, found.update_spreads))
        .collect();
    assert_eq!(referrers, [("child", true, false)]);
    let (columns, capital) = described(&db.name, "Users").await;
    assert_eq!(columns, "Id,big");
    assert_eq!(capital.keys.len(), 2);
    assert_eq!(capital.triggers, ["big"]);
    assert!(!capital.referrers[0].delete_spreads && capital.referrers[0].update_spreads);
    assert_eq!(described(&db.name, "usérs").await.0, "id,accent");
    let (_, child) = described(&db.name, "Child").await;
    assert_eq!(child.references, [TableName::new(Some(&db.name), "Users")]);

    // The other database, by its name in the URL and by the table's.
    let (columns, upper) = described(&twins.upper, "users").await;
    assert_eq!(columns, "id,other");
    assert_eq!(upper.table.schema.as_deref(), Some(twins.upper.as_str()));
    let mut url = db.url();
    url.set_path(&twins.upper);
    let engine = MySqlEngine::connect(url.as_str()).await.unwrap();
    // The server counts anew when it likes.
    let mut by_url = engine.describe(&TableName::new(None, "users")).await.unwrap();
    by_url.estimated_rows = upper.estimated_rows;
    assert_eq!(by_url, upper);
    assert_eq!(engine.tables(None).await.unwrap(), [TableName::new(Some(&twins.upper), "users")]);
    let names: Vec<String> =
        db.engine.tables(None).await.unwrap().into_iter().map(|table| table.name).collect();
    assert_eq!(names, ["Child", "Users", "child", "users", "usérs"]);
    for absent in ["USERS", "usèrs", "users ", "Usérs", "🎉"] {
        let missing = db.engine.describe(&TableName::new(None, absent)).await.unwrap_err();
        assert_eq!(missing.kind, ErrorKind::NoSuchTable, "{absent}");
    }
    for absent in [db.name.replace('t', "T"), format!("{} ", db.name)] {
        let missing = db.engine.describe(&TableName::new(Some(&absent), "users")).await.unwrap_err();
        assert_eq!(missing.kind, ErrorKind::NoSuchTable, "{absent}");
    }

    // Rows, and permission to write, are those of the table that was asked for.
    let access = db.access("users").await;
    assert_eq!(scan(&db.engine, &access).await.len(), 3);
    db.engine.check_writable(&access, trueup::model::Allow::ALL).await.unwrap();
    db.execute("DROP TABLE Child, Users; CREATE TABLE Users (id INT PRIMARY KEY) ENGINE=MyISAM").await;
    db.engine.check_writable(&access, trueup::model::Allow::ALL).await.unwrap();
    assert!(db.engine.check_writable(&*db.access("Users").await, trueup::model::Allow::ALL).await.is_err());
    twins.drop_all().await;
}

#[tokio::test]
async fn a_table_that_took_anothers_place_is_known_by_its_identity() {
    let db = Db::create().await;
    let create = "CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE TABLE `odd-name` (id INT PRIMARY KEY); \
                  CREATE TABLE p (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3";
    db.execute(create).await;
    let identity = async |table: &str| db.schema(table).await.identity.unwrap();
    for (table, remade) in [
        ("t", "TRUNCATE TABLE t"),
        ("t", "DROP TABLE t; CREATE TABLE t (id INT PRIMARY KEY, v INT)"),
        ("t", "ALTER TABLE t ADD w INT"),
        ("t", "ALTER TABLE t MODIFY v BIGINT"),
        ("odd-name", "TRUNCATE TABLE `odd-name`"),
        ("p", "TRUNCATE TABLE p"),
        ("p", "ALTER TABLE p TRUNCATE PARTITION p1"),
    ] {
        let before = identity(table).await;
        db.execute(&format!(
            "REPLACE INTO `{table}` (id) VALUES (1), (2), (3); DELETE FROM `{table}` WHERE id = 2"
        ))
        .await;
        db.execute(&format!("ANALYZE TABLE `{table}`; FLUSH TABLES `{table}`")).await;
        assert_eq!(identity(table).await, before, "{table}: rows and statistics are no other table");
        db.execute(remade).await;
        assert_ne!(identity(table).await, before, "{remade}");
    }
    // Without PROCESS the numbers stay hidden, and that is no error.
    let user = format!("i{}", db.name.replace('_', ""));
    let user = &user[..user.len().min(30)];
    db.execute(&format!("CREATE USER {user} IDENTIFIED BY 'pw'; GRANT SELECT ON {}.* TO {user}", db.name))
        .await;
    let mut url = db.url();
    url.set_username(user).unwrap();
    url.set_password(Some("pw")).unwrap();
    let reader = MySqlEngine::connect(url.as_str()).await.unwrap();
    let table = TableName::new(None, "t");
    let before = reader.describe(&table).await.unwrap().identity;
    assert!(before.is_some());
    db.execute("ALTER TABLE t ADD x INT").await;
    assert_ne!(reader.describe(&table).await.unwrap().identity, before);
    db.execute(&format!("DROP USER {user}")).await;
    db.drop_all().await;
}
