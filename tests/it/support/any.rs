//! A private database of any of the three engines, for tests that say the same of each.

use super::servers::{MysqlDb, PostgresDb, SqliteDb};

pub(crate) enum AnyDb {
    Sqlite(SqliteDb),
    Postgres(PostgresDb),
    Mysql(MysqlDb),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
    Mysql,
}

pub(crate) const KINDS: [Kind; 3] = [Kind::Sqlite, Kind::Postgres, Kind::Mysql];

impl AnyDb {
    pub(crate) fn create(kind: Kind) -> Self {
        match kind {
            Kind::Sqlite => Self::Sqlite(SqliteDb::create()),
            Kind::Postgres => Self::Postgres(PostgresDb::create()),
            Kind::Mysql => Self::Mysql(MysqlDb::create()),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(db) => db.url(),
            Self::Postgres(db) => db.url(),
            Self::Mysql(db) => db.url(),
        }
    }

    /// Statements end with `;`, and hold none.
    pub(crate) fn execute(&self, sql: &str) {
        for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            match self {
                Self::Sqlite(db) => db.execute(statement),
                Self::Postgres(db) => db.execute(statement),
                Self::Mysql(db) => db.execute(statement),
            }
        }
    }

    pub(crate) fn scalar(&self, sql: &str) -> Option<String> {
        match self {
            Self::Sqlite(db) => db.scalar(sql),
            Self::Postgres(db) => db.scalar(sql),
            Self::Mysql(db) => db.scalar(sql),
        }
    }

    pub(crate) fn count(&self, sql: &str) -> u64 {
        self.scalar(sql).unwrap().parse().unwrap()
    }

    /// Rows with these numbers: `columns` are expressions over `i`.
    pub(crate) fn fill(&self, table: &str, numbers: std::ops::RangeInclusive<u32>, columns: &str) {
        let (first, last) = (numbers.start(), numbers.end());
        // No server limits this, as some do the depth of a recursion.
        self.execute(&format!(
            "INSERT INTO {table} WITH d(n) AS (SELECT 0 UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
               UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9), \
             m(i) AS (SELECT {first} + a.n + 10 * b.n + 100 * c.n + 1000 * e.n + 10000 * f.n FROM d a, d b, d c, d e, d f) \
             SELECT {columns} FROM m WHERE i <= {last} ORDER BY i"
        ));
    }

    /// All rows `id`, `a` in order.
    pub(crate) fn rows(&self) -> Vec<(i64, String)> {
        let all = match self {
            Self::Sqlite(_) => {
                "SELECT group_concat(id || ':' || a, ',') FROM (SELECT id, a FROM t ORDER BY id)"
            }
            Self::Postgres(_) => "SELECT string_agg(id || ':' || a, ',' ORDER BY id) FROM t",
            Self::Mysql(_) => "SELECT JSON_ARRAYAGG(CONCAT(id, ':', a) ORDER BY id) FROM t",
        };
        let Some(all) = self.scalar(all) else { return Vec::new() };
        let all = all.trim_matches(['[', ']']).replace(['"', ' '], "");
        all.split(',')
            .filter(|row| !row.is_empty())
            .map(|row| {
                let (id, a) = row.split_once(':').unwrap();
                (id.parse().unwrap(), a.to_owned())
            })
            .collect()
    }
}
