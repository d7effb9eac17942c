//! The file as it is written, every word with its place. Keys that are not here are refused.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

pub(super) type Word = Spanned<String>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) endpoints: BTreeMap<Word, Endpoint>,
    #[serde(default)]
    pub(super) pairs: BTreeMap<Word, Pair>,
    #[serde(default)]
    pub(super) checks: BTreeMap<Word, Check>,
    pub(super) storage: Option<Storage>,
    pub(super) serve: Option<Serve>,
    #[serde(default)]
    pub(super) schedules: BTreeMap<Word, Schedule>,
    #[serde(default)]
    pub(super) alerts: BTreeMap<Word, Alert>,
    pub(super) retention: Option<Retention>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Storage {
    pub(super) ledger: Option<Word>,
    pub(super) audit_key_file: Option<Word>,
    #[serde(default)]
    pub(super) keep_keys: bool,
    pub(super) undo: Option<bool>,
    pub(super) undo_dir: Option<Word>,
    pub(super) undo_key_file: Option<Word>,
    pub(super) undo_keep: Option<Word>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Serve {
    pub(super) listen: Option<Word>,
    pub(super) public_url: Option<Word>,
    pub(super) concurrency: Option<Spanned<u64>>,
    pub(super) schedule: Option<Word>,
    pub(super) grace: Option<Word>,
    pub(super) lease: Option<Word>,
    pub(super) view_token: Option<Word>,
    pub(super) view_token_file: Option<Word>,
    pub(super) operate_token: Option<Word>,
    pub(super) operate_token_file: Option<Word>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Schedule {
    pub(super) when: Word,
    pub(super) time_zone: Option<Word>,
    pub(super) jitter: Option<Word>,
    pub(super) catch_up: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alert {
    pub(super) kind: Word,
    pub(super) url: Option<Word>,
    pub(super) url_file: Option<Word>,
    pub(super) secret: Option<Word>,
    pub(super) secret_file: Option<Word>,
    pub(super) smtp: Option<Word>,
    pub(super) smtp_file: Option<Word>,
    pub(super) from: Option<Word>,
    #[serde(default)]
    pub(super) to: Vec<Word>,
    #[serde(default)]
    pub(super) command: Vec<Word>,
    #[serde(default)]
    pub(super) checks: Vec<Word>,
    pub(super) min_severity: Option<Word>,
    pub(super) resolved: Option<bool>,
    pub(super) group: Option<Word>,
    pub(super) retry: Option<Word>,
    pub(super) give_up: Option<Word>,
    pub(super) repeat: Option<Word>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    pub(super) runs: Option<Word>,
    pub(super) last_runs: Option<u64>,
    pub(super) trail: Option<Word>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    pub(super) url: Option<Word>,
    pub(super) url_file: Option<Word>,
    pub(super) ca: Option<Word>,
    pub(super) cert: Option<Word>,
    pub(super) key_file: Option<Word>,
    pub(super) token: Option<Word>,
    pub(super) token_file: Option<Word>,
    #[serde(default)]
    pub(super) insecure: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    pub(super) source: Word,
    pub(super) target: Word,
    pub(super) source_schema: Option<String>,
    pub(super) target_schema: Option<String>,
    pub(super) unpaired: Option<Spanned<Unpaired>>,
    #[serde(default)]
    pub(super) tables: Vec<Spanned<Table>>,
}

/// A name alone, or a table of options.
#[derive(Debug)]
pub(super) enum Table {
    Name(String),
    Options(Box<TableOptions>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableOptions {
    pub(super) table: Option<Word>,
    pub(super) source: Option<Word>,
    pub(super) target: Option<Word>,
    #[serde(default)]
    pub(super) key: Vec<String>,
    #[serde(default)]
    pub(super) columns: Vec<String>,
    #[serde(default)]
    pub(super) exclude: Vec<String>,
    #[serde(default)]
    pub(super) map: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) as_text: Vec<String>,
    #[serde(default)]
    pub(super) assume_utc: bool,
    pub(super) unpaired: Option<Spanned<Unpaired>>,
    #[serde(rename = "where")]
    pub(super) both_where: Option<Word>,
    pub(super) source_where: Option<Word>,
    pub(super) target_where: Option<Word>,
    #[serde(default)]
    pub(super) tolerance: BTreeMap<String, Spanned<Number>>,
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrOptions;
        impl<'de> Visitor<'de> for NameOrOptions {
            type Value = Table;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a table, or a table of options")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Table, E> {
                Ok(Table::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table, A::Error> {
                TableOptions::deserialize(MapAccessDeserializer::new(map))
                    .map(|options| Table::Options(Box::new(options)))
            }
        }
        deserializer.deserialize_any(NameOrOptions)
    }
}

/// A word, or names of columns.
#[derive(Debug)]
pub(super) enum Unpaired {
    Word(String),
    Names(Vec<String>),
}

impl<'de> Deserialize<'de> for Unpaired {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrNames;
        impl<'de> Visitor<'de> for WordOrNames {
            type Value = Unpaired;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"ignore\", \"different\", or a list of names of columns")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Unpaired, E> {
                Ok(Unpaired::Word(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Unpaired, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(names)).map(Unpaired::Names)
            }
        }
        deserializer.deserialize_any(WordOrNames)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    pub(super) pair: Word,
    pub(super) table: Option<Word>,
    pub(super) kind: Word,
    pub(super) column: Option<Word>,
    pub(super) key: Option<Spanned<Vec<String>>>,
    pub(super) max_age: Option<Word>,
    pub(super) step: Option<Spanned<Number>>,
    pub(super) time_zone: Option<Word>,
    pub(super) sql: Option<Word>,
    pub(super) source_sql: Option<Word>,
    pub(super) target_sql: Option<Word>,
    pub(super) tolerance: Option<Spanned<Tolerance>>,
    pub(super) window: Option<Spanned<Window>>,
    pub(super) severity: Option<Word>,
    pub(super) owner: Option<String>,
    pub(super) repair: Option<Spanned<Repair>>,
    pub(super) schedule: Option<Word>,
    pub(super) hidden_rows: Option<Word>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tolerance {
    pub(super) absolute: Option<Spanned<Number>>,
    pub(super) percent: Option<Spanned<Number>>,
    pub(super) rows: Option<Spanned<u64>>,
    pub(super) lag: Option<Word>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    pub(super) column: Word,
    pub(super) last: Word,
    pub(super) settle: Option<Word>,
}

/// A number, or a text that holds one exactly.
#[derive(Debug)]
pub(super) struct Number(pub(super) String);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;
        impl Visitor<'_> for AnyNumber {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a text that holds one")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number(value.to_string()))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Number, E> {
                Ok(Number(value.to_owned()))
            }
        }
        deserializer.deserialize_any(AnyNumber)
    }
}

/// `"never"`, `"dry_run"`, `{ up_to = 100 }`.
#[derive(Debug)]
pub(super) enum Repair {
    Word(String),
    UpTo(u64),
}

impl<'de> Deserialize<'de> for Repair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Limit {
            up_to: u64,
        }
        struct WordOrLimit;
        impl<'de> Visitor<'de> for WordOrLimit {
            type Value = Repair;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"never\", \"dry_run\" or { up_to = N }")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Repair, E> {
                Ok(Repair::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Repair, A::Error> {
                Limit::deserialize(MapAccessDeserializer::new(map)).map(|limit| Repair::UpTo(limit.up_to))
            }
        }
        deserializer.deserialize_any(WordOrLimit)
    }
}
