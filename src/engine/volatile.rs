//! Functions that give another answer each time: a condition that calls one chooses other rows whenever it is read.

use std::collections::BTreeSet;

use super::{EngineError, ErrorKind};

/// The error that a condition, or a view, calls this function.
pub(super) fn refuse(during: &str, whose: &str, function: &str) -> EngineError {
    EngineError::new(
        ErrorKind::Filter,
        during,
        format!("{whose} calls {function}(), which may answer otherwise each time: no two reads would see the same rows"),
    )
    .with_hint("use a condition on the rows' own values; a function of your own is declared as one that gives one answer")
}

/// A call in SQL text: the name before a parenthesis, and what qualifies it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Called {
    pub(super) schema: Option<String>,
    pub(super) name: String,
}

/// Every name that stands before a parenthesis, keywords among them. Quoted texts and comments hold none. In MySQL's SQL `"a"` is a
/// text, backslashes escape, and a comment may be meant.
pub(super) fn calls(sql: &str, is_mysql: bool) -> BTreeSet<Called> {
    let mut found = BTreeSet::new();
    let mut rest = sql;
    // The name that was read last, and the one that a point parted from it.
    let (mut schema, mut name): (Option<String>, Option<String>) = (None, None);
    while let Some(first) = rest.chars().next() {
        let mut used = first.len_utf8();
        match first {
            '(' => {
                if let Some(name) = name.take() {
                    found.insert(Called { schema: schema.take(), name });
                }
                schema = None;
            }
            '.' => schema = name.take(),
            '\'' | '"' if is_mysql => {
                used = escaped(rest, first);
                (schema, name) = (None, None);
            }
            '\'' => {
                used = quoted(rest, first).1;
                (schema, name) = (None, None);
            }
            '"' | '`' => {
                let (text, length) = quoted(rest, first);
                used = length;
                name = Some(text);
            }
            '-' if rest.starts_with("--") => used = rest.find('\n').unwrap_or(rest.len()),
            '#' if is_mysql => used = rest.find('\n').unwrap_or(rest.len()),
            '/' if is_mysql && rest.starts_with("/*!") => used = 3,
            '/' if is_mysql && rest.starts_with("/*M!") => used = 4,
            '/' if rest.starts_with("/*") => used = rest.find("*/").map_or(rest.len(), |at| at + 2),
            c if c.is_whitespace() => {}
            c if c.is_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$')));
                used = end.unwrap_or(rest.len());
                let word = rest.get(..used).unwrap_or_default().to_lowercase();
                // E'it\'s', which a backslash does not end.
                let behind = rest.get(used..).unwrap_or_default();
                if word == "e" && behind.starts_with('\'') {
                    used += escaped(behind, '\'');
                    (schema, name) = (None, None);
                } else {
                    name = Some(word);
                }
            }
            _ => (schema, name) = (None, None),
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    found
}

/// A quoted text, a quote in it doubled, and its length with the quotes.
fn quoted(text: &str, quote: char) -> (String, usize) {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            inner.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            inner.push(c);
            chars.next();
        } else {
            return (inner, at + 1);
        }
    }
    (inner, text.len())
}

/// The length of a text in which backslashes escape.
fn escaped(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            c if c != quote => {}
            _ if text.get(at + 1..).is_some_and(|rest| rest.starts_with(quote)) => drop(chars.next()),
            _ => return at + 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(sql: &str, is_mysql: bool) -> Vec<String> {
        let all = calls(sql, is_mysql).into_iter();
        all.map(|called| called.schema.map(|schema| schema + ".").unwrap_or_default() + &called.name)
            .collect()
    }

    #[test]
    fn calls_are_found_wherever_they_stand() {
        for (sql, is_mysql, found) in [
            ("random() < 0.5", false, &["random"][..]),
            ("a IN (1) AND RAND ( ) < b", true, &["in", "rand"]),
            ("pg_catalog.random() < 1", false, &["pg_catalog.random"]),
            (r#""App"."Odd"(id)"#, false, &["App.Odd"]),
            ("a = 'random()' AND \"random()\" > 1 -- random()", false, &[]),
            ("a = \"rand()\" # rand()", true, &[]),
            ("/* random() */ a > lower(b)", false, &["lower"]),
            (r"a = E'it\'s' OR random() > 0", false, &["random"]),
            ("`rand`() > 0", true, &["rand"]),
            (r"a = 'a\'' OR rand() > '0'", true, &["rand"]),
            ("a /*!50000 = rand() */", true, &["rand"]),
            ("(a) = (b)", false, &[]),
            ("a = '", false, &[]),
            ("exists(select 1 where uuid()=x)", true, &["exists", "uuid"]),
        ] {
            assert_eq!(names(sql, is_mysql), found, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[a-zE'\"`\\\\.(# */-]{0,24}|\\PC{0,16}", is_mysql: bool) {
            calls(&text, is_mysql);
        }
    }
}
