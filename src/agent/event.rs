//! What a run is asked to do, and what it tells while it runs. These cross the wire as JSON, coordinator to agent.

use serde::{Deserialize, Serialize};

use super::intents::{Intents, RowOutcome};
use super::told::TrailWish;
use crate::model::{Plan, Role, Tolerances};

/// What a target's agent is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Table(Box<TableTask>),
    /// Tell which of these tables are equal; nothing of those that are not.
    RollCall(Vec<Plan>),
}

impl From<TableTask> for Task {
    fn from(task: TableTask) -> Self {
        Self::Table(Box::new(task))
    }
}

impl Task {
    pub fn writes(&self) -> bool {
        match self {
            Self::Table(task) => task.options.repair.is_some() && !task.options.dry_run,
            Self::RollCall(_) => false,
        }
    }
}

/// One table of a roll call, equal on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EqualTable {
    /// Its place in the roll call.
    pub at: u32,
    pub rows: u64,
    /// Hex of 32 bytes.
    pub root: String,
}

/// One table pair's work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableTask {
    pub plan: Plan,
    pub options: TaskOptions,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskOptions {
    /// `None`: diff only.
    pub repair: Option<Allow>,
    /// With `repair`: decide, count and show, but write nothing.
    pub dry_run: bool,
    /// With `repair`: tell each change as a SQL statement.
    pub sql: bool,
    /// The run writes nothing if more rows than this would change.
    pub max_changes: Option<u64>,
    /// The run writes nothing if it would update or delete more than this share of the target's rows.
    pub max_overwritten_percent: Option<f64>,
    /// How often a suspect is read again before it is reported.
    pub recheck: u32,
    /// The first reread happens this long after the scan began or later; each further one after twice the time.
    pub recheck_delay_ms: u64,
    /// Column name at the source to the distance within which values count as equal.
    pub tolerance: Tolerances,
    /// Tell the values of differing rows, not just keys and column names.
    pub show_values: bool,
    /// Tell at most this many differences in detail.
    pub details_max: u64,
    /// Deletes may spread to other tables by their foreign keys.
    pub allow_cascade: bool,
    /// The run's id: names the undo journal, where the target's agent keeps one.
    #[serde(default)]
    pub run: Option<String>,
    /// Keep no undo journal of this run, even where the agent would.
    #[serde(default)]
    pub no_undo: bool,
    /// Tell what is done to each row, for an audit trail.
    #[serde(default)]
    pub trail: Option<TrailWish>,
    /// Bytes are dearer than round trips: little is sent ahead.
    #[serde(default)]
    pub metered: bool,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            repair: None,
            dry_run: false,
            sql: false,
            max_changes: None,
            max_overwritten_percent: None,
            recheck: 1,
            recheck_delay_ms: 500,
            tolerance: Tolerances::new(),
            show_values: false,
            details_max: u64::MAX,
            allow_cascade: false,
            run: None,
            no_undo: false,
            trail: None,
            metered: false,
        }
    }
}

/// Takes a run back from the journal that the target's agent has kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoTask {
    pub undoes: String,
    /// The id of this run itself.
    pub run: Option<String>,
    pub dry_run: bool,
    pub allow_cascade: bool,
    pub no_undo: bool,
    pub trail: Option<TrailWish>,
}

/// What an undo did to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Rows that no longer hold what the run wrote: left as they are.
    pub moved_on: u64,
    /// Rows that hold already what they held before the run.
    pub already: u64,
    pub refused: u64,
    /// With a dry run: rows that would be written.
    pub left: u64,
    /// The journal holds the compared columns alone; the others of rows put back have the table's defaults.
    pub partial: bool,
}

/// Which operations a repair may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allow {
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Scan,
    Locate,
    Recheck,
    Repair,
    Verify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// Only on the source.
    Missing,
    /// On both with other values.
    Changed,
    /// Only on the target.
    Extra,
}

