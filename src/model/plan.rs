//! The plan: what both agents agree on before they read, and what each side reads and writes by it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::access::{AccessColumn, TableAccess};
use super::canonical::ENCODING_VERSION;
use super::comparison::{ComparisonType, Side, comparison_for, is_rounded};
use super::coverage::{ColumnCoverage, UnpairedColumn};
use super::measure::Range;
use super::role::Role;
use super::schema::{
    Column, ColumnType, EngineKind, Filled, ServerInfo, TableName, TableSchema, UniqueKey, keeps_less,
};
use super::schema_rules::{are_sets_of_other_orders, identifies};
use super::wishes::{Ranges, Wishes};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanColumn {
    pub source: String,
    pub target: String,
    pub source_type: ColumnType,
    pub target_type: ColumnType,
    pub source_declared: String,
    pub target_declared: String,
    pub comparison: ComparisonType,
    /// Both sides render the column as text in the database.
    pub as_text: bool,
    /// Who fills the source's column, and the target's.
    pub source_filled: Filled,
    pub target_filled: Filled,
}

/// Key columns first, in key order; then the others in the source's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub encoding_version: u32,
    pub source: TableName,
    pub target: TableName,
    pub columns: Vec<PlanColumn>,
    pub key_len: usize,
    pub source_where: Option<String>,
    pub target_where: Option<String>,
    /// Beside the condition, only rows of these ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Ranges>,
    /// What the user should know: keys that a collation folds, triggers.
    pub warnings: Vec<String>,
    /// Of how many columns these are, and which have no partner.
    #[serde(default, skip_serializing_if = "ColumnCoverage::is_empty")]
    pub coverage: ColumnCoverage,
}

/// Why two tables cannot be compared, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct PlanRefusal {
    pub what: String,
    pub hint: String,
}

fn refuse<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, PlanRefusal> {
    Err(PlanRefusal { what: what.into(), hint: hint.into() })
}

impl Plan {
    /// Agrees on a plan from what the two engines said, or refuses by name.
    pub fn agree(
        source: (&TableSchema, &ServerInfo),
        target: (&TableSchema, &ServerInfo),
        wishes: &Wishes,
    ) -> Result<Self, PlanRefusal> {
        Agreement { source, target, wishes, warnings: Vec::new(), unpaired: Vec::new() }.plan()
    }

    /// What the agents need of it.
    #[must_use]
    pub fn for_agents(&self) -> Self {
        Self { coverage: ColumnCoverage::default(), ..self.clone() }
    }

    /// Not all rows are compared.
    pub fn is_filtered(&self) -> bool {
        self.source_where.is_some() || self.target_where.is_some() || self.ranges.is_some()
    }

    pub fn range(&self, role: Role) -> Option<&Range> {
        self.ranges.as_ref().map(|ranges| match role {
            Role::Source => &ranges.source,
            Role::Target => &ranges.target,
        })
    }

    /// What a side reads and writes. Its filter is the user's condition alone: an agent adds the range in its database's words.
    pub fn access(&self, role: Role) -> TableAccess {
        let column = |column: &PlanColumn| match role {
            Role::Source => AccessColumn {
                name: column.source.clone(),
                ty: column.source_type.clone(),
                declared: column.source_declared.clone(),
                comparison: column.comparison.clone(),
                as_text: column.as_text,
                filled: column.source_filled,
            },
            Role::Target => AccessColumn {
                name: column.target.clone(),
                ty: column.target_type.clone(),
                declared: column.target_declared.clone(),
                comparison: column.comparison.clone(),
                as_text: column.as_text,
                filled: column.target_filled,
            },
        };
        TableAccess {
            table: self.table(role).clone(),
            columns: self.columns.iter().map(column).collect(),
            key_len: self.key_len,
            filter: match role {
                Role::Source => self.source_where.clone(),
                Role::Target => self.target_where.clone(),
            },
        }
    }

    /// A condition has a query in it: which rows it selects may change with what is written into them or others.
    pub fn asks_tables(&self) -> bool {
        let words = |condition: &String| {
            let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
            words.any(|word| {
                ["select", "table", "values"].iter().any(|query| word.eq_ignore_ascii_case(query))
            })
        };
        [&self.source_where, &self.target_where].into_iter().flatten().any(words)
    }

