//! The tree, written as SQL.

use super::super::measure::Dialect;
use super::{Comparison, Condition, Operand, TimeType};
use crate::model::EngineKind;

pub(super) fn condition(kind: EngineKind, dialect: &dyn Dialect, condition: &Condition) -> String {
    Writer { kind, dialect }.condition(condition)
}

struct Writer<'a> {
    kind: EngineKind,
    dialect: &'a dyn Dialect,
}

impl Writer<'_> {
    fn condition(&self, condition: &Condition) -> String {
        let joined = |parts: &[Condition], word: &str| {
            let parts: Vec<String> = parts.iter().map(|part| self.condition(part)).collect();
            format!("({})", parts.join(word))
        };
        match condition {
            Condition::All(parts) => joined(parts, " AND "),
            Condition::Any(parts) => joined(parts, " OR "),
            Condition::Not(inner) => format!("(NOT ({}))", self.condition(inner)),
            Condition::Column(name) => self.dialect.quote(name),
            Condition::Compare { left, operator, right } => {
                format!("{} {} {}", self.operand(left), sign(*operator), self.operand(right))
            }
            Condition::In { operand, negated, values } => {
                let values: Vec<String> = values.iter().map(|value| self.operand(value)).collect();
                format!("{}{} IN ({})", self.operand(operand), not(*negated), values.join(", "))
            }
            Condition::Between { operand, negated, low, high } => format!(
                "{}{} BETWEEN {} AND {}",
                self.operand(operand),
                not(*negated),
                self.operand(low),
                self.operand(high)
            ),
            Condition::Null { operand, negated } => {
                format!("{} IS{} NULL", self.operand(operand), not(*negated))
            }
            Condition::Like { operand, negated, any_case, pattern, escape } => {
                let like = if *any_case { "ILIKE" } else { "LIKE" };
                let escape = escape
                    .as_ref()
                    .map_or_else(String::new, |escape| format!(" ESCAPE {}", self.dialect.literal(escape)));
                let pattern = self.dialect.literal(pattern);
                format!("{}{} {like} {pattern}{escape}", self.operand(operand), not(*negated))
            }
        }
    }

    fn operand(&self, operand: &Operand) -> String {
        match operand {
            Operand::Column(name) => self.dialect.quote(name),
            Operand::Number(number) => number.clone(),
            Operand::Text(text) => self.dialect.literal(text),
            Operand::Bool(true) => "TRUE".to_owned(),
            Operand::Bool(false) => "FALSE".to_owned(),
            Operand::Time(ty, text) => match self.kind {
                EngineKind::Postgres => {
                    let ty = match ty {
                        TimeType::Date => "date",
                        TimeType::Timestamp => "timestamp",
                        TimeType::TimestampTz => "timestamptz",
                    };
                    format!("CAST({} AS pg_catalog.{ty})", self.dialect.literal(text))
                }
                EngineKind::MySql | EngineKind::Sqlite => {
                    let word = if *ty == TimeType::Date { "DATE" } else { "TIMESTAMP" };
                    format!("{word}'{text}'")
                }
            },
        }
    }
}

fn not(negated: bool) -> &'static str {
    if negated { " NOT" } else { "" }
}

fn sign(operator: Comparison) -> &'static str {
    match operator {
        Comparison::Equal => "=",
        Comparison::Unequal => "<>",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}
