//! Which table of which database this is: what stays as it is while rows are written, tables are altered and servers started
//! again, and tells a copy, and a table that was made anew, from the one that was written. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::TableName;

/// Where a table lies. What a login may not see, or a server does not have, is `None` and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Postgres(PostgresOrigin),
    MySql(MySqlOrigin),
    Sqlite(SqliteOrigin),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresOrigin {
    /// Given when the cluster was made.
    pub system: Option<String>,
    /// Numbers of the database and of the table: neither is used twice in a cluster, but for one that counts all of them round.
    pub database: String,
    pub table: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MySqlOrigin {
    /// `server_uuid`, of MariaDB `server_uid`.
    pub server: Option<String>,
    /// The database that the URL names.
    pub database: Option<String>,
    /// InnoDB's numbers of the table, or of its partitions: others where it was made anew, truncated or rebuilt.
    pub numbers: Vec<String>,
    /// The second in which it was made or altered.
    pub created: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqliteOrigin {
    pub path: String,
    pub device: Option<u64>,
    pub inode: Option<u64>,
    /// When the file was made, in nanoseconds since 1970.
    pub made: Option<String>,
    /// Goes up by one with each statement that changes the schema, and with each VACUUM.
    pub schema_version: i64,
    /// The other objects of the schema and indexes of the table, by kind and name, with a digest of what they are; empty
    /// where there are too many.
    pub objects: BTreeMap<String, String>,
}

/// A table may be altered or its file vacuumed once: made anew it counts two.
const SCHEMA_CHANGES_MAX: i64 = 1;

impl Origin {
    /// Why this is not the table that was written then; `None`: nothing says so.
    pub fn differs(&self, now: &Self, table: &TableName) -> Option<String> {
        match (self, now) {
            (Self::Postgres(then), Self::Postgres(now)) => then.differs(now, table),
            (Self::MySql(then), Self::MySql(now)) => then.differs(now, table),
            (Self::Sqlite(then), Self::Sqlite(now)) => then.differs(now, table),
            _ => {
                Some("the target is a database of another kind than the one that the run wrote to".to_owned())
            }
        }
    }

    /// The name of the table in a copy of its database: on MySQL a table's name holds the database's.
    pub fn name_in_copy(&self, table: &TableName) -> TableName {
        match self {
            Self::MySql(then) if then.database.is_some() && then.database == table.schema => {
                TableName::new(None, &table.name)
            }
            _ => table.clone(),
        }
    }
}

fn another<T: PartialEq>(then: &Option<T>, now: &Option<T>) -> bool {
    then.is_some() && now.is_some() && then != now
}

const ANOTHER_SERVER: &str = "the target lies on another server than the one that the run wrote to";

fn made_anew(table: &TableName) -> String {
    format!("table {table} was dropped and made anew since the run")
}

impl PostgresOrigin {
    fn differs(&self, now: &Self, table: &TableName) -> Option<String> {
        if another(&self.system, &now.system) {
            return Some(ANOTHER_SERVER.to_owned());
        }
        if self.database != now.database {
            return Some("the target is another database than the one that the run wrote to".to_owned());
        }
        (self.table != now.table).then(|| made_anew(table))
    }
}

impl MySqlOrigin {
    fn differs(&self, now: &Self, table: &TableName) -> Option<String> {
        if another(&self.server, &now.server) {
            return Some(ANOTHER_SERVER.to_owned());
        }
        // A table of another database than the URL's was named with it; a URL without a database says nothing of it.
        if let Some(here) = &now.database
            && self.database.as_ref() != Some(here)
            && table.schema.as_ref() != Some(here)
        {
            return Some(format!("the target is database {here}, and the run wrote to table {table}"));
        }
        let rebuilt = || {
            format!(
                "table {table} was dropped and made anew, truncated or rebuilt (by OPTIMIZE TABLE, or an ALTER TABLE that copies it) since the run"
            )
        };
        match (self.numbers.as_slice(), now.numbers.as_slice()) {
            ([], _) | (_, []) => another(&self.created, &now.created).then(|| {
                format!("table {table} was made anew or altered since the run (this login may not see more of it than when that was)")
            }),
            // Partitions come and go.
            (then, now) => (!then.iter().any(|number| now.contains(number))).then(rebuilt),
        }
    }
}

impl SqliteOrigin {
    fn differs(&self, now: &Self, table: &TableName) -> Option<String> {
        // A device may get another number when the machine is started again, and a file another path.
        let same_place = self.path == now.path || !another(&self.device, &now.device);
        let another_file = another(&self.inode, &now.inode) || another(&self.made, &now.made);
        if another_file || !same_place {
            return Some("the target is another file than the one that the run wrote to".to_owned());
        }
        let changes = now.schema_version - self.schema_version;
        if changes < 0 {
            return Some("the file holds another database than when the run wrote to it".to_owned());
        }
        (changes - self.explained(now) > SCHEMA_CHANGES_MAX).then(|| {
            format!(
                "table {table} may have been dropped and made anew: the schema of the file was changed {changes} times since the run, and SQLite keeps no more of it"
            )
        })
    }

    /// Statements that changed something else than the table.
    fn explained(&self, now: &Self) -> i64 {
        let went = self.objects.keys().filter(|name| !now.objects.contains_key(*name));
        // What belongs to the table goes with it.
        let went = went.filter(|name| !name.starts_with(OWN)).count();
        let came = now.objects.iter().filter(|(name, what)| self.objects.get(*name) != Some(*what)).count();
        i64::try_from(went + came).unwrap_or(i64::MAX)
    }
}

/// Before the names of indexes and triggers of the table.
pub(super) const OWN: &str = "own ";

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableName {
        TableName::new(Some("shop"), "t")
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn postgres_numbers_tell_tables_apart() {
        let then = PostgresOrigin { system: some("1"), database: "2".into(), table: "3".into() };
        let why = |now: PostgresOrigin| {
            Origin::Postgres(then.clone()).differs(&Origin::Postgres(now), &table()).unwrap_or_default()
        };
        assert_eq!(why(then.clone()), "");
        assert_eq!(why(PostgresOrigin { system: None, ..then.clone() }), "");
        assert!(why(PostgresOrigin { system: some("9"), ..then.clone() }).contains("another server"));
        assert!(why(PostgresOrigin { database: "9".into(), ..then.clone() }).contains("another database"));
        assert!(why(PostgresOrigin { table: "9".into(), ..then.clone() }).contains("made anew"));
    }

    #[test]
    fn mysql_tables_are_told_apart_by_what_the_login_sees() {
        let then = MySqlOrigin {
            server: some("u"),
            database: some("shop"),
            numbers: vec!["7".into()],
            created: some("noon"),
        };
        let why = |now: MySqlOrigin| {
            Origin::MySql(then.clone()).differs(&Origin::MySql(now), &table()).unwrap_or_default()
        };
        assert_eq!(why(then.clone()), "");
        // Altered in place; a partition more; a URL without a database.
        assert_eq!(why(MySqlOrigin { numbers: vec!["7".into(), "8".into()], ..then.clone() }), "");
        assert_eq!(why(MySqlOrigin { created: some("one"), database: None, ..then.clone() }), "");
        assert_eq!(why(MySqlOrigin { numbers: Vec::new(), server: None, ..then.clone() }), "");
        assert!(why(MySqlOrigin { server: some("v"), ..then.clone() }).contains("another server"));
        assert!(why(MySqlOrigin { database: some("copy"), ..then.clone() }).contains("database copy"));
        assert!(why(MySqlOrigin { numbers: vec!["8".into()], ..then.clone() }).contains("rebuilt"));
        let unseen = MySqlOrigin { numbers: Vec::new(), created: some("one"), ..then.clone() };
        assert!(why(unseen).contains("made anew or altered"));
        let here = Origin::MySql(then.clone());
        assert_eq!(here.name_in_copy(&table()), TableName::new(None, "t"));
        let elsewhere = TableName::new(Some("other"), "t");
        assert_eq!(here.name_in_copy(&elsewhere), elsewhere);
    }

    #[test]
    fn sqlite_files_and_what_their_schema_counts() {
        let then = SqliteOrigin {
            path: "/a".into(),
            device: Some(1),
            inode: Some(2),
            made: some("3"),
            schema_version: 10,
            objects: BTreeMap::from([("table u".into(), "x".into()), ("own index i".into(), "y".into())]),
        };
        let why = |now: SqliteOrigin| {
            Origin::Sqlite(then.clone()).differs(&Origin::Sqlite(now), &table()).unwrap_or_default()
        };
        assert_eq!(why(then.clone()), "");
        assert_eq!(why(SqliteOrigin { path: "/b".into(), ..then.clone() }), "", "it was moved");
        assert_eq!(why(SqliteOrigin { device: Some(7), ..then.clone() }), "", "mounted again");
        let clone = SqliteOrigin { path: "/b".into(), device: Some(7), ..then.clone() };
        assert!(why(clone).contains("another file"), "a clone of the volume");
        assert!(why(SqliteOrigin { inode: Some(9), ..then.clone() }).contains("another file"));
        assert!(why(SqliteOrigin { made: some("9"), ..then.clone() }).contains("another file"));
        let after = |version, objects: &[(&str, &str)]| SqliteOrigin {
            schema_version: version,
            objects: objects.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned())).collect(),
            ..then.clone()
        };
        let (u, i) = (("table u", "x"), ("own index i", "y"));
        assert_eq!(why(after(11, &[u, i])), "", "VACUUM, or a column was added");
        assert!(why(after(12, &[u, i])).contains("made anew"), "or dropped and made again");
        assert!(why(after(12, &[u])).contains("made anew"), "its index went with it");
        assert_eq!(
            why(after(13, &[u, i, ("table v", "z"), ("own index j", "z")])),
            "",
            "two were made, VACUUM"
        );
        assert_eq!(why(after(12, &[("table u", "altered"), i])), "", "another was altered, VACUUM");
        assert!(why(after(9, &[u, i])).contains("another database"), "an older copy was laid over it");
    }
}
