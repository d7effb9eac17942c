//! What an engine told us about a table: names, columns, declared types, keys.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The three engines. MariaDB and MySQL speak one protocol; what differs is in [`ServerInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    Postgres,
    MySql,
    Sqlite,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MySQL",
            Self::Sqlite => "SQLite",
        })
    }
}

/// The server behind an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    pub engine: EngineKind,
    /// As a person would say it: "PostgreSQL 15.18", "MariaDB 10.11.6".
    pub product: String,
    /// How this server rounds a fraction of a second when it stores it in a column of fewer digits.
    pub rounding: Rounding,
}

/// How a value with more digits than a column holds is rounded when it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// PostgreSQL: to the nearest, halves away from zero (timestamps: away from 2000-01-01).
    HalfAwayFromZero,
    /// MySQL: to the nearest, halves up (towards later).
    HalfUp,
    /// MariaDB: cut off.
    Truncate,
}

/// A table's name, with its schema (PostgreSQL) or database (MySQL) where one was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    pub schema: Option<String>,
    pub name: String,
}

impl TableName {
    pub fn new(schema: Option<&str>, name: &str) -> Self {
        Self { schema: schema.map(str::to_owned), name: name.to_owned() }
    }

    /// Parses `name`, `schema.name`, and double-quoted parts (`"odd.schema"."Name"`, `""` for a quote).
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts: Vec<String> = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = if let Some(quoted) = rest.strip_prefix('"') {
                take_quoted(quoted).ok_or_else(|| format!("unclosed quote in table name {text}"))?
            } else {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            };
            if part.is_empty() {
                return Err(format!("empty part in table name {text:?}"));
            }
            parts.push(part);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => break,
                None => return Err(format!("text after the closing quote in table name {text}")),
            }
        }
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), None, _) => Ok(Self { schema: None, name }),
            (Some(schema), Some(name), None) => Ok(Self { schema: Some(schema), name }),
            _ => Err(format!("table name {text} has more than two parts; quote a part that holds a dot")),
        }
    }
}

fn take_quoted(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            part.push(c);
        } else if matches!(chars.peek(), Some((_, '"'))) {
            part.push('"');
            chars.next();
        } else {
            return Some((part, &text[at + 1..]));
        }
    }
    None
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A column's type, as far as it matters for what its values mean.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    Bool,
    Int {
        bits: u8,
        signed: bool,
    },
    /// Exact decimals. `scale: None` is PostgreSQL's unconstrained `numeric`.
    Decimal {
        precision: Option<u32>,
        scale: Option<u32>,
    },
    Float {
        bits: u8,
    },
    /// Character text, also enums and sets (their labels). `padded` is `char(n)`: trailing blanks mean nothing.
    Text {
        padded: bool,
    },
    Bytes,
    /// Bit strings.
    Bits,
    Uuid,
    Date,
    Time {
        digits: u8,
    },
    TimeTz {
        digits: u8,
    },
    /// Without zone.
    Timestamp {
        digits: u8,
    },
    /// An instant.
    TimestampTz {
        digits: u8,
    },
    Interval,
    Json,
    Array(Box<ColumnType>),
    /// Anything else that has one sound text form in its engine (network, geometric, ranges, xml ...): comparable with its like and with text.
    Named(String),
    /// No sound form: refused by name.
    Unsupported(String),
}

/// Who fills a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filled {
    /// By whoever inserts.
    ByWriter,
    /// By an expression over other columns; cannot be written.
    Generated,
    /// PostgreSQL `GENERATED ALWAYS AS IDENTITY`: can be inserted with an override, not updated.
    IdentityAlways,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub ty: ColumnType,
    /// The type as the engine writes it, fit for a cast in that engine: `numeric(12,2)`, `varchar(16)`.
    pub declared: String,
    pub nullable: bool,
    pub filled: Filled,
    pub has_default: bool,
    /// The collation's name where the column has one that matters.
    pub collation: Option<String>,
    /// The collation holds values equal that differ in bytes (case, accents, trailing blanks).
    pub collation_folds: bool,
}

/// A unique, not-null set of columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueKey {
    pub name: String,
    pub primary: bool,
    /// In index order.
    pub columns: Vec<String>,
    /// Every column is declared not null and the index covers all rows (not partial, not on expressions).
    pub identifies: bool,
}

/// A foreign key of another table that points here, and what a delete here would do there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    pub table: TableName,
    /// A delete of a row here deletes or rewrites rows there (CASCADE, SET NULL, SET DEFAULT).
    pub delete_spreads: bool,
    /// An update of the key that is pointed to rewrites rows there.
    #[serde(default)]
    pub update_spreads: bool,
    /// The columns here whose update does that.
    #[serde(default)]
    pub update_columns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    pub table: TableName,
    pub is_view: bool,
    /// In table order.
    pub columns: Vec<Column>,
    pub keys: Vec<UniqueKey>,
    /// The engine's estimate; `None` where it has none.
    pub estimated_rows: Option<u64>,
    /// Tables this one's foreign keys point to.
    pub references: Vec<TableName>,
    pub referrers: Vec<Referrer>,
    /// Names of the triggers that would fire when rows are written.
    pub triggers: Vec<String>,
    /// Some of them fire when a row is deleted and inserted again.
    #[serde(default)]
    pub fires_on_exchange: bool,
    /// The engine's own note of something a person must know (a non-transactional storage engine, say).
    pub notes: Vec<String>,
    /// Another value than before: the table was dropped and made again, truncated, or rewritten. `None` where the engine
    /// cannot tell.
    #[serde(default)]
    pub identity: Option<String>,
    /// Why this login may not see all rows (row-level security); `None` where it sees them all.
    #[serde(default)]
    pub hidden_rows: Option<String>,
}

impl TableSchema {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn primary_key(&self) -> Option<&UniqueKey> {
        self.keys.iter().find(|key| key.primary)
    }
}

/// A declared type that takes a value and keeps another one in silence: of PostgreSQL an interval of some fields or digits, a numeric
/// that is rounded left of its point, an array whose elements are bounded; of MySQL a float of so many digits.
pub fn keeps_less(declared: &str) -> bool {
    let element = declared.trim_end_matches("[]");
    (element.starts_with("interval") && element != "interval")
        || (element.starts_with("numeric(") && element.contains(",-"))
        || (element != declared && element.contains('('))
        || (["float(", "double(", "real("].iter().any(|ty| element.starts_with(ty)) && element.contains(','))
}

#[cfg(test)]
mod tests {
    use super::TableName;

    #[test]
    fn table_names_are_parsed_with_their_quotes() {
        assert_eq!(TableName::parse("orders"), Ok(TableName::new(None, "orders")));
        assert_eq!(TableName::parse("shop.orders"), Ok(TableName::new(Some("shop"), "orders")));
        assert_eq!(TableName::parse(r#""odd.one"."Na""me""#), Ok(TableName::new(Some("odd.one"), "Na\"me")));
        for bad in ["", ".", "a.", "a.b.c", "\"a", "\"a\"b"] {
            assert!(TableName::parse(bad).is_err(), "{bad}");
        }
    }
}
