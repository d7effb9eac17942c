//! Databases of a test's own, on the servers that `scripts/test` starts. Dropped when the test ends.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection, Row};

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn admin_url(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests with scripts/test"))
}

fn with_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("an admin URL ends in a database");
    format!("{server}/{name}")
}

/// Runs the future to its end on a thread of its own, so that it works inside and outside a runtime, also in `Drop`.
fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    })
    .join()
    .unwrap()
}

/// A fresh PostgreSQL database.
pub(crate) struct PostgresDb {
    admin: String,
    name: String,
}

impl PostgresDb {
    pub(crate) fn create() -> Self {
        let db = Self { admin: admin_url("TRUEUP_TEST_POSTGRES_URL"), name: unique_name() };
        postgres_execute(&db.admin, &format!("CREATE DATABASE {}", db.name));
        db
    }

    pub(crate) fn url(&self) -> String {
        with_database(&self.admin, &self.name)
    }

    /// The URL of a role of its own, without rights but those of PUBLIC.
    pub(crate) fn login(&self) -> String {
        let role = format!("role_{}", self.name);
        self.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'"));
        let mut url = url::Url::parse(&self.url()).unwrap();
        url.set_username(&role).unwrap();
        url.set_password(Some("pw")).unwrap();
        url.into()
    }

    /// One or more statements.
    pub(crate) fn execute(&self, sql: &str) {
        postgres_execute(&self.url(), sql);
    }

    /// The first column of the first row, as text.
    pub(crate) fn scalar(&self, sql: &str) -> Option<String> {
        let (url, sql) = (self.url(), sql.to_owned());
        block_on(async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let row = sqlx::query(AssertSqlSafe(format!("SELECT ({sql})::text")))
                .fetch_one(&mut connection)
                .await
                .unwrap();
            row.get::<Option<String>, _>(0)
        })
    }
}

impl Drop for PostgresDb {
    fn drop(&mut self) {
        postgres_execute(&self.admin, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

fn postgres_execute(url: &str, sql: &str) {
    let (url, sql) = (url.to_owned(), sql.to_owned());
    block_on(async move {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    });
}

/// A fresh MariaDB database.
pub(crate) struct MysqlDb {
    admin: String,
    name: String,
}

impl MysqlDb {
    pub(crate) fn create() -> Self {
        let db = Self { admin: admin_url("TRUEUP_TEST_MYSQL_URL"), name: unique_name() };
        mysql_execute(&db.admin, &format!("CREATE DATABASE {} CHARACTER SET utf8mb4", db.name));
        db
    }

    pub(crate) fn url(&self) -> String {
        with_database(&self.admin, &self.name)
    }

    pub(crate) fn execute(&self, sql: &str) {
        mysql_execute(&self.url(), sql);
    }

    pub(crate) fn scalar(&self, sql: &str) -> Option<String> {
        let (url, sql) = (self.url(), sql.to_owned());
        block_on(async move {
            let mut connection = MySqlConnection::connect(&url).await.unwrap();
            let row = sqlx::query(AssertSqlSafe(format!("SELECT CONVERT(({sql}) USING utf8mb4)")))
                .fetch_one(&mut connection)
                .await
                .unwrap();
            row.get::<Option<String>, _>(0)
        })
    }
}

impl Drop for MysqlDb {
    fn drop(&mut self) {
        mysql_execute(&self.admin, &format!("DROP DATABASE IF EXISTS {}", self.name));
    }
}

fn mysql_execute(url: &str, sql: &str) {
    let (url, sql) = (url.to_owned(), sql.to_owned());
    block_on(async move {
        let mut connection = MySqlConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    });
}

/// A fresh SQLite file.
pub(crate) struct SqliteDb {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl SqliteDb {
    pub(crate) fn create() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let db = Self { _dir: dir, path };
        db.execute("PRAGMA user_version = 1");
        db
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.path.display())
    }

    pub(crate) fn execute(&self, sql: &str) {
        rusqlite::Connection::open(&self.path)
            .unwrap()
            .execute_batch(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(crate) fn scalar(&self, sql: &str) -> Option<String> {
        rusqlite::Connection::open(&self.path)
            .unwrap()
            .query_row(&format!("SELECT CAST(({sql}) AS TEXT)"), [], |row| row.get(0))
            .unwrap()
    }
}
