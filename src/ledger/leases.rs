//! Who runs which check, and when it is due next: one row a check, held for a time by one coordinator.
//!
//! A coordinator that dies leaves its rows; when the lease is over another takes them. The number that each claim gets is
//! one higher than the last, so that one who has slept through its lease is known.

use super::incidents::{Incident, Notice, note_steps};
use super::store::{Cell, Row, Step, StoreError, query};
use super::{Ledger, LedgerError};

const ROW_COLUMNS: &str = "name, due, owner, lease_until, last_run, last_at, last_status";

/// A check that is being run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    pub owner: String,
    pub fence: i64,
    /// When it was due; RFC 3339, as all times here.
    pub due: String,
}

/// How a check ended: its run, and when it is due next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseEnd {
    /// `None`: only by hand.
    pub due: Option<String>,
    pub run: String,
    pub at: String,
    pub status: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    pub name: String,
    /// `None`: only by hand.
    pub due: Option<String>,
    pub owner: Option<String>,
    pub lease_until: Option<String>,
    pub last_run: Option<String>,
    pub last_at: Option<String>,
    pub last_status: Option<String>,
}

impl Ledger {
    /// Notes when a check is due where it is new, or its timetable is another than before.
    pub async fn schedule(&self, name: &str, timetable: &str, due: Option<&str>) -> Result<(), LedgerError> {
        let sql = "INSERT INTO trueup_schedule (name, timetable, due, fence) VALUES ($1, $2, $3, 0)
             ON CONFLICT (name) DO UPDATE SET timetable = excluded.timetable, due = excluded.due
             WHERE trueup_schedule.timetable <> excluded.timetable";
        let cells = vec![Cell::text(name), Cell::text(timetable), Cell::Text(due.map(str::to_owned))];
        self.store.run(vec![Step::execute(sql, cells)]).await?;
        Ok(())
    }

    /// Sets the time where it is passed and nobody runs the check: what was missed is left out.
    pub async fn postpone(&self, name: &str, before: &str, due: Option<&str>) -> Result<bool, LedgerError> {
        let sql = "UPDATE trueup_schedule SET due = $1 WHERE name = $2 AND due < $3 AND owner IS NULL";
        let cells = vec![Cell::Text(due.map(str::to_owned)), Cell::text(name), Cell::text(before)];
        let done = self.store.run(vec![Step::execute(sql, cells)]).await?;
        Ok(done.first().is_some_and(|given| given.changed == 1))
    }

    /// Makes a check due now.
    pub async fn hurry(&self, name: &str, now: &str) -> Result<bool, LedgerError> {
        let sql = "UPDATE trueup_schedule SET due = $1 WHERE name = $2 AND (due IS NULL OR due > $1)";
        let done = self.store.run(vec![Step::execute(sql, vec![Cell::text(now), Cell::text(name)])]).await?;
        Ok(done.first().is_some_and(|given| given.changed == 1))
    }

    /// Sets a time that cannot be right, where it still stands and nobody runs the check.
    pub async fn correct_due(&self, name: &str, was: &str, due: &str) -> Result<bool, LedgerError> {
        let sql = "UPDATE trueup_schedule SET due = $1 WHERE name = $2 AND due = $3 AND owner IS NULL";
        let cells = vec![Cell::text(due), Cell::text(name), Cell::text(was)];
        let done = self.store.run(vec![Step::execute(sql, cells)]).await?;
        Ok(done.first().is_some_and(|given| given.changed == 1))
    }

    /// Takes a lease away whose holder is gone. `false`: it has been renewed or given back since it was looked at.
    pub async fn free(&self, row: &ScheduleRow) -> Result<bool, LedgerError> {
        let (Some(owner), Some(until)) = (&row.owner, &row.lease_until) else { return Ok(false) };
        let sql = "UPDATE trueup_schedule SET owner = NULL, lease_until = NULL
             WHERE name = $1 AND owner = $2 AND lease_until = $3";
        let cells = vec![Cell::text(&row.name), Cell::text(owner), Cell::text(until)];
        let done = self.store.run(vec![Step::execute(sql, cells)]).await?;
        Ok(done.first().is_some_and(|given| given.changed == 1))
    }

