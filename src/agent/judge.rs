//! What two rows, read again by key, say of a suspect. Pure.

use std::io::Write;

use super::event::{Difference, DifferenceKind, DifferingColumn, ValuePair};
use super::spool::Suspect;
use crate::merkle::SessionKey;
use crate::model::canonical::{DecodeError, decode_key, decode_key_into, decode_row, split_cells};
use crate::model::{CanonicalRow, ComparisonType, Distance, Key, Plan, TableAccess, Tolerances, Value};

/// A suspect with what both sides hold now.
#[derive(Debug, Clone)]
pub(super) struct Reread {
    pub(super) suspect: Suspect,
    pub(super) source: Option<CanonicalRow>,
    pub(super) target: Option<CanonicalRow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// The two sides agree by now.
    Settled,
    /// The target holds what the source held when it was last looked at: it follows, with a delay.
    Following,
    /// Both sides hold what they held when they were last looked at, and it differs.
    Stable,
    /// Still differs, and one side has changed since.
    Changing,
}

impl Reread {
    pub(super) fn finding(&self, session: &SessionKey) -> Finding {
        if self.source == self.target {
            return Finding::Settled;
        }
        let now = self.renewed(session);
        let suspect = &self.suspect;
        if now.source == suspect.source && now.target == suspect.target {
            Finding::Stable
        } else if now.target != suspect.target && now.target == suspect.source {
            Finding::Following
        } else {
            Finding::Changing
        }
    }

    /// The suspect as it looks now, to be looked at again.
    pub(super) fn renewed(&self, session: &SessionKey) -> Suspect {
        let key = &self.suspect.key;
        let digest = |row: &Option<CanonicalRow>| {
            row.as_ref().map(|row| session.row_digest(key.as_bytes(), row.as_bytes()))
        };
        Suspect {
            key: key.clone(),
            source: digest(&self.source),
            target: digest(&self.target),
            origin: self.suspect.origin,
        }
    }

    pub(super) fn kind(&self) -> DifferenceKind {
        match (&self.source, &self.target) {
            (_, None) => DifferenceKind::Missing,
            (None, Some(_)) => DifferenceKind::Extra,
            (Some(_), Some(_)) => DifferenceKind::Changed,
        }
    }
}

/// Puts differences into words, and clears those within tolerance.
#[derive(Debug)]
pub(super) struct Describer {
    access: TableAccess,
    key_types: Vec<ComparisonType>,
    source_names: Vec<String>,
    /// By position behind the key.
    tolerances: Vec<Option<Distance>>,
    show_values: bool,
}

/// A number's text, with no memory of its own where it is short.
fn with_digits(number: i128, each: impl FnOnce(&str)) {
    let mut text = [0u8; 20];
    let mut rest = text.as_mut_slice();
    let room = rest.len();
    let fits = i64::try_from(number).is_ok_and(|number| write!(rest, "{number}").is_ok());
    let used = room - rest.len();
    match std::str::from_utf8(text.get(..used).unwrap_or_default()) {
        Ok(text) if fits => each(text),
        _ => each(&number.to_string()),
    }
}

impl Describer {
    pub(super) fn new(plan: &Plan, access: &TableAccess, tolerance: &Tolerances, show_values: bool) -> Self {
        let source_names: Vec<String> = plan.columns.iter().map(|column| column.source.clone()).collect();
        let tolerances =
            source_names[plan.key_len..].iter().map(|name| tolerance.get(name).cloned()).collect();
        Self { access: access.clone(), key_types: access.key_types(), source_names, tolerances, show_values }
    }

    pub(super) fn key(&self, key: &Key) -> Result<Vec<(String, String)>, DecodeError> {
        Ok(self.source_names.iter().cloned().zip(self.key_texts(key)?).collect())
    }

