//! What is asked before the first row is put back: whether every journal can be read and is whole, whether the run has ended,
//! and whether these are the tables that it wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::error::{AgentError, FailureKind};
use super::super::event::UndoTask;
use super::super::identity::altered_column;
use super::super::local::LocalAgent;
use super::super::undo::own::OwnAccess;
use super::super::undo::reader::{JournalReader, is_written, still_written};
use super::super::undo::{JournalHead, UndoStore};
use crate::engine::{ErrorKind, Origin};
use crate::model::{TableAccess, TableName, TableSchema};

/// Journals that cannot be read and are named.
const NAMED_MAX: usize = 10;
/// A run whose coordinator has just died stops at its next batch: so often its journals are looked at again.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

const RESTORED: &str = "name the database that the run wrote to with --target; where this is a copy of it that was restored from a backup, or the table was rebuilt and holds the same rows, say so with --restored";

/// Where the journals of a table are taken back.
#[derive(Debug, Clone)]
pub(super) struct Here {
    pub(super) table: TableName,
    pub(super) origin: Origin,
}

/// By the name that the run wrote to.
pub(super) type Places = BTreeMap<String, Here>;

pub(super) fn open(store: &UndoStore, path: &Path) -> Result<Option<JournalReader>, AgentError> {
    JournalReader::open(path, store.key())
}

/// The run's journals: all of them, while nobody writes one.
pub(super) async fn ended_journals(store: &UndoStore, run: &str) -> Result<Vec<PathBuf>, AgentError> {
    let mut looks = 0;
    loop {
        let files = store.of_run(run)?;
        let Some(written) = files.iter().find(|path| is_written(path)) else { return Ok(files) };
        looks += 1;
        if looks >= LOOKS {
            let mut error = still_written(written);
            error.message = format!("run {run} is not taken back: {}", error.message);
            return Err(error);
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Damage in any of them is found before the first row is put back: a run is taken back by all of its journals, or it is
/// said which of them cannot be read. The heads, one of each table and origin.
pub(super) fn heads(
    store: &UndoStore,
    files: &[PathBuf],
    task: &UndoTask,
) -> Result<Vec<JournalHead>, AgentError> {
    let (mut faults, mut hint) = (Vec::new(), None);
    let (mut closed, mut whole): (BTreeMap<String, bool>, bool) = (BTreeMap::new(), true);
    let mut heads: BTreeMap<String, Vec<JournalHead>> = BTreeMap::new();
    for path in files {
        match open(store, path) {
            Ok(Some(reader)) => {
                let name = reader.head.plan.target.to_string();
                *closed.entry(name.clone()).or_insert(true) &= reader.closed;
                let known = heads.entry(name).or_default();
                if !known.iter().any(|head| head.origin == reader.head.origin) {
                    known.push(reader.head);
                }
            }
            // Begun, and nothing was written.
            Ok(None) => whole = false,
            Err(error) => {
                faults.push(error.message);
                hint = hint.or(error.hint);
            }
        }
    }
    if faults.is_empty() {
        for table in &task.ended {
            match closed.get(table) {
                Some(true) => {}
                Some(false) => {
                    faults.push(format!("a journal of table {table} is cut: the run has ended, and its last records are missing"));
                }
                None if whole => faults.push(format!("the journals of table {table} are missing")),
                None => faults.push(format!("the journals of table {table} are missing or cut")),
            }
        }
    }
    if faults.is_empty() {
        return Ok(heads.into_values().flatten().collect());
    }
    let (count, of) = (faults.len(), files.len());
    faults.truncate(NAMED_MAX);
    let what = format!(
        "run {} cannot be taken back: {count} faults in its {of} undo journals: {}",
        task.undoes,
        faults.join("; ")
    );
    let hint = hint.unwrap_or_else(|| {
        "nothing was put back; restore the journals, or the rows, from a backup".to_owned()
    });
    Err(AgentError::new(FailureKind::Resource, what).with_hint(hint))
}

/// Whether each table is the one that the run wrote, and its columns are what they were.
pub(super) async fn places(
    agent: &LocalAgent,
    heads: &[JournalHead],
    task: &UndoTask,
) -> Result<Places, AgentError> {
    let refused = |why: String, hint: &str| {
        let what = format!("run {} is not taken back: {why}", task.undoes);
        AgentError::new(FailureKind::Usage, what).with_hint(format!("nothing was put back; {hint}"))
    };
    let mut places = Places::new();
    for head in heads {
        let written = &head.plan.target;
        let wanted = if task.restored { head.origin.name_in_copy(written) } else { written.clone() };
        agent.permit(&wanted)?;
        let schema = match agent.engine.describe(&wanted).await {
            Ok(schema) => schema,
            Err(error) if error.kind == ErrorKind::NoSuchTable => {
                let why = format!("the target has no table {wanted} that this login may see");
                return Err(refused(why, RESTORED));
            }
            Err(error) => return Err(error.into()),
        };
        agent.permit(&schema.table)?;
        let origin = agent.engine.origin(&schema.table).await?;
        if let Some(why) = head.origin.differs(&origin, written).filter(|_| !task.restored) {
            return Err(refused(why, RESTORED));
        }
        let own = OwnAccess::new(head.whole.clone(), &head.plan);
        columns_are_the_same(own.writing(), &schema).map_err(|(why, hint)| refused(why, hint))?;
        places.insert(written.to_string(), Here { table: schema.table, origin });
    }
    Ok(places)
}

/// Rows are put back by the columns that they had.
pub(super) fn columns_are_the_same(
    access: &TableAccess,
    schema: &TableSchema,
) -> Result<(), (String, &'static str)> {
    let Some((column, how)) = altered_column(access, schema) else { return Ok(()) };
    Err((
        format!("table {} was altered since the run: column {column} {how}", schema.table),
        "give the column the name and the type that it had and run the undo again, or take the rows from a backup",
    ))
}