/// A confirmed difference, for a person: the key, and names of columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub kind: DifferenceKind,
    /// Key columns by source name, as text.
    pub key: Vec<(String, String)>,
    /// For changed rows: the columns that differ, by source name; with values where they were asked for.
    pub columns: Vec<DifferingColumn>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DifferingColumn {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub values: Option<ValuePair>,
}

/// `None` is NULL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValuePair {
    pub source: Option<String>,
    pub target: Option<String>,
}

/// Told while a table's run goes on, in order.
// Tagged from outside: inside, serde would buffer the fields, and numbers of any precision do not survive that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Phase {
        phase: Phase,
    },
    /// Rows read so far by one side's scan.
    Progress {
        side: Role,
        rows: u64,
    },
    /// Suspects as located, before they are read again.
    Located {
        missing: u64,
        changed: u64,
        extra: u64,
    },
    Difference {
        difference: Difference,
    },
    /// Rows rechecked or repaired so far, of how many.
    Worked {
        done: u64,
        of: u64,
    },
    /// Tables of a roll call that are equal.
    Equal {
        tables: Vec<EqualTable>,
    },
    /// A row that could not be written, and why.
    SetAside {
        key: Vec<(String, String)>,
        reason: String,
    },
    /// One statement of a repair.
    Sql {
        statement: String,
    },
    /// Told before the batch is written. Only where a trail was asked for.
    Intended {
        /// Its name at the target.
        table: String,
        batch: u64,
        rows: Intents,
    },
    /// What became of the rows of a batch that was told, in their order.
    Applied {
        batch: u64,
        outcomes: Vec<RowOutcome>,
    },
    /// An undo turns to this table.
    UndoTable {
        table: String,
    },
    /// An undo has done with the table.
    Undone {
        undone: Undone,
    },
    Done {
        outcome: Box<TableOutcome>,
    },
    Failed {
        kind: String,
        side: Option<Role>,
        message: String,
        hint: Option<String>,
    },
}

/// How a table's run ended. All figures are of this run alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableOutcome {
    pub source_rows: u64,
    pub target_rows: u64,
    /// Confirmed differences.
    pub missing: u64,
    pub changed: u64,
    pub extra: u64,
    /// Suspects that were gone, or still changing, when they were read again.
    pub in_flight: u64,
    /// Suspects still changing after the last reread: neither equal nor different can be said of them.
    pub unsettled: u64,
    /// Suspects whose values are within the tolerance.
    pub tolerated: u64,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Differences that were not written: the operation is not allowed, or a dry run.
    pub left: u64,
    /// Rows the database refused, or that changed under the repair until the end.
    pub set_aside: u64,
    /// Nothing was written because more than `max_changes` rows differ.
    pub over_limit: bool,
    /// Hex of 32 bytes.
    pub source_root: String,
    /// Before any repair.
    pub target_root: String,
    /// After the repair, from the rows read again.
    pub repaired_root: Option<String>,
    /// Diff: the located differences explain the two roots exactly. Repair: target proved equal to the source.
    pub proved: bool,
    pub bytes_to_source: u64,
    pub bytes_to_target: u64,
    pub messages_to_source: u64,
    pub messages_to_target: u64,
    /// Of which the handshake: versions, plan.
    pub handshake_bytes: u64,
    pub round_trips: u64,
    /// Rows read by key, beyond the scan.
    pub source_rows_reread: u64,
    pub target_rows_reread: u64,
    /// Confirmed differences by part of the key order; each part holds equally many of the target's rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_range: Vec<u64>,
    /// Undo: rows that have changed since the run and were left as they are.
    #[serde(default)]
    pub moved_on: u64,
    /// The target's agent keeps a journal from which this run can be taken back.
    #[serde(default)]
    pub undo_kept: bool,
    pub seconds: PhaseSeconds,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseSeconds {
    pub scan: f64,
    pub locate: f64,
    pub recheck: f64,
    pub repair: f64,
    pub verify: f64,
}

