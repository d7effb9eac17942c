//! Which tables are reconciled with which, and in which order.

use std::collections::BTreeSet;

use crate::agent::{AgentError, AgentHandle, error::FailureKind};
use crate::model::{Role, TableName, TableSchema};
use crate::report::{TableReport, Verdict};

/// Tables described with one question.
const DESCRIBED_TOGETHER: usize = 256;

/// The tables asked for; none means all that both sides have.
#[derive(Debug, Clone, Default)]
pub struct PairRequest {
    pub tables: Vec<(TableName, TableName)>,
    pub source_schema: Option<String>,
    pub target_schema: Option<String>,
}

#[derive(Debug)]
pub struct TablePairs {
    pub pairs: Vec<TablePair>,
    pub only_in_source: Vec<String>,
    pub only_in_target: Vec<String>,
    /// What was not compared though all tables were asked for: side, kind and name.
    pub left_out: Vec<String>,
}

/// A pair with what both sides know of it; a side's error is the pair's, not the run's.
#[derive(Debug)]
pub struct TablePair {
    pub source: TableName,
    pub target: TableName,
    pub schemas: Result<(TableSchema, TableSchema), AgentError>,
}

/// The pairs of tables that a request means, each described by both sides.
pub async fn find(
    source: &AgentHandle,
    target: &AgentHandle,
    request: &PairRequest,
) -> Result<TablePairs, AgentError> {
    let mut only = (Vec::new(), Vec::new());
    let mut left_out = Vec::new();
    let names = if request.tables.is_empty() {
        let (source_schema, target_schema) =
            (request.source_schema.as_deref(), request.target_schema.as_deref());
        let of_source = source.listed(source_schema).await.map_err(|error| error.on(Role::Source))?;
        let of_target = target.listed(target_schema).await.map_err(|error| error.on(Role::Target))?;
        left_out.extend(of_source.left_out.iter().map(|name| format!("source: {name}")));
        left_out.extend(of_target.left_out.iter().map(|name| format!("target: {name}")));
        let (shared, mut left, mut right) = shared(of_source.tables, of_target.tables);
        // What an agent does not serve may well be there.
        for (only, side, partial, other) in [
            (&mut left, Role::Source, of_target.partial, Role::Target),
            (&mut right, Role::Target, of_source.partial, Role::Source),
        ] {
            if partial {
                let of =
                    |name: String| format!("{side}: table {name}, which the {other}'s agent does not serve");
                left_out.extend(only.drain(..).map(of));
            }
        }
        if shared.is_empty() {
            return Err(AgentError::new(FailureKind::Usage, "the two sides share no table")
                .with_hint("name pairs with -t SOURCE_TABLE=TARGET_TABLE, or another schema with --schema"));
        }
        only = (left, right);
        shared
    } else {
        let qualify = |table: &TableName, schema: &Option<String>| TableName {
            schema: table.schema.clone().or_else(|| schema.clone()),
            name: table.name.clone(),
        };
        request
            .tables
            .iter()
            .map(|(left, right)| {
                (qualify(left, &request.source_schema), qualify(right, &request.target_schema))
            })
            .collect()
    };
    let mut pairs = Vec::with_capacity(names.len());
    for names in names.chunks(DESCRIBED_TOGETHER) {
        let (lefts, rights): (Vec<TableName>, Vec<TableName>) = names.iter().cloned().unzip();
        let (left, right) = tokio::join!(source.describe_many(&lefts), target.describe_many(&rights));
        let left = left.map_err(|error| error.on(Role::Source))?;
        let right = right.map_err(|error| error.on(Role::Target))?;
        for (((source, target), left), right) in lefts.into_iter().zip(rights).zip(left).zip(right) {
            let schemas = left
                .map_err(|error| error.on(Role::Source))
                .and_then(|left| Ok((left, right.map_err(|error| error.on(Role::Target))?)));
            pairs.push(TablePair { source, target, schemas });
        }
    }
    Ok(TablePairs { pairs, only_in_source: only.0, only_in_target: only.1, left_out })
}

type Shared = (Vec<(TableName, TableName)>, Vec<String>, Vec<String>);

/// Pairs by name; by name but for case where that is one to one. Schemas differ between engines, so names decide.
fn shared(left: Vec<TableName>, right: Vec<TableName>) -> Shared {
    let mut right: Vec<Option<TableName>> = right.into_iter().map(Some).collect();
    let mut pairs = Vec::new();
    let mut alone = Vec::new();
    for table in left {
        let exact =
            right.iter().position(|other| other.as_ref().is_some_and(|other| other.name == table.name));
        match exact.and_then(|at| right[at].take()) {
            Some(other) => pairs.push((table, other)),
            None => alone.push(table),
        }
    }
    let mut only_left = Vec::new();
    for table in alone {
        let folded = table.name.to_lowercase();
        let near: Vec<usize> = (0..right.len())
            .filter(|at| right[*at].as_ref().is_some_and(|other| other.name.to_lowercase() == folded))
            .collect();
        match near.as_slice() {
            [at] if right[*at].is_some() => pairs.extend(right[*at].take().map(|other| (table, other))),
            _ => only_left.push(table.to_string()),
        }
    }
    pairs.sort();
    (pairs, only_left, right.into_iter().flatten().map(|table| table.to_string()).collect())
}

