//! What is wrong in a configuration, with the line and what to write instead.

use std::fmt::Write;
use std::ops::Range;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// From 1; 0 where it is not about one line.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl Diagnostic {
    pub fn at_line(line: usize, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { line, column: 1, message: message.into(), hint }
    }

    pub(super) fn new(
        text: &str,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Self {
        let (line, column) = span.map_or((0, 1), |span| place(text, span.start));
        Self { line, column, message: message.into(), hint }
    }
}

/// Line and column of a byte, from 1.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// What the parser or serde found, in our words where it names a key.
pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> Diagnostic {
    let message = error.message();
    if let Some(unknown) = message.strip_prefix("unknown field ") {
        let mut words = unknown.split('`').skip(1).step_by(2);
        let name = words.next().unwrap_or_default();
        let known: Vec<&str> = words.collect();
        return Diagnostic::new(
            text,
            error.span(),
            format!("`{name}` is not known here"),
            suggest(name, &known),
        );
    }
    let first = message.lines().next().unwrap_or_default();
    let hint = first
        .strip_prefix("missing field ")
        .map(|field| format!("add {} to this section", field.trim_matches('`')));
    Diagnostic::new(text, error.span(), first, hint)
}

/// The nearest known name, or all of them where none is near.
pub fn suggest(name: &str, known: &[&str]) -> Option<String> {
    let far = |known: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase());
    match known.iter().min_by_key(|known| far(known)) {
        Some(near) if far(near) <= (name.chars().count() / 3).max(2) => {
            Some(format!("did you mean `{near}`?"))
        }
        Some(_) => Some(format!("known here: {}", known.join(", "))),
        None => None,
    }
}

/// For a terminal: place, message, the line itself with a mark, and what to do.
pub fn render(path: &str, text: &str, diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    for fault in diagnostics {
        if fault.line == 0 {
            let _ = writeln!(out, "{path}: {}", fault.message);
        } else {
            let _ = writeln!(out, "{path}:{}:{}: {}", fault.line, fault.column, fault.message);
            if let Some(line) = text.lines().nth(fault.line - 1)
                && !holds_secret(line)
            {
                let number = fault.line.to_string();
                let blank: String =
                    line.chars().take(fault.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                let _ = writeln!(out, "  {number} | {line}");
                let _ = writeln!(out, "  {:width$} | {blank}^", "", width = number.len());
            }
        }
        if let Some(hint) = &fault.hint {
            let _ = writeln!(out, "  hint: {hint}");
        }
    }
    out
}

/// A line that may show a password is not repeated.
fn holds_secret(line: &str) -> bool {
    let line = line.to_lowercase();
    line.contains("://") && line.contains('@')
        || ["token", "password", "secret"].iter().any(|w| line.contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        assert_eq!(place("a\nbé=x", 0), (1, 1));
        assert_eq!(place("a\nbé=x", 5), (2, 3));
        assert_eq!(place("a\n", 99), (2, 1));
    }

    #[test]
    fn near_names_are_suggested_and_far_ones_listed() {
        assert_eq!(suggest("tabels", &["source", "tables"]).unwrap(), "did you mean `tables`?");
        assert_eq!(suggest("zzzzzz", &["source", "tables"]).unwrap(), "known here: source, tables");
        assert_eq!(suggest("a", &[]), None);
    }

    #[test]
    fn a_line_with_a_password_is_not_repeated() {
        let text = "url = \"postgres://a:hunter2@db/x\"\n";
        let shown = render("f", text, &[Diagnostic::at_line(1, "no", None)]);
        assert!(!shown.contains("hunter2") && shown.contains("f:1:1: no"));
        let shown =
            render("f", "kind = \"x\"\n", &[Diagnostic { column: 8, ..Diagnostic::at_line(1, "no", None) }]);
        assert!(shown.contains("  1 | kind = \"x\"\n    |        ^\n"), "{shown}");
    }
}
