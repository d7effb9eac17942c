//! A condition's text, read into the tree.

use sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Ident, InTarget, TimezoneInfo, UnaryOperator, Value,
};
use sqlparser::dialect::{Dialect, MySqlDialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::{Comparison, Condition, Operand, TimeType};
use crate::model::EngineKind;

/// Bytes of a condition.
const TEXT_MAX: usize = 64 << 10;
/// Words and operators beside values and commas: what nests.
const TOKENS_MAX: usize = 1_000;
const DEPTH_MAX: usize = 40;

type Read<T> = Result<T, String>;

pub(super) fn condition(kind: EngineKind, text: &str) -> Read<Condition> {
    if text.len() > TEXT_MAX {
        return Err(format!("is longer than {TEXT_MAX} bytes"));
    }
    let dialect: &dyn Dialect = match kind {
        EngineKind::Postgres => &PostgreSqlDialect {},
        EngineKind::MySql => &MySqlDialect {},
        EngineKind::Sqlite => &SQLiteDialect {},
    };
    let unread = |_| "cannot be read".to_owned();
    let tokens = Tokenizer::new(dialect, text).tokenize().map_err(|_| "cannot be read".to_owned())?;
    let nests = |token: &&Token| {
        !matches!(
            token,
            Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_)
        )
    };
    if tokens.iter().filter(nests).count() > TOKENS_MAX {
        return Err(format!("has more than {TOKENS_MAX} words"));
    }
    let mut parser = Parser::new(dialect).with_recursion_limit(DEPTH_MAX).with_tokens(tokens);
    let expression = parser.parse_expr().map_err(unread)?;
    if parser.peek_token_ref().token != Token::EOF {
        return Err("does not end where an expression ends".to_owned());
    }
    Reader { kind }.condition(&expression)
}

struct Reader {
    kind: EngineKind,
}

impl Reader {
    fn condition(&self, expression: &Expr) -> Read<Condition> {
        Ok(match expression {
            Expr::Nested(inner) => self.condition(inner)?,
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => Condition::Not(Box::new(self.condition(expr)?)),
            Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                let parts = chain(expression, op);
                let parts = parts.into_iter().map(|part| self.condition(part)).collect::<Read<_>>()?;
                if *op == BinaryOperator::And { Condition::All(parts) } else { Condition::Any(parts) }
            }
            Expr::BinaryOp { left, op, right } => Condition::Compare {
                left: self.operand(left)?,
                operator: comparison(op)?,
                right: self.operand(right)?,
            },
            Expr::IsNull(expr) => Condition::Null { operand: self.operand(expr)?, negated: false },
            Expr::IsNotNull(expr) => Condition::Null { operand: self.operand(expr)?, negated: true },
            Expr::In { expr, target: InTarget::List(list), negated, global: false } => Condition::In {
                operand: self.operand(expr)?,
                negated: *negated,
                values: list.iter().map(|value| self.operand(value)).collect::<Read<_>>()?,
            },
            Expr::Between { expr, negated, low, high } => Condition::Between {
                operand: self.operand(expr)?,
                negated: *negated,
                low: self.operand(low)?,
                high: self.operand(high)?,
            },
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(*negated, false, expr, pattern, escape_char.as_deref())?
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char }
                if self.kind == EngineKind::Postgres =>
            {
                self.like(*negated, true, expr, pattern, escape_char.as_deref())?
            }
            Expr::Identifier(name) => Condition::Column(self.name(name)?),
            Expr::Value(value) => match &value.value {
                Value::Boolean(_) => return Err("is no comparison of a column".to_owned()),
                _ => return Err("is a value by itself".to_owned()),
            },
            other => return Err(refusal(other)),
        })
    }

    fn like(
        &self,
        negated: bool,
        any_case: bool,
        expr: &Expr,
        pattern: &Expr,
        escape: Option<&Expr>,
    ) -> Read<Condition> {
        let text = |expr: &Expr| match self.operand(expr)? {
            Operand::Text(text) => Ok(text),
            _ => Err("has a pattern that is no text".to_owned()),
        };
        let pattern = text(pattern)?;
        let escape = escape.map(text).transpose()?;
        if escape.as_ref().is_some_and(|escape| escape.chars().count() > 1) {
            return Err("has an ESCAPE of more than one character".to_owned());
        }
        Ok(Condition::Like { operand: self.operand(expr)?, negated, any_case, pattern, escape })
    }

    fn operand(&self, expression: &Expr) -> Read<Operand> {
        Ok(match expression {
            Expr::Nested(inner) => self.operand(inner)?,
            Expr::Identifier(name) => Operand::Column(self.name(name)?),
            Expr::Value(value) => literal(&value.value)?,
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match self.operand(expr)? {
                Operand::Number(number) if !number.starts_with('-') => Operand::Number(format!("-{number}")),
                _ => return Err("has a minus before something else than a number".to_owned()),
            },
            Expr::TypedString(typed) if !typed.uses_odbc_syntax => {
                let Operand::Text(text) = literal(&typed.value.value)? else {
                    return Err("has a time that is no text".to_owned());
                };
                Operand::Time(self.time_type(&typed.data_type)?, self.time(text)?)
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                format: None,
                ..
            } if self.kind == EngineKind::Postgres => match self.operand(expr)? {
                Operand::Text(text) => Operand::Time(self.time_type(data_type)?, self.time(text)?),
                _ => return Err("has a cast of something else than a text".to_owned()),
            },
            other => return Err(refusal(other)),
        })
    }

    fn time_type(&self, ty: &DataType) -> Read<TimeType> {
        let zoned = |zone: &TimezoneInfo| matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone);
        match ty {
            _ if self.kind == EngineKind::Sqlite => Err("has a typed value, which SQLite has not".to_owned()),
            DataType::Date => Ok(TimeType::Date),
            DataType::Timestamp(None, zone) if !zoned(zone) => Ok(TimeType::Timestamp),
            DataType::Timestamp(None, _) if self.kind == EngineKind::Postgres => Ok(TimeType::TimestampTz),
            _ => Err("has a cast to another type than date or timestamp".to_owned()),
        }
    }

    fn time(&self, text: String) -> Read<String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || " :.-+/_".contains(c);
        match text.chars().all(plain) {
            true => Ok(text),
            false => Err("has a time of other characters than times have".to_owned()),
        }
    }

    /// As the database finds it: PostgreSQL folds names that are not quoted.
    fn name(&self, name: &Ident) -> Read<String> {
        let plain = |c: char| c.is_alphanumeric() || c == '_';
        match name.quote_style {
            None if !name.value.chars().all(plain) => Err("has a variable in it".to_owned()),
            None if self.kind == EngineKind::Postgres => Ok(name.value.to_ascii_lowercase()),
            _ => Ok(name.value.clone()),
        }
    }
}

