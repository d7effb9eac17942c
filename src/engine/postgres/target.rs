//! A table as one call works with it: what it is at this moment, and how values are given to its columns.

use std::sync::Arc;

use sqlx::postgres::PgConnection;

use super::decode::Decoder;
use super::live::{self, LiveColumn, Relation};
use super::{PgEngine, bind, exact, statement};
use crate::engine::{EngineError, ErrorKind};
use crate::model::canonical::decode_key;
use crate::model::value::{StoredClass, hex};
use crate::model::{AccessColumn, ColumnType, ComparisonType, Key, Rejection, TableAccess, Value};

/// The texts of some keys, an array for each key column.
pub(super) type Arrays = Vec<Vec<Option<String>>>;

pub(super) struct Target<'a> {
    pub access: &'a TableAccess,
    pub relation: Relation,
    pub live: Vec<LiveColumn>,
    pub key_types: Vec<ComparisonType>,
    pub row_types: Vec<ComparisonType>,
    pub decoder: Arc<Decoder>,
    /// Reads the key columns alone.
    pub key_decoder: Arc<Decoder>,
    pub during: String,
    /// The first key column that may hold one key in several spellings which the server does not hold equal.
    pub loose: Option<&'a AccessColumn>,
    /// The server may hold two keys equal that differ in bytes.
    pub folds: bool,
    /// The database's encoding promises nothing of a text's bytes.
    pub raw_text: bool,
}

impl<'a> Target<'a> {
    pub(super) async fn load(
        engine: &PgEngine,
        connection: &mut PgConnection,
        access: &'a TableAccess,
        during: String,
    ) -> Result<Self, EngineError> {
        let relation = live::find_planned(connection, access).await?;
        let live = live::columns(connection, &relation).await?;
        live::match_columns(access, &live)?;
        let raw_text = engine.raw_text;
        let key_access = TableAccess { columns: access.key_columns().to_vec(), ..access.clone() };
        let decoder =
            |access| Decoder::new(access, raw_text).map(Arc::new).map_err(|e| EngineError::row(&during, &e));
        let (decoder, key_decoder) = (decoder(access)?, decoder(&key_access)?);
        let (key_types, row_types) = (access.key_types(), access.row_types());
        let loose = access.key_columns().iter().find(|column| !exact::finds_every_spelling(column));
        let folds = access
            .key_columns()
            .iter()
            .any(|column| live.iter().any(|live| live.name == column.name && live.folds));
        Ok(Self {
            access,
            relation,
            live,
            key_types,
            row_types,
            decoder,
            key_decoder,
            during,
            loose,
            folds,
            raw_text,
        })
    }

    /// The type behind domains of a column as it is now.
    pub(super) fn live_of(&self, column: &AccessColumn) -> &str {
        self.live.iter().find(|live| live.name == column.name).map_or("text", |live| live.bare.as_str())
    }

    /// The operator that compares the column, whatever the search path is.
    pub(super) fn equals(&self, column: &AccessColumn) -> &str {
        let live = self.live.iter().find(|live| live.name == column.name);
        live.map_or("OPERATOR(pg_catalog.=)", |live| live.equals.as_str())
    }

    /// How a column is read by a statement with parameters.
    pub(super) fn select(&self, alias: &str, column: &AccessColumn) -> String {
        let plain = format!("{alias}.{}", statement::ident(&column.name));
        let read = statement::select(alias, column);
        let known_as =
            self.live.iter().find(|live| live.name == column.name).and_then(|live| live.known_as.as_ref());
        match known_as {
            Some(ty) if read == plain => format!("{plain}::{ty}"),
            _ => read,
        }
    }

    /// The columns of a row in the access's order.
    pub(super) fn select_list(&self, alias: &str) -> String {
        self.access.columns.iter().map(|column| self.select(alias, column)).collect::<Vec<_>>().join(", ")
    }

