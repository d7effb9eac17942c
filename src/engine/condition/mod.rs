//! Conditions that cannot read more than the row they are asked of, for agents that run no SQL of their callers.
//!
//! The caller's text is read into a tree of columns, values and comparisons ([`read`]), and written anew from the tree for the
//! database ([`write`]): identifiers quoted, values as literals of our own. Nothing of the text itself reaches the database.

mod read;
mod write;

use super::measure::dialect;
use crate::model::EngineKind;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// A column that is itself true or false.
    Column(String),
    Compare {
        left: Operand,
        operator: Comparison,
        right: Operand,
    },
    In {
        operand: Operand,
        negated: bool,
        values: Vec<Operand>,
    },
    Between {
        operand: Operand,
        negated: bool,
        low: Operand,
        high: Operand,
    },
    Null {
        operand: Operand,
        negated: bool,
    },
    Like {
        operand: Operand,
        negated: bool,
        /// Whether letters' case does not matter (`ILIKE`).
        any_case: bool,
        pattern: String,
        escape: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand {
    Column(String),
    Number(String),
    Text(String),
    Bool(bool),
    Time(TimeType, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeType {
    Date,
    Timestamp,
    TimestampTz,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The condition in the words of this database, if it is one of columns, values and comparisons; else what about it is not, as the
/// end of a sentence.
pub fn restricted(kind: EngineKind, text: &str) -> Result<String, String> {
    let condition = read::condition(kind, text)?;
    Ok(write::condition(kind, dialect(kind), &condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [EngineKind; 3] = [EngineKind::Postgres, EngineKind::MySql, EngineKind::Sqlite];

    #[test]
    fn conditions_of_columns_and_values_are_written_anew() {
        use EngineKind::{MySql, Postgres, Sqlite};
        for (kind, text, is) in [
            (Postgres, "Id > 5", "\"id\" > 5"),
            (MySql, "Id > 5", "`Id` > 5"),
            (Sqlite, "Id > -5", "\"Id\" > -5"),
            (Postgres, "\"Id\" <> 1.5e3", "\"Id\" <> 1.5e3"),
            (Sqlite, "[a]]b] = 1", "\"a]b\" = 1"),
            (MySql, "`a``b` = \"it's\"", "`a``b` = 'it''s'"),
            (Postgres, "a = 'it''s' -- note", "\"a\" = 'it''s'"),
            (Postgres, r"a = 'a\b'", r"a = E'a\\b'"),
            (MySql, r"a = 'a\'b'", "`a` = 'a''b'"),
            (MySql, r"a = 'a\\b'", "`a` = _utf8mb4 X'615c62'"),
            (Postgres, "a = 1 and b = 2 or not c = 3", "((\"a\" = 1 AND \"b\" = 2) OR (NOT (\"c\" = 3)))"),
            (Sqlite, "a in (1, 'x', true)", "\"a\" IN (1, 'x', TRUE)"),
            (Sqlite, "a not in (1)", "\"a\" NOT IN (1)"),
            (MySql, "a between 1 and b", "`a` BETWEEN 1 AND `b`"),
            (Postgres, "a not between 1 and 2", "\"a\" NOT BETWEEN 1 AND 2"),
            (Postgres, "active and a is not null", "(\"active\" AND \"a\" IS NOT NULL)"),
            (Postgres, "a ilike '%x!_' escape '!'", "\"a\" ILIKE '%x!_' ESCAPE '!'"),
            (Sqlite, "a not like 'x%'", "\"a\" NOT LIKE 'x%'"),
            (
                Postgres,
                "at >= date '2024-01-01' and at < '2024-02-01'::timestamptz",
                "(\"at\" >= CAST('2024-01-01' AS pg_catalog.date) AND \"at\" < CAST('2024-02-01' AS pg_catalog.timestamptz))",
            ),
            (MySql, "at >= timestamp '2024-01-01 00:00:00'", "`at` >= TIMESTAMP'2024-01-01 00:00:00'"),
            (Postgres, "((a = 1))", "\"a\" = 1"),
        ] {
            let is = is.replacen("a = E", "\"a\" = E", usize::from(is.starts_with("a = E")));
            assert_eq!(restricted(kind, text).as_deref(), Ok(is.as_str()), "{kind:?}: {text}");
        }
    }

    #[test]
    fn what_may_read_more_is_refused() {
        let mut all = Vec::new();
        for kind in ALL {
            for text in [
                "exists (select 1 from secret)",
                "a = (select pw from secret)",
                "a in (select pw from secret)",
                "a = any (array(select pw from secret))",
                "current_setting((select string_agg(pw, ',') from secret)) is null",
                "load_file('/etc/passwd') is not null",
                "pg_sleep(10) is null",
                "lower(a) = 'x'",
                "a = @@version",
                "a = @x",
                "a = $1",
                "a = ?",
                "a = :x",
                "secret.pw = 'x'",
                "a = 1; drop table t",
                "a = 1) or (1 = 1",
                "a = 1 union select 1",
                "a = 1 limit 1",
                "a || b = 'x'",
                "a + 1 = 2",
                "a::regclass = 'x'",
                "cast(a as regclass) = 5",
                "'secret'::regclass = 5",
                "case when a = 1 then true end",
                "a ~ 'x'",
                "a regexp 'x'",
                "a glob 'x'",
                "a match 'x'",
                "a operator(public.=) 1",
                "a collate \"x\" = 1",
                "(a, b) = (1, 2)",
                "a = null",
                "a = 0x41",
                "a = x'41'",
                "interval '1' day > a",
                "a like b",
                "",
                "   ",
                "--",
                "'unended",
                "a = 1 and",
                "*",
                "t.*",
                "a[1] = 2",
                "a -> 'x' = 1",
                "1; pragma temp_store_directory='x'",
                "(with x as (select 1) select 1)",
            ] {
                if let Ok(taken) = restricted(kind, text) {
                    all.push(format!("{kind:?}: {text}: {taken}"));
                }
            }
        }
        assert_eq!(all, Vec::<String>::new());
    }

    #[test]
    fn long_and_deep_conditions_are_refused_and_harm_nothing() {
        let deep = format!("{}a = 1{}", "(".repeat(100_000), ")".repeat(100_000));
        let nots = format!("{}a = 1", "not ".repeat(20_000));
        let chain = vec!["a"; 20_000].join(" = ");
        let ands = vec!["a = 1"; 20_000].join(" and ");
        let minus = format!("a = {}1", "-".repeat(30_000));
        let minuses = format!("a = {}1", "- ".repeat(30_000));
        for kind in ALL {
            for text in [&deep, &nots, &chain, &ands, &minus, &minuses] {
                assert!(restricted(kind, text).is_err());
            }
        }
        let many: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
        assert!(restricted(EngineKind::Postgres, &format!("id in ({})", many.join(","))).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_what_is_written_is_read_as_the_same(text in "(?s).{0,200}", word in "[a-z ()='<>0-9,\"\\\\%;-]{0,80}") {
            for kind in ALL {
                for text in [&text, &word] {
                    if let Ok(condition) = read::condition(kind, text) {
                        let written = write::condition(kind, dialect(kind), &condition);
                        if !written.contains('\\') && !written.contains("X'") && !written.contains("x'") {
                            proptest::prop_assert_eq!(read::condition(kind, &written), Ok(condition));
                        }
                    }
                }
            }
        }

        #[test]
        fn a_text_stays_a_text(text in "(?s).{0,60}") {
            for kind in ALL {
                let condition = Condition::Compare {
                    left: Operand::Column("a".into()),
                    operator: Comparison::Equal,
                    right: Operand::Text(text.replace('\0', "")),
                };
                let written = write::condition(kind, dialect(kind), &condition);
                // Outside of its quotes nothing of it stands.
                let bare: String = written.split('\'').step_by(2).collect();
                let plain = |c: char| c.is_ascii_alphanumeric() || " =\"`_()".contains(c);
                proptest::prop_assert!(bare.chars().all(plain), "{}", written);
            }
        }
    }
}