/// The parts of a chain of one operator, which is nested to the left.
fn chain<'e>(expression: &'e Expr, operator: &BinaryOperator) -> Vec<&'e Expr> {
    let (mut parts, mut rest) = (Vec::new(), expression);
    while let Expr::BinaryOp { left, op, right } = rest
        && op == operator
    {
        parts.push(&**right);
        rest = left;
    }
    parts.push(rest);
    parts.reverse();
    parts
}

fn comparison(operator: &BinaryOperator) -> Read<Comparison> {
    Ok(match operator {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::Unequal,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        _ => return Err("has another operator than a comparison".to_owned()),
    })
}

fn literal(value: &Value) -> Read<Operand> {
    Ok(match value {
        Value::Number(number, false) if is_number(number) => Operand::Number(number.clone()),
        // Where double quotes are a name's, none gets here.
        Value::SingleQuotedString(text)
        | Value::DoubleQuotedString(text)
        | Value::EscapedStringLiteral(text)
            if !text.contains('\0') =>
        {
            Operand::Text(text.clone())
        }
        Value::Boolean(truth) => Operand::Bool(*truth),
        Value::Null => return Err("compares with NULL, which is never true: write IS NULL".to_owned()),
        _ => return Err("has a value that is no number, text or truth value".to_owned()),
    })
}

fn is_number(text: &str) -> bool {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let all = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    (all(whole) || (whole.is_empty() && all(fraction)))
        && (fraction.is_empty() || all(fraction))
        && all(exponent)
}

fn refusal(expression: &Expr) -> String {
    match expression {
        Expr::Function(_) => "calls a function",
        Expr::Subquery(_) | Expr::In { .. } | Expr::Exists { .. } => "has a query in it",
        Expr::CompoundIdentifier(_) => "has a name with a dot: name the column alone",
        _ => "has more in it than columns, values and comparisons",
    }
    .to_owned()
}