/// Indexes with every table behind those its foreign keys point to; cycles keep their order.
pub(super) fn parents_first(pairs: &[TablePair]) -> Vec<usize> {
    let names: Vec<&TableName> = pairs
        .iter()
        .map(|pair| pair.schemas.as_ref().map_or(&pair.target, |(_, target)| &target.table))
        .collect();
    let mut order = Vec::with_capacity(pairs.len());
    let mut placed = BTreeSet::new();
    while order.len() < pairs.len() {
        let waiting: Vec<usize> = (0..pairs.len()).filter(|at| !placed.contains(at)).collect();
        let free = waiting.iter().copied().find(|at| {
            let Ok((_, target)) = &pairs[*at].schemas else { return true };
            target.references.iter().all(|parent| {
                names
                    .iter()
                    .position(|name| *name == parent)
                    .is_none_or(|parent| parent == *at || placed.contains(&parent))
            })
        });
        let Some(next) = free.or_else(|| waiting.first().copied()) else { break };
        placed.insert(next);
        order.push(next);
    }
    order
}

/// The tables of the run that this one refers to and that refer back to it, over whatever others.
pub(super) fn cycle_of(pairs: &[TablePair], at: usize) -> Vec<String> {
    let parents = |at: usize| -> BTreeSet<usize> {
        let Some(Ok((_, target))) = pairs.get(at).map(|pair| pair.schemas.as_ref()) else {
            return BTreeSet::new();
        };
        let named = pairs.iter().enumerate().filter(|(other, _)| *other != at);
        let refers_to = |pair: &TablePair| {
            pair.schemas.as_ref().is_ok_and(|(_, parent)| target.references.contains(&parent.table))
        };
        named.filter(|(_, pair)| refers_to(pair)).map(|(other, _)| other).collect()
    };
    let reachable = |from: usize| {
        let (mut found, mut todo) = (BTreeSet::new(), parents(from));
        while let Some(next) = todo.pop_first() {
            if found.insert(next) {
                todo.extend(parents(next));
            }
        }
        found
    };
    let others = reachable(at).into_iter().filter(|other| *other != at && reachable(*other).contains(&at));
    others.filter_map(|other| pairs.get(other)).map(|pair| pair.target.to_string()).collect()
}

/// A table that this one refers to, and that was not repaired: its own run failed, or it was held back itself and differs.
pub(super) fn refused_parent(
    pairs: &[TablePair],
    at: usize,
    reports: &[Option<TableReport>],
) -> Option<String> {
    let (_, target) = pairs.get(at)?.schemas.as_ref().ok()?;
    let refers_to = |pair: &TablePair| match &pair.schemas {
        Ok((_, parent)) => target.references.contains(&parent.table),
        // Nothing is known of it but its name as it was given.
        Err(_) => target.references.iter().any(|name| {
            name.name == pair.target.name
                && (pair.target.schema.is_none() || name.schema == pair.target.schema)
        }),
    };
    let mut others = pairs.iter().zip(reports).enumerate().filter(|(other, _)| *other != at);
    others.find_map(|(_, (pair, report))| {
        let report = report.as_ref().filter(|_| refers_to(pair))?;
        let held = report.outcome.left > 0 && report.verdict == Verdict::Different && report.held_back;
        (report.error.is_some() || held).then(|| report.target_table.clone())
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn name(text: &str) -> TableName {
        TableName::new(None, text)
    }

    pub(in crate::coordinator) fn pair(table: &str, references: &[&str]) -> TablePair {
        let schema = TableSchema {
            table: name(table),
            is_view: false,
            columns: Vec::new(),
            keys: Vec::new(),
            estimated_rows: None,
            references: references.iter().map(|parent| name(parent)).collect(),
            referrers: Vec::new(),
            triggers: Vec::new(),
            fires_on_exchange: false,
            notes: Vec::new(),
            identity: None,
            hidden_rows: None,
        };
        TablePair { source: name(table), target: name(table), schemas: Ok((schema.clone(), schema)) }
    }

    #[test]
    fn tables_are_paired_by_name_then_but_for_case() {
        let (pairs, left, right) = shared(
            vec![name("Orders"), name("a"), name("only_s"), name("A")],
            vec![name("orders"), name("A"), name("a"), name("only_t")],
        );
        assert_eq!(pairs, [(name("A"), name("A")), (name("Orders"), name("orders")), (name("a"), name("a"))]);
        assert_eq!((left, right), (vec!["only_s".to_owned()], vec!["only_t".to_owned()]));
    }

    #[test]
    fn parents_come_first_and_cycles_end() {
        let pairs = [
            pair("item", &["order"]),
            pair("order", &["customer"]),
            pair("customer", &[]),
            pair("self", &["self"]),
        ];
        assert_eq!(parents_first(&pairs), [2, 1, 0, 3]);
        let cycle = [pair("a", &["b"]), pair("b", &["a"]), pair("c", &["elsewhere"])];
        assert_eq!(parents_first(&cycle), [2, 0, 1]);
    }

    #[test]
    fn tables_that_refer_to_each_other_are_named() {
        let pairs = [
            pair("a", &["b", "alone"]),
            pair("b", &["c"]),
            pair("c", &["a"]),
            pair("alone", &["alone"]),
            pair("child", &["a"]),
        ];
        let of = |at| cycle_of(&pairs, at);
        assert_eq!((of(0), of(1), of(2)), (names(&["b", "c"]), names(&["a", "c"]), names(&["a", "b"])));
        assert_eq!((of(3), of(4)), (Vec::new(), Vec::new()));
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }
}