    pub async fn schedule_rows(&self) -> Result<Vec<ScheduleRow>, LedgerError> {
        let sql = format!("SELECT {ROW_COLUMNS} FROM trueup_schedule ORDER BY name");
        Ok(query(self.store.as_ref(), sql, Vec::new()).await?.into_iter().map(schedule_row).collect())
    }

    /// Takes a check that is due and held by nobody; `None` where another was quicker.
    pub async fn claim(
        &self,
        name: &str,
        owner: &str,
        now: &str,
        until: &str,
    ) -> Result<Option<Lease>, LedgerError> {
        let claim = format!(
            "UPDATE trueup_schedule SET owner = $1, lease_until = $2, fence = fence + 1 WHERE name IN
             (SELECT name FROM trueup_schedule WHERE name = $3 AND due <= $4 AND (owner IS NULL OR lease_until < $4){})",
            self.store.skip_locked()
        );
        let steps = vec![
            Step::one_change(
                claim,
                vec![Cell::text(owner), Cell::text(until), Cell::text(name), Cell::text(now)],
            ),
            Step::query("SELECT fence, due FROM trueup_schedule WHERE name = $1", vec![Cell::text(name)]),
        ];
        match self.store.run(steps).await {
            Ok(mut given) => {
                let row = given.pop().and_then(|given| given.rows.into_iter().next());
                Ok(row.map(|mut row| Lease {
                    name: name.to_owned(),
                    owner: owner.to_owned(),
                    fence: row.int(),
                    due: row.text(),
                }))
            }
            Err(StoreError::Conflict(_)) => Ok(None),
            Err(StoreError::Failed(error)) => Err(error),
        }
    }

    /// Renews all of them. `false`: one was lost, and another may run its check.
    pub async fn renew(&self, leases: &[Lease], until: &str) -> Result<bool, LedgerError> {
        let sql = "UPDATE trueup_schedule SET lease_until = $1 WHERE name = $2 AND owner = $3 AND fence = $4";
        let step = |lease: &Lease| {
            let mut cells = vec![Cell::text(until)];
            cells.extend(held(lease));
            Step::execute(sql, cells)
        };
        let done = self.store.run(leases.iter().map(step).collect()).await?;
        Ok(done.iter().all(|given| given.changed == 1))
    }

    /// Gives a check back that was not run to its end: it is due as before. `false`: the lease was lost before.
    pub async fn release(&self, lease: &Lease) -> Result<bool, LedgerError> {
        let mut cells = vec![Cell::text(&lease.due)];
        cells.extend(held(lease));
        let sql = "UPDATE trueup_schedule SET owner = NULL, lease_until = NULL, due = $1
             WHERE name = $2 AND owner = $3 AND fence = $4";
        let done = self.store.run(vec![Step::execute(sql, cells)]).await?;
        Ok(done.first().is_some_and(|given| given.changed == 1))
    }

    /// The end of a check: its next time, what became of its incidents, and the messages about them. All of it, or nothing.
    /// `false`: the lease was lost before, and nothing was noted.
    pub async fn end_check(
        &self,
        lease: &Lease,
        end: &LeaseEnd,
        changes: &[(Incident, Vec<Notice>)],
    ) -> Result<bool, LedgerError> {
        let mut cells = vec![Cell::Text(end.due.clone())];
        cells.extend(held(lease));
        cells.extend([Cell::text(&end.run), Cell::text(&end.at), Cell::text(&end.status)]);
        let fence = Step::one_change(
            "UPDATE trueup_schedule SET owner = NULL, lease_until = NULL, due = $1, last_run = $5, last_at = $6, last_status = $7
             WHERE name = $2 AND owner = $3 AND fence = $4",
            cells,
        );
        let noted = changes.iter().flat_map(|(incident, notices)| note_steps(incident, notices));
        match self.store.run(std::iter::once(fence).chain(noted).collect()).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict(_)) => Ok(false),
            Err(StoreError::Failed(error)) => Err(error),
        }
    }
}

fn held(lease: &Lease) -> [Cell; 3] {
    [Cell::text(&lease.name), Cell::text(&lease.owner), Cell::int(lease.fence)]
}

fn schedule_row(mut row: Row) -> ScheduleRow {
    ScheduleRow {
        name: row.text(),
        due: row.maybe_text(),
        owner: row.maybe_text(),
        lease_until: row.maybe_text(),
        last_run: row.maybe_text(),
        last_at: row.maybe_text(),
        last_status: row.maybe_text(),
    }
}
