//! Differences as a person reads them: keys and columns by name, values where they were asked for. Pure.

use std::io::Write;

use super::reread::Reread;
use crate::agent::difference::{Difference, DifferingColumn, ValuePair};
use crate::model::canonical::{DecodeError, decode_key, decode_key_into, decode_row, split_cells};
use crate::model::{CanonicalRow, ComparisonType, Distance, Key, Plan, TableAccess, Tolerances, Value};

/// Puts differences into words, and clears those within tolerance.
#[derive(Debug)]
pub(crate) struct Describer {
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
    pub(crate) fn new(plan: &Plan, access: &TableAccess, tolerance: &Tolerances, show_values: bool) -> Self {
        let source_names: Vec<String> = plan.columns.iter().map(|column| column.source.clone()).collect();
        let tolerances =
            source_names[plan.key_len..].iter().map(|name| tolerance.get(name).cloned()).collect();
        Self { access: access.clone(), key_types: access.key_types(), source_names, tolerances, show_values }
    }

    pub(crate) fn key(&self, key: &Key) -> Result<Vec<(String, String)>, DecodeError> {
        Ok(self.source_names.iter().cloned().zip(self.key_texts(key)?).collect())
    }

    /// The names of the columns, those of the key first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.source_names.iter().map(String::as_str)
    }

    pub(crate) fn key_texts(&self, key: &Key) -> Result<Vec<String>, DecodeError> {
        let values = decode_key(&self.key_types, key.as_bytes())?;
        Ok(values.iter().map(|value| value.to_text().unwrap_or_default()).collect())
    }

    /// Each column of a key by its name and its text; `values` is used again from key to key.
    pub(crate) fn named_key(
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
    pub(crate) fn tolerated(&self, reread: &Reread) -> Result<bool, DecodeError> {
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

    pub(crate) fn difference(&self, reread: &Reread) -> Result<Difference, DecodeError> {
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
