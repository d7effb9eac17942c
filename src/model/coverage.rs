//! Which of the two tables' columns a plan compares, and which have no partner.

use serde::{Deserialize, Serialize};

use super::role::Role;

/// What a column without a partner means for the verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unpaired {
    /// The two tables differ.
    #[default]
    Different,
    /// Nothing, whatever its name.
    Ignore,
    /// Nothing, if it has one of these names.
    Accept(Vec<String>),
}

impl Unpaired {
    pub fn accepts(&self, column: &str) -> bool {
        match self {
            Self::Different => false,
            Self::Ignore => true,
            Self::Accept(names) => names.iter().any(|name| name == column),
        }
    }
}

/// A column that only one side has, and that was not excluded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpairedColumn {
    pub side: Role,
    pub name: String,
    /// The user said that it does not count as a difference.
    pub accepted: bool,
}

/// How many columns are compared, of how many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnCoverage {
    pub compared: usize,
    /// Columns of both tables; a pair counts once.
    pub total: usize,
    pub unpaired: Vec<UnpairedColumn>,
}

impl ColumnCoverage {
    /// A column has no partner, and nobody accepted that.
    pub fn differs(&self) -> bool {
        self.unpaired.iter().any(|column| !column.accepted)
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `compared 8 of 9 columns`, where that is not all of them.
    pub fn headline(&self) -> Option<String> {
        let columns = if self.total == 1 { "column" } else { "columns" };
        (self.compared < self.total)
            .then(|| format!("compared {} of {} {columns}", self.compared, self.total))
    }

    /// The columns without a partner, one line for each side: `only in the source: a, b`.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for accepted in [false, true] {
            for side in [Role::Source, Role::Target] {
                let names: Vec<&str> = self
                    .unpaired
                    .iter()
                    .filter(|column| column.side == side && column.accepted == accepted)
                    .map(|column| column.name.as_str())
                    .collect();
                if !names.is_empty() {
                    let accepted = if accepted { ", accepted" } else { "" };
                    lines.push(format!("only in the {side}{accepted}: {}", names.join(", ")));
                }
            }
        }
        lines
    }

    /// Headline and lines as one; empty where every column is compared.
    pub fn summary(&self) -> String {
        self.headline().into_iter().chain(self.lines()).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(side: Role, name: &str, accepted: bool) -> UnpairedColumn {
        UnpairedColumn { side, name: name.to_owned(), accepted }
    }

    #[test]
    fn what_is_not_compared_is_named_by_side() {
        let mut coverage = ColumnCoverage { compared: 3, total: 3, unpaired: Vec::new() };
        assert_eq!((coverage.summary().as_str(), coverage.differs()), ("", false));
        coverage.total = 6;
        coverage.unpaired = vec![
            column(Role::Source, "a", false),
            column(Role::Source, "b", true),
            column(Role::Target, "c", false),
        ];
        assert_eq!(
            coverage.summary(),
            "compared 3 of 6 columns; only in the source: a; only in the target: c; only in the source, accepted: b"
        );
        assert!(coverage.differs());
        coverage.unpaired.iter_mut().for_each(|column| column.accepted = true);
        assert!(!coverage.differs());
    }

    #[test]
    fn names_are_accepted_one_by_one_or_all() {
        assert!(!Unpaired::Different.accepts("a") && Unpaired::Ignore.accepts("a"));
        let some = Unpaired::Accept(vec!["a".to_owned()]);
        assert!(some.accepts("a") && !some.accepts("A") && !some.accepts("b"));
    }
}