    /// The names of the columns, those of the key first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.source_names.iter().map(String::as_str)
    }

    pub(super) fn key_texts(&self, key: &Key) -> Result<Vec<String>, DecodeError> {
        let values = decode_key(&self.key_types, key.as_bytes())?;
        Ok(values.iter().map(|value| value.to_text().unwrap_or_default()).collect())
    }

    /// Each column of a key by its name and its text; `values` is used again from key to key.
    pub(super) fn named_key(
        &self,
        key: &[u8],
        values: &mut Vec<Value>,
        mut each: impl FnMut(&str, &str),
    ) -> Result<(), DecodeError> {
        decode_key_into(&self.key_types, key, values)?;
        for (name, value) in self.names().zip(values) {
            match value {
                Value::Int(number) => with_digits(*number, |text| each(name, text)),
                other => each(name, &other.to_text().unwrap_or_default()),
            }
        }
        Ok(())
    }

    /// The positions, behind the key, of the columns that differ.
    fn differing(source: &CanonicalRow, target: &CanonicalRow) -> Result<Vec<usize>, DecodeError> {
        let (source, target) = (split_cells(source.as_bytes())?, split_cells(target.as_bytes())?);
        Ok((0..source.len().max(target.len())).filter(|at| source.get(*at) != target.get(*at)).collect())
    }

    /// A changed row whose every differing column is within its tolerance.
    pub(super) fn tolerated(&self, reread: &Reread) -> Result<bool, DecodeError> {
        let (Some(source), Some(target)) = (&reread.source, &reread.target) else { return Ok(false) };
        if self.tolerances.iter().all(Option::is_none) {
            return Ok(false);
        }
        let types = self.access.row_types();
        let (left, right) = (decode_row(&types, source.as_bytes())?, decode_row(&types, target.as_bytes())?);
        let near = |at: usize| {
            let within = self.tolerances.get(at)?.as_ref()?;
            Some(within.covers(&left.get(at)?.to_number()?, &right.get(at)?.to_number()?))
        };
        Ok(Self::differing(source, target)?.into_iter().all(|at| near(at).unwrap_or(false)))
    }

    pub(super) fn difference(&self, reread: &Reread) -> Result<Difference, DecodeError> {
        let kind = reread.kind();
        let types = self.access.row_types();
        let values = |row: &Option<CanonicalRow>| match row {
            Some(row) if self.show_values => decode_row(&types, row.as_bytes()),
            _ => Ok(Vec::new()),
        };
        let (left, right) = (values(&reread.source)?, values(&reread.target)?);
        let positions = match (&reread.source, &reread.target) {
            (Some(source), Some(target)) => Self::differing(source, target)?,
            _ if self.show_values => (0..types.len()).collect(),
            _ => Vec::new(),
        };
        let names = &self.source_names[self.access.key_len..];
        let columns = positions
            .into_iter()
            .filter_map(|at| {
                let text = |values: &[Value]| values.get(at).and_then(Value::to_text);
                let values =
                    self.show_values.then(|| ValuePair { source: text(&left), target: text(&right) });
                Some(DifferingColumn { name: names.get(at)?.clone(), values })
            })
            .collect();
        Ok(Difference { kind, key: self.key(&reread.suspect.key)?, columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reread(origin: [Option<u8>; 2], now: [Option<u8>; 2]) -> Finding {
        let session = SessionKey::new([1; 32]);
        let key = Key::from(&b"k"[..]);
        let row = |n: Option<u8>| n.map(|n| CanonicalRow::new([n]));
        let digest = |n: Option<u8>| n.map(|n| session.row_digest(key.as_bytes(), &[n]));
        let [source, target] = origin.map(digest);
        let suspect = Suspect { key: key.clone(), source, target, origin: source };
        Reread { suspect, source: row(now[0]), target: row(now[1]) }.finding(&session)
    }

    #[test]
    fn a_suspect_is_stable_only_if_neither_side_moved() {
        assert_eq!(reread([Some(1), None], [Some(1), None]), Finding::Stable);
        assert_eq!(reread([None, Some(2)], [None, Some(2)]), Finding::Stable);
        assert_eq!(reread([Some(1), None], [Some(1), Some(1)]), Finding::Settled);
        assert_eq!(reread([Some(1), None], [None, None]), Finding::Settled);
        // The target arrived where the source was: it follows.
        assert_eq!(reread([Some(1), Some(0)], [Some(2), Some(1)]), Finding::Following);
        assert_eq!(reread([None, Some(0)], [Some(2), None]), Finding::Following);
        assert_eq!(reread([Some(1), Some(0)], [Some(2), Some(0)]), Finding::Changing);
        assert_eq!(reread([Some(1), Some(0)], [Some(1), Some(3)]), Finding::Changing);
    }
}
