//! What a run is asked to do, and what it tells while it runs. These cross the wire as JSON, coordinator to agent.

use serde::{Deserialize, Serialize};

use super::difference::Difference;
use super::outcome::TableOutcome;
use super::trail::{Acknowledge, Intents, RowOutcome, TrailWish};
use crate::model::{Allow, Plan, Role, Tolerances};

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
    /// Tables of which the ledger says that the run wrote to them and ended by itself: their journals are there, and whole.
    #[serde(default)]
    pub ended: Vec<String>,
    /// The target is a restored copy of what the run wrote to, or its table was rebuilt.
    #[serde(default)]
    pub restored: bool,
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
    /// Rows that do not hold all that they held before the run, though they were put back.
    pub altered: u64,
    /// What of the run the journal does not hold: the table is taken back in part only.
    pub limits: Vec<String>,
    /// The journal was not closed: the run ended while it wrote, or the journal's end was lost.
    pub open: bool,
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
    /// Rows that could not be written for one reason, and some of them by their keys.
    SetAside {
        reason: String,
        count: u64,
        examples: Vec<Vec<(String, String)>>,
    },
    /// Told before the first write: why the run cannot be taken back, or not wholly.
    UndoLimits {
        limits: Vec<String>,
    },
    /// One statement of a repair.
    Sql {
        statement: String,
        /// Other tables refer to rows of this one: where they are in the file too, it stands behind theirs.
        #[serde(default)]
        after_others: bool,
    },
    /// Told before the batch is written. Only where a trail was asked for.
    Intended {
        /// Its name at the target.
        table: String,
        batch: u64,
        rows: Intents,
        /// Used when the intent is durable: the batch waits for it.
        #[serde(skip)]
        acknowledge: Acknowledge,
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
    /// What was done until a run failed that had begun to write; why comes with `Failed`.
    Stopped {
        outcome: Box<TableOutcome>,
    },
    Failed {
        kind: String,
        side: Option<Role>,
        message: String,
        hint: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::super::difference::{DifferenceKind, DifferingColumn, ValuePair};
    use super::super::outcome::PhaseSeconds;
    use super::super::trail::RowIntent;
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
            Event::UndoLimits { limits: vec![text()] },
            Event::SetAside { reason: text(), count: u64::MAX, examples: vec![vec![(text(), text())]] },
            Event::Sql { statement: text(), after_others: true },
            Event::Intended {
                table: text(),
                batch: 7,
                rows: Intents::Each(vec![RowIntent {
                    key: text(),
                    operation: Operation::Delete,
                    before: Some(text()),
                    after: None,
                }]),
                acknowledge: Acknowledge::default(),
            },
            Event::Intended {
                table: text(),
                batch: 8,
                rows: Intents::Inserts { keys: text(), after: text() },
                acknowledge: Acknowledge::default(),
            },
            Event::Applied { batch: 7, outcomes: vec![RowOutcome::Written, RowOutcome::Unknown] },
            Event::UndoTable { table: text() },
            Event::Undone {
                undone: Undone { moved_on: 3, open: true, limits: vec![text()], ..Undone::default() },
            },
            Event::Done { outcome: Box::new(outcome.clone()) },
            Event::Stopped { outcome: Box::new(outcome) },
            Event::Failed { kind: text(), side: Some(Role::Target), message: text(), hint: None },
        ] {
            let json = serde_json::to_vec(&event).unwrap();
            assert_eq!(serde_json::from_slice::<Event>(&json).unwrap(), event);
        }
    }
}
