//! Which run `last` means to an undo: the newest that wrote, and whose writes stand.

use super::store::{Cell, query};
use super::{Ledger, LedgerError};
use crate::report::record::RunRecord;

/// Runs that are looked at together.
const TOGETHER: i64 = 50;
/// Undos of undos that are followed.
const DEPTH_MAX: u32 = 32;

/// Runs that may have written rows, the newest first, and whether that is known: by what their tables came to, or by what
/// they were about to write. One that did not end as it should may have written before the trail heard of it. An undo is
/// none of them.
const MAY_HAVE_WRITTEN: &str = "SELECT r.id, CAST(CASE WHEN EXISTS ( \
         SELECT 1 FROM trueup_tables t WHERE t.run = r.id AND t.inserted + t.updated + t.deleted > 0) \
       OR (COALESCE(r.outcome, '') NOT IN ('same', 'different') \
           AND EXISTS (SELECT 1 FROM trueup_audit a WHERE a.run = r.id AND a.kind = 'intent')) \
       THEN 1 ELSE 0 END AS BIGINT), CAST(CASE WHEN r.outcome IN ('same', 'different') THEN 1 ELSE 0 END AS BIGINT) \
     FROM trueup_runs r WHERE r.writes = 1 AND r.kind <> 'undo' \
     ORDER BY r.started_at DESC, r.id DESC LIMIT $1 OFFSET $2";

impl Ledger {
    /// The last run that wrote and is not taken back yet. One that was taken back in part is not. `has_journal` is asked of
    /// runs that died early, of which the ledger does not know whether they wrote.
    pub async fn last_to_undo(
        &self,
        has_journal: impl Fn(&str) -> bool + Send,
    ) -> Result<RunRecord, LedgerError> {
        let mut offset = 0;
        loop {
            let cells = vec![Cell::int(TOGETHER), Cell::int(offset)];
            let found = query(self.store.as_ref(), MAY_HAVE_WRITTEN, cells).await?;
            let ended = i64::try_from(found.len()).is_ok_and(|found| found < TOGETHER);
            for mut row in found {
                let (id, wrote, ended) = (row.text(), row.int() != 0, row.int() != 0);
                let wrote = wrote || (!ended && has_journal(&id));
                if wrote && !self.is_taken_back(&id, 0).await? {
                    return self.run(&id).await;
                }
            }
            if ended {
                return Err(LedgerError::new(
                    "the ledger has no run that wrote and is not taken back",
                    "trueup runs lists them; name one by its id",
                ));
            }
            offset += TOGETHER;
        }
    }

    /// A run took all of it back, and was not taken back itself. In a restored copy the run's own writes stand.
    async fn is_taken_back(&self, run: &str, depth: u32) -> Result<bool, LedgerError> {
        let sql = "SELECT id FROM trueup_runs WHERE undoes = $1 AND writes = 1 AND outcome = 'same' \
                   AND options NOT LIKE '%\"restored\":true%'";
        for mut row in query(self.store.as_ref(), sql, vec![Cell::text(run)]).await? {
            if depth >= DEPTH_MAX || !Box::pin(self.is_taken_back(&row.text(), depth + 1)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