impl TableOutcome {
    /// Adds the outcome of another part of the same table. Roots and ranges are of one part each, and are left.
    pub fn add(&mut self, part: &Self) {
        let mut copy = part.clone();
        let mut sum = |field: fn(&mut Self) -> &mut u64| *field(self) += *field(&mut copy);
        sum(|outcome| &mut outcome.source_rows);
        sum(|outcome| &mut outcome.target_rows);
        sum(|outcome| &mut outcome.missing);
        sum(|outcome| &mut outcome.changed);
        sum(|outcome| &mut outcome.extra);
        sum(|outcome| &mut outcome.in_flight);
        sum(|outcome| &mut outcome.unsettled);
        sum(|outcome| &mut outcome.tolerated);
        sum(|outcome| &mut outcome.inserted);
        sum(|outcome| &mut outcome.updated);
        sum(|outcome| &mut outcome.deleted);
        sum(|outcome| &mut outcome.left);
        sum(|outcome| &mut outcome.set_aside);
        sum(|outcome| &mut outcome.bytes_to_source);
        sum(|outcome| &mut outcome.bytes_to_target);
        sum(|outcome| &mut outcome.messages_to_source);
        sum(|outcome| &mut outcome.messages_to_target);
        sum(|outcome| &mut outcome.handshake_bytes);
        sum(|outcome| &mut outcome.round_trips);
        sum(|outcome| &mut outcome.source_rows_reread);
        sum(|outcome| &mut outcome.target_rows_reread);
        sum(|outcome| &mut outcome.moved_on);
        self.over_limit |= part.over_limit;
        self.undo_kept |= part.undo_kept;
        let (mine, more) = (&mut self.seconds, &part.seconds);
        mine.scan += more.scan;
        mine.locate += more.locate;
        mine.recheck += more.recheck;
        mine.repair += more.repair;
        mine.verify += more.verify;
    }

    pub fn differences(&self) -> u64 {
        self.missing + self.changed + self.extra
    }
}

#[cfg(test)]
mod tests {
    use super::super::intents::RowIntent;
    use super::*;
    use crate::model::Operation;

    #[test]
    fn every_event_crosses_the_wire() {
        let outcome = TableOutcome {
            missing: u64::MAX,
            seconds: PhaseSeconds { scan: 0.125, ..PhaseSeconds::default() },
            repaired_root: Some("ab".to_owned()),
            ..TableOutcome::default()
        };
        let values = ValuePair { source: Some("1".to_owned()), target: None };
        let difference = Difference {
            kind: DifferenceKind::Changed,
            key: vec![("id".to_owned(), "7".to_owned())],
            columns: vec![
                DifferingColumn { name: "a".to_owned(), values: Some(values) },
                DifferingColumn { name: "b".to_owned(), values: None },
            ],
        };
        let text = || "text".to_owned();
        for event in [
            Event::Phase { phase: Phase::Recheck },
            Event::Progress { side: Role::Source, rows: 5_000_000_000 },
            Event::Located { missing: 1, changed: 2, extra: 3 },
            Event::Difference { difference },
            Event::Worked { done: 1, of: 2 },
            Event::Equal { tables: vec![EqualTable { at: 3, rows: u64::MAX, root: text() }] },
            Event::SetAside { key: vec![(text(), text())], reason: text() },
            Event::Sql { statement: text() },
            Event::Intended {
                table: text(),
                batch: 7,
                rows: Intents::Each(vec![RowIntent {
                    key: text(),
                    operation: Operation::Delete,
                    before: Some(text()),
                    after: None,
                }]),
            },
            Event::Intended {
                table: text(),
                batch: 8,
                rows: Intents::Inserts { keys: text(), after: text() },
            },
            Event::Applied { batch: 7, outcomes: vec![RowOutcome::Written, RowOutcome::Unknown] },
            Event::UndoTable { table: text() },
            Event::Undone { undone: Undone { moved_on: 3, partial: true, ..Undone::default() } },
            Event::Done { outcome: Box::new(outcome) },
            Event::Failed { kind: text(), side: Some(Role::Target), message: text(), hint: None },
        ] {
            let json = serde_json::to_vec(&event).unwrap();
            assert_eq!(serde_json::from_slice::<Event>(&json).unwrap(), event);
        }
    }
}