    /// The columns of its key alone.
    pub(super) fn select_key(&self, alias: &str) -> String {
        let columns = self.access.key_columns().iter().map(|column| self.select(alias, column));
        columns.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn from(&self) -> String {
        self.relation.from()
    }

    /// Where rows are inserted.
    pub(super) fn into(&self) -> String {
        statement::table(&self.relation.table)
    }

    pub(super) fn malformed(&self, what: &str) -> EngineError {
        EngineError::new(ErrorKind::Row, self.during.clone(), what)
    }

    /// Its texts travel as the bytes they are, for they need not be UTF-8.
    fn is_raw(&self, column: &AccessColumn) -> bool {
        self.raw_text && !column.as_text && matches!(column.ty, ColumnType::Text { .. })
    }

    /// The text by which a column is given a value; `None` is NULL.
    pub(super) fn text_of(&self, column: &AccessColumn, value: &Value) -> Result<Option<String>, Rejection> {
        if !self.is_raw(column) {
            return bind::text_of(column, value);
        }
        if let Value::Irregular(StoredClass::Blob, bytes) = value {
            return Ok(Some(format!("\\x{}", hex(bytes))));
        }
        Ok(bind::text_of(column, value)?.map(|text| format!("\\x{}", hex(text.as_bytes()))))
    }

    /// As `text_of`, of a text as it is stored.
    pub(super) fn text_of_stored(&self, column: &AccessColumn, stored: &[u8]) -> Option<String> {
        if self.is_raw(column) {
            return Some(format!("\\x{}", hex(stored)));
        }
        std::str::from_utf8(stored).ok().map(str::to_owned)
    }

    fn given(&self, column: &AccessColumn, value: &str) -> String {
        let bare = self.live_of(column);
        if self.is_raw(column) {
            return format!("pg_catalog.convert_from({value}::bytea, 'SQL_ASCII')");
        }
        if !column.as_text {
            if bare == "money" {
                return format!("{value}::numeric");
            }
            if bare == "money[]" && matches!(column.ty, ColumnType::Array(_)) {
                return format!("{value}::numeric[]");
            }
            // Their elements' own delimiter need not be a comma.
            if statement::is_array_of_named(&column.ty) {
                return format!("{value}::text[]");
            }
        }
        value.to_owned()
    }

    /// The text `value` as a value that is compared with the column. Casts are to types without modifiers, which cut nothing.
    pub(super) fn compared(&self, column: &AccessColumn, value: &str) -> String {
        format!("{}::{}", self.given(column, value), self.live_of(column))
    }

    /// The text `value` as a value that is assigned to the column. Text is assigned as text: an explicit cast to
    /// `varchar(3)` would cut, an assignment refuses.
    pub(super) fn assigned(&self, column: &AccessColumn, value: &str) -> String {
        let bare = self.live_of(column);
        let value = self.given(column, value);
        if matches!(bare, "text" | "character varying" | "bpchar") {
            value
        } else {
            format!("{value}::{bare}")
        }
    }

    /// The column as it is compared.
    pub(super) fn stored(&self, column: &AccessColumn) -> String {
        let live = self.live.iter().find(|live| live.name == column.name);
        statement::stored(&format!("t.{}", statement::ident(&column.name)), live.filter(|live| live.domain))
    }

    /// `t."k" = v.c0::int8 AND ...` for the key columns.
    pub(super) fn key_match(&self) -> String {
        let pairs = self.access.key_columns().iter().enumerate().map(|(at, column)| {
            let given = self.compared(column, &format!("v.c{at}"));
            format!("{} {} {given}", self.stored(column), self.equals(column))
        });
        pairs.collect::<Vec<_>>().join(" AND ")
    }

    /// Whether `t."k" = ANY ($1::text[]::type[])` compares as `key_match` does.
    pub(super) fn is_plain(&self, column: &AccessColumn) -> bool {
        !matches!(column.ty, ColumnType::Array(_)) && self.given(column, "v") == "v"
    }

    /// The texts of each key column for each key that can be given, in every spelling that is looked for; and the keys that
    /// cannot be given.
    pub(super) fn key_arrays<'k>(&self, keys: &[&'k Key]) -> Result<(Arrays, Vec<&'k Key>), EngineError> {
        let columns = self.access.key_columns();
        let mut arrays: Arrays = vec![Vec::with_capacity(keys.len()); columns.len()];
        let mut unbound = Vec::new();
        for key in keys {
            let values = decode_key(&self.key_types, key.as_bytes())
                .map_err(|_| self.malformed("a key's bytes do not fit the plan"))?;
            // Every combination of the spellings that a column may hold.
            let mut spellings: Vec<Vec<String>> = vec![Vec::new()];
            for (column, value) in columns.iter().zip(&values) {
                let texts = self.key_texts(column, value);
                spellings = spellings
                    .iter()
                    .flat_map(|before| {
                        texts.iter().map(move |text| before.iter().cloned().chain([text.clone()]).collect())
                    })
                    .collect();
            }
            if spellings.is_empty() {
                unbound.push(*key);
            }
            for spelling in spellings {
                for (array, text) in arrays.iter_mut().zip(spelling) {
                    array.push(Some(text));
                }
            }
        }
        Ok((arrays, unbound))
    }

    fn key_texts(&self, column: &AccessColumn, value: &Value) -> Vec<String> {
        if !self.is_raw(column) {
            return bind::key_texts(column, value);
        }
        if matches!(value, Value::Irregular(StoredClass::Blob, _)) {
            return self.text_of(column, value).ok().flatten().into_iter().collect();
        }
        let texts = bind::key_texts(column, value);
        texts.into_iter().map(|text| format!("\\x{}", hex(text.as_bytes()))).collect()
    }
}