    pub fn table(&self, role: Role) -> &TableName {
        match role {
            Role::Source => &self.source,
            Role::Target => &self.target,
        }
    }
}

struct Agreement<'a> {
    source: (&'a TableSchema, &'a ServerInfo),
    target: (&'a TableSchema, &'a ServerInfo),
    wishes: &'a Wishes,
    warnings: Vec<String>,
    unpaired: Vec<UnpairedColumn>,
}

impl Agreement<'_> {
    fn plan(mut self) -> Result<Plan, PlanRefusal> {
        self.check_wishes()?;
        let key = self.key()?;
        let mut columns = Vec::new();
        for name in &key {
            if self.excluded(name) {
                return refuse(
                    format!("column {name} is of the key, and cannot be left out"),
                    "name another key with --key",
                );
            }
            let pair = self.pair(name)?;
            let Some(target) = pair else {
                return refuse(
                    format!(
                        "key column {name} of the source {} is not in the target {}",
                        self.source.0.table, self.target.0.table
                    ),
                    format!("pair it with --map {name}=TARGET_COLUMN, or name another key with --key"),
                );
            };
            columns.push(self.plan_column(name, &target, true)?);
        }
        let key_len = columns.len();
        columns.iter().try_for_each(check_not_rounded)?;
        self.check_target_key(&columns)?;
        self.warn_folding(&columns);
        for column in &self.source.0.columns {
            if key.contains(&column.name) || self.excluded(&column.name) {
                continue;
            }
            let wanted = self.wishes.columns.is_empty() || self.wishes.columns.contains(&column.name);
            if !wanted {
                continue;
            }
            match self.pair(&column.name)? {
                Some(target) if self.excluded(&target) => {}
                Some(target) => columns.push(self.plan_column(&column.name, &target, false)?),
                None if self.wishes.columns.contains(&column.name) => {
                    return refuse(
                        format!("column {} is not in the target {}", column.name, self.target.0.table),
                        format!(
                            "pair it with --map {}=TARGET_COLUMN, or leave it out of --columns",
                            column.name
                        ),
                    );
                }
                None => self.add_unpaired(Role::Source, &column.name),
            }
        }
        if self.wishes.columns.is_empty() {
            for column in &self.target.0.columns {
                if !columns.iter().any(|c| c.target == column.name) && !self.excluded_target(&column.name) {
                    self.add_unpaired(Role::Target, &column.name);
                }
            }
        }
        self.warn_rounding(&columns);
        let (compared, total) = (columns.len(), self.total());
        Ok(Plan {
            encoding_version: ENCODING_VERSION,
            source: self.source.0.table.clone(),
            target: self.target.0.table.clone(),
            columns,
            key_len,
            source_where: self.wishes.source_where.clone(),
            target_where: self.wishes.target_where.clone(),
            ranges: self.wishes.ranges.clone(),
            warnings: self.warnings,
            coverage: ColumnCoverage { compared, total, unpaired: self.unpaired },
        })
    }

    fn add_unpaired(&mut self, side: Role, name: &str) {
        let accepted = self.wishes.unpaired.accepts(name);
        self.unpaired.push(UnpairedColumn { side, name: name.to_owned(), accepted });
    }

    /// Columns of both tables; a pair counts once, whether it is compared or not.
    fn total(&self) -> usize {
        let (source, target) = (&self.source.0.columns, &self.target.0.columns);
        let partners: BTreeSet<String> =
            source.iter().filter_map(|column| self.pair(&column.name).ok().flatten()).collect();
        source.len() + target.iter().filter(|column| !partners.contains(&column.name)).count()
    }

    fn excluded(&self, name: &str) -> bool {
        self.wishes.exclude.iter().any(|excluded| excluded == name)
    }

    /// The target's column is left out by its own name or by its source's.
    fn excluded_target(&self, name: &str) -> bool {
        self.excluded(name)
            || self.source.0.columns.iter().any(|c| {
                self.excluded(&c.name) && self.pair(&c.name).is_ok_and(|p| p.as_deref() == Some(name))
            })
    }

    /// Names that match no column are mistakes, not silence.
    fn check_wishes(&self) -> Result<(), PlanRefusal> {
        let wishes = self.wishes;
        let in_source =
            wishes.columns.iter().chain(&wishes.key).chain(&wishes.as_text).chain(wishes.map.keys());
        for name in in_source {
            self.known(self.source.0, "source", name)?;
        }
        let mut partners: BTreeMap<&str, &str> = BTreeMap::new();
        for (source, name) in &wishes.map {
            self.known(self.target.0, "target", name)?;
            if let Some(other) = partners.insert(name, source) {
                return refuse(
                    format!("column {name} of the target is mapped twice, to {other} and to {source}"),
                    "map each column of the target once",
                );
            }
        }
        for name in &wishes.exclude {
            if self.target.0.column(name).is_none() {
                self.known(self.source.0, "source", name)?;
            }
        }
        Ok(())
    }

    fn known(&self, schema: &TableSchema, side: &str, name: &str) -> Result<(), PlanRefusal> {
        if schema.column(name).is_some() {
            return Ok(());
        }
        let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).collect();
        refuse(
            format!("no column {name} in the {side} table {}", schema.table),
            format!("its columns are {}", names.join(", ")),
        )
    }

    /// The target's column for a source column: mapped, of the same name, or of the same name but for case.
    fn pair(&self, name: &str) -> Result<Option<String>, PlanRefusal> {
        if let Some(mapped) = self.wishes.map.get(name) {
            return Ok(Some(mapped.clone()));
        }
        let taken = |candidate: &str| self.wishes.map.values().any(|mapped| mapped == candidate);
        if self.target.0.column(name).is_some() {
            return Ok((!taken(name)).then(|| name.to_owned()));
        }
        let folded = name.to_lowercase();
        let folds = |column: &&Column| column.name.to_lowercase() == folded;
        let (source, target, map) = (self.source.0, self.target.0, &self.wishes.map);
        // A column of the target belongs to the source's column of exactly its name, unless that one is mapped.
        let is_free = |c: &&Column| source.column(&c.name).is_none() || map.contains_key(&c.name);
        let others: Vec<&Column> =
            target.columns.iter().filter(folds).filter(is_free).filter(|c| !taken(&c.name)).collect();
        let is_alone = |c: &&Column| target.column(&c.name).is_none() && !map.contains_key(&c.name);
        let twins = source.columns.iter().filter(folds).filter(is_alone).count();
        match others.as_slice() {
            [] => Ok(None),
            [one] if twins == 1 => Ok(Some(one.name.clone())),
            _ => refuse(
                format!("column {name} has several partners that differ only in case"),
                format!("choose with --map {name}=TARGET_COLUMN"),
            ),
        }
    }

    fn key(&self) -> Result<Vec<String>, PlanRefusal> {
        let (source, wishes) = (self.source.0, self.wishes);
        if wishes.key.is_empty() {
            // A view has no key of its own: the target's will do where the source has its columns.
            if let Some(key) = source.primary_key().filter(|key| key.identifies) {
                return Ok(key.columns.clone());
            }
            if source.is_view
                && let Some(key) = self.target.0.primary_key().filter(|key| key.identifies)
            {
                return self.source_names(key);
            }
            if source.primary_key().is_some() {
                return refuse(
                    format!(
                        "the primary key of the source table {} does not tell its rows apart: it may hold NULL, or is of the beginning of a text",
                        source.table
                    ),
                    "name a unique key without NULLs with --key COLUMN[,COLUMN]",
                );
            }
            return refuse(
                format!("the source table {} has no primary key", source.table),
                "name a unique key without NULLs with --key COLUMN[,COLUMN]; a table without one cannot be compared row by row",
            );
        }
        if !source.is_view && !identifies(source, &wishes.key) {
            return refuse(
                format!(
                    "--key {}: the source table {} has no unique index over these columns that excludes NULL",
                    wishes.key.join(","),
                    source.table
                ),
                "add a unique index and NOT NULL to the columns, or name another key",
            );
        }
        Ok(wishes.key.clone())
    }

    fn source_names(&self, key: &UniqueKey) -> Result<Vec<String>, PlanRefusal> {
        key.columns
            .iter()
            .map(|target| {
                let found = self
                    .source
                    .0
                    .columns
                    .iter()
                    .find(|c| self.pair(&c.name).is_ok_and(|p| p.as_ref() == Some(target)));
                match found {
                    Some(column) => Ok(column.name.clone()),
                    None => refuse(
                        format!(
                            "the source view {} lacks the target's key column {target}",
                            self.source.0.table
                        ),
                        "name the key with --key COLUMN[,COLUMN]",
                    ),
                }
            })
            .collect()
    }

    fn check_target_key(&self, key: &[PlanColumn]) -> Result<(), PlanRefusal> {
        let names: Vec<String> = key.iter().map(|c| c.target.clone()).collect();
        if self.target.0.is_view || identifies(self.target.0, &names) {
            return Ok(());
        }
        refuse(
            format!(
                "the target table {} has no unique, not-null key over {}",
                self.target.0.table,
                names.join(", ")
            ),
            "add one there, or name a key that both sides have with --key",
        )
    }

    fn warn_folding(&mut self, key: &[PlanColumn]) {
        for column in key {
            let folds =
                |schema: &TableSchema, name: &str| schema.column(name).is_some_and(|c| c.collation_folds);
            let (source, target) =
                (folds(self.source.0, &column.source), folds(self.target.0, &column.target));
            if source != target {
                let side = if source { Role::Source } else { Role::Target };
                self.warnings.push(format!(
                    "the {side}'s collation of key column {} holds keys equal that differ in bytes; they are compared by bytes",
                    column.source
                ));
            }
        }
    }

    fn warn_rounding(&mut self, columns: &[PlanColumn]) {
        for column in columns.iter().filter(|column| is_rounded(&column.comparison, &column.source_type)) {
            self.warnings.push(format!(
                "column {} is {} in the source and {} in the target: the source's values are compared as the target rounds them",
                column.source, column.source_declared, column.target_declared
            ));
        }
    }

    fn plan_column(&self, source: &str, target: &str, in_key: bool) -> Result<PlanColumn, PlanRefusal> {
        let (Some(left), Some(right)) = (self.source.0.column(source), self.target.0.column(target)) else {
            return refuse(format!("no column pair {source}={target}"), "check --map");
        };
        let as_text = self.wishes.as_text.iter().any(|name| name == source);
        let side = |column: &'_ Column, server: &ServerInfo| {
            (column.ty.clone(), server.rounding, server.engine == EngineKind::Sqlite)
        };
        let (left_side, right_side) = (side(left, self.source.1), side(right, self.target.1));
        let comparison = if as_text {
            Ok(ComparisonType::Text { trim: false })
        } else if are_sets_of_other_orders((left, self.source.1), (right, self.target.1)) {
            Ok(ComparisonType::Set)
        } else {
            comparison_for(
                Side { ty: &left_side.0, rounding: left_side.1, dynamic: left_side.2 },
                Side { ty: &right_side.0, rounding: right_side.1, dynamic: right_side.2 },
                self.wishes.assume_utc,
            )
        };
        match comparison {
            Ok(comparison) => Ok(PlanColumn {
                source: source.to_owned(),
                target: target.to_owned(),
                source_type: left.ty.clone(),
                target_type: right.ty.clone(),
                source_declared: left.declared.clone(),
                target_declared: right.declared.clone(),
                comparison,
                as_text,
                source_filled: left.filled,
                target_filled: right.filled,
            }),
            Err(why) => refuse(
                format!(
                    "column {source} cannot be compared: {} in the source, {} in the target; {why}",
                    left.declared, right.declared
                ),
                match why.contains("--assume-utc") {
                    true => format!("give --assume-utc, or leave it out with --exclude {source}"),
                    false if in_key => format!(
                        "compare the text forms with --as-text {source}, or name another key with --key"
                    ),
                    false => format!(
                        "leave it out with --exclude {source}, or compare the text forms with --as-text {source}"
                    ),
                },
            ),
        }
    }
}

/// A key that is compared more coarsely than it is stored is not the key of one row any more.
fn check_not_rounded(column: &PlanColumn) -> Result<(), PlanRefusal> {
    // Elements of arrays that are numbers or times are told by the comparison.
    let (source, target) = (&column.source_declared, &column.target_declared);
    let kept = !keeps_less(target) || target.ends_with("[]") || source == target;
    if kept && !is_rounded(&column.comparison, &column.source_type) {
        return Ok(());
    }
    refuse(
        format!(
            "key column {} is {} in the source and {} in the target: rounded to the coarser, two rows could share a key",
            column.source, column.source_declared, column.target_declared
        ),
        "give both columns the same precision, or name another key with --key",
    )
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
