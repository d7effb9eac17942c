//! Checks of one pair as one run of the ledger: for `trueup check` and for the coordinator.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::config::{Endpoints, Loaded};
use super::evidence;
use super::evidence_args::{EvidenceArgs, UndoStoreArgs};
use super::live::{Live, Watched};
use super::recorder::{Recorder, Recording, Totals};
use crate::agent::error::FailureKind;
use crate::agent::{AgentError, TaskOptions};
use crate::checks::{self, CheckOptions, Notes};
use crate::config::{CheckSpec, PairSpec};
use crate::coordinator::RunEvent;
use crate::model::Role;
use crate::report::TableReport;
use crate::report::checks::CheckResult;
use crate::report::record::TableRecord;

/// Under which evidence checks run.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    pub(super) evidence: EvidenceArgs,
    pub(super) undo: Option<UndoStoreArgs>,
    /// Of checks that ran by a timetable: when they were due.
    pub(super) due: BTreeMap<String, String>,
    /// Who asked for it, where it was not the timetable.
    pub(super) asked_by: Option<String>,
    /// Where others look how far it is.
    pub(super) live: Option<Arc<Live>>,
}

/// What the checks of a pair came to, and the run that they were.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) run: String,
    pub(super) results: Vec<CheckResult>,
    pub(super) reports: Vec<TableReport>,
}

#[tracing::instrument(level = "info", skip_all, name = "run", fields(kind = "check", pair = name))]
pub(super) async fn run_pair(
    loaded: &Loaded,
    endpoints: &mut Endpoints<'_>,
    (name, pair): (&str, &PairSpec),
    checks: &[(&str, &CheckSpec)],
    options: &CheckOptions,
    keeping: &Keeping,
    stop: &CancellationToken,
) -> Result<Checked, Failure> {
    let writes = checks::may_write(checks, options.dry_run);
    let (source, _) = endpoints.place(&pair.source)?;
    let (target, typed) = endpoints.place(&pair.target)?;
    let names: Vec<&str> = checks.iter().map(|(name, _)| *name).collect();
    let recording = Recording {
        kind: "check",
        source: &source,
        target: &target,
        target_typed: &typed,
        writes,
        undoes: None,
        undo: keeping.undo.as_ref(),
        options: serde_json::json!({
            "pair": name, "checks": names, "dry_run": options.dry_run, "recheck": options.recheck,
            "due": keeping.due, "asked_by": keeping.asked_by,
            "config": loaded.path.display().to_string(),
        }),
    };
    let recorder = Recorder::begin(&keeping.evidence, recording).await?;
    let live = keeping.live.clone().map(|live| Watched::new(live, recorder.run(), &names));
    let mut noting = Noting { recorder, live, writes, tables: Vec::new(), reports: Vec::new() };
    let agents = async {
        let undo = match keeping.undo.as_ref().filter(|_| writes) {
            Some(undo) => evidence::undo_store(undo, &keeping.evidence, &target)?,
            None => None,
        };
        let source = endpoints.agent(&pair.source, Role::Source).await?;
        Ok((source, endpoints.agent_with(&pair.target, Role::Target, undo).await?))
    };
    let work = async {
        match agents.await {
            Ok((source, target)) => {
                Box::pin(checks::run_pair(name, pair, checks, (&source, &target), options, &mut noting)).await
            }
            // The other pairs' checks still run.
            Err(Failure { message, hint, .. }) => {
                checks::unreachable(name, checks, &message, hint.as_deref())
            }
        }
    };
    let work = AssertUnwindSafe(work).catch_unwind();
    let ended = tokio::select! {
        results = work => Some(results),
        // Dropping the run stops both sides; a write under way is one transaction, whole or not at all.
        () = stop.cancelled() => None,
    };
    let results = match ended {
        Some(Ok(results)) => results,
        Some(Err(_)) => {
            let failure = Failure::new("the check has panicked", "this is a defect: please report it");
            noting.recorder.fail(&failure).await;
            return Err(failure);
        }
        None => {
            let failure = noting.recorder.interrupted("run the same checks again");
            noting.recorder.fail(&failure).await;
            return Err(failure);
        }
    };
    let Noting { mut recorder, tables, reports, .. } = noting;
    recorder.finish(Totals::of_checks(results.clone(), tables)).await?;
    Ok(Checked { run: recorder.run().to_owned(), results, reports })
}

struct Noting {
    recorder: Recorder,
    live: Option<Watched>,
    writes: bool,
    tables: Vec<TableRecord>,
    reports: Vec<TableReport>,
}

#[async_trait]
impl Notes for Noting {
    fn ask(&self, options: &mut TaskOptions) {
        // A check that only looks has no journal and no trail of rows.
        if self.writes {
            self.recorder.ask(options);
        }
    }

    async fn event(&mut self, event: &RunEvent) -> Result<(), AgentError> {
        self.live.iter().for_each(|live| live.note(event));
        self.recorder.event(event).await.map_err(|failure| {
            let error = AgentError::new(FailureKind::Database, failure.message);
            match failure.hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        })
    }

    fn table(&mut self, report: &TableReport) {
        self.tables.push(self.recorder.table_record(report));
        self.reports.push(report.clone());
    }
}
