//! What a table's description says of it beside its columns: which table it is, whose rows are hidden, what an update spreads to.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use trueup::engine::Engine;
use trueup::engine::postgres::PgEngine;
use trueup::model::TableName;

use super::setup::Db;

async fn identity(db: &Db, table: &str) -> String {
    db.engine.describe(&TableName::parse(table).unwrap()).await.unwrap().identity.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_emptied_or_made_again_is_another() {
    let db = Db::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g FROM generate_series(1, 1000) g;
         CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY LIST (id);
         CREATE TABLE p1a PARTITION OF p1 DEFAULT; CREATE TABLE p2 PARTITION OF p DEFAULT; INSERT INTO p SELECT g FROM generate_series(1, 20) g;
         CREATE VIEW w AS SELECT t.id FROM t JOIN p USING (id); CREATE VIEW ww AS SELECT * FROM w; CREATE MATERIALIZED VIEW m AS SELECT * FROM t;",
    )
    .await;
    for table in ["t", "p", "w", "ww", "m"] {
        let before = identity(&db, table).await;
        for quiet in [
            "INSERT INTO t VALUES (-1); INSERT INTO p VALUES (-1)",
            "UPDATE t SET v = 'x'; UPDATE p SET id = id + 1000",
            "DELETE FROM t WHERE id = -1; DELETE FROM p WHERE id = 999",
            "UPDATE p SET id = id - 1000; ANALYZE t, p",
            "VACUUM t",
            "VACUUM (FREEZE) p",
            "CREATE INDEX ON t (v)",
            "ALTER TABLE t SET (fillfactor = 90)",
        ] {
            db.sql(quiet).await;
            assert_eq!(identity(&db, table).await, before, "{table}: {quiet}");
        }
    }
    for (table, loud) in [
        ("t", "TRUNCATE t"),
        ("t", "DROP TABLE t CASCADE; CREATE TABLE t (id int PRIMARY KEY, v text)"),
        ("t", "VACUUM FULL t"),
        ("t", "ALTER TABLE t ALTER id TYPE bigint"),
        ("p", "TRUNCATE p1a"),
        ("p", "DROP TABLE p2; CREATE TABLE p2 PARTITION OF p DEFAULT"),
        ("p", "TRUNCATE p"),
        ("m", "DROP MATERIALIZED VIEW IF EXISTS m; CREATE MATERIALIZED VIEW m AS SELECT * FROM t"),
        ("m", "REFRESH MATERIALIZED VIEW m"),
        ("w", "CREATE VIEW w AS SELECT t.id FROM t JOIN p USING (id)"),
        ("w", "TRUNCATE t"),
        ("w", "TRUNCATE p2"),
        ("w", "CREATE OR REPLACE VIEW w AS SELECT t.id FROM t"),
    ] {
        let before = match loud.starts_with("CREATE VIEW") || loud.starts_with("DROP MATERIALIZED") {
            true => String::new(),
            false => identity(&db, table).await,
        };
        db.sql(loud).await;
        assert_ne!(identity(&db, table).await, before, "{loud}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_rows_are_told_to_whom_they_are_hidden_from() {
    let role = format!("hidden_{}", std::process::id());
    let db = Db::new(&format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'pw';
         CREATE TABLE rl (id int PRIMARY KEY, tenant text); ALTER TABLE rl ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON rl USING (tenant = 'a'); INSERT INTO rl VALUES (1, 'a'), (2, 'b');
         CREATE TABLE off (id int PRIMARY KEY); CREATE POLICY p ON off USING (id > 1); INSERT INTO off VALUES (1), (2);
         CREATE TABLE part (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part1 PARTITION OF part DEFAULT; ALTER TABLE part ENABLE ROW LEVEL SECURITY;
         INSERT INTO part VALUES (1);
         CREATE VIEW of_owner AS SELECT * FROM rl; CREATE VIEW of_login WITH (security_invoker = true) AS SELECT * FROM rl;
         CREATE VIEW of_view AS SELECT * FROM of_login; CREATE VIEW of_off AS SELECT * FROM off; CREATE VIEW of_of_owner WITH (security_invoker = true) AS SELECT * FROM of_owner;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
         CREATE TABLE forced (id int PRIMARY KEY); ALTER TABLE forced OWNER TO {role}; ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE TABLE own (id int PRIMARY KEY); ALTER TABLE own OWNER TO {role}; ALTER TABLE own ENABLE ROW LEVEL SECURITY;
         INSERT INTO forced VALUES (1); INSERT INTO own VALUES (1);"
    ))
    .await;
    let mut url = url::Url::parse(&db.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("pw")).unwrap();
    let reader = PgEngine::connect(url.as_str()).await.unwrap();
    let mut login = PgConnection::connect(url.as_str()).await.unwrap();
    for (table, hidden) in [
        ("rl", true),
        ("off", false),
        ("part", true),
        ("forced", true),
        ("own", false),
        ("of_owner", false),
        ("of_login", true),
        // The login's policies, though the view around it runs with its owner's rights.
        ("of_view", true),
        ("of_of_owner", false),
        ("of_off", false),
    ] {
        // The database is the judge of what the login sees.
        let counts = format!("SELECT count(*) FROM {table}");
        let all = db.count(&counts).await;
        let by_login: i64 = login.fetch_one(AssertSqlSafe(counts)).await.unwrap().get(0);
        assert_eq!(all != by_login, hidden, "{table}: {all} of an administrator, {by_login} of the login");
        let name = TableName::parse(table).unwrap();
        let seen = reader.describe(&name).await.unwrap();
        assert_eq!(seen.hidden_rows.is_some(), hidden, "{table}");
        assert_eq!(seen.notes.iter().any(|note| note.contains("row-level security")), hidden, "{table}");
        // An administrator sees them all.
        assert_eq!(db.engine.describe(&name).await.unwrap().hidden_rows, None, "{table}");
    }
    drop((reader, login));
    db.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_update_of_a_key_spreads_to_is_told() {
    let db = Db::new(
        "CREATE TABLE t (id int PRIMARY KEY, code int UNIQUE, up int REFERENCES t (code) ON UPDATE CASCADE);
         CREATE TABLE a (r int REFERENCES t ON UPDATE CASCADE); CREATE TABLE b (r int REFERENCES t ON UPDATE SET NULL ON DELETE CASCADE);
         CREATE TABLE c (r int DEFAULT 1 REFERENCES t ON UPDATE SET DEFAULT); CREATE TABLE d (r int REFERENCES t);
         CREATE TABLE e (r int REFERENCES t ON DELETE SET NULL, q int REFERENCES t (code) ON UPDATE CASCADE);",
    )
    .await;
    let schema = db.engine.describe(&TableName::parse("t").unwrap()).await.unwrap();
    let spreads: Vec<(&str, bool, bool)> = schema
        .referrers
        .iter()
        .map(|other| (other.table.name.as_str(), other.update_spreads, other.delete_spreads))
        .collect();
    assert_eq!(
        spreads,
        [
            ("a", true, false),
            ("b", true, true),
            ("c", true, false),
            ("d", false, false),
            ("e", true, true),
            ("t", true, false)
        ]
    );
}
